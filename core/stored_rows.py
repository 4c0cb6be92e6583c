"""Rows in the order in which they came: a few in memory, many in a file.

Past `StoredRows.most` all of them lie in a temporary file, which has no name and goes with the rows; a row is
read when it is asked for, and equals the one that was put in. The file is read and not mapped, because what was
looked at of a mapping counts as memory of the process.
"""

import os
import pickle
import tempfile
import weakref
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, ClassVar, TypeVar, overload

from vertigym.core.errors import OutputError

T = TypeVar("T")
R = TypeVar("R")


class StoredRows(Sequence[T]):
    """Any number of rows, each of what `pickle` takes. Threads and forked processes may read side by side.

    Raises:
        OutputError: there is no room for them.
    """

    most: ClassVar[int] = 10_000  # in memory

    def __init__(self, rows: Iterable[T] = ()) -> None:
        self._held: list[T] = []
        self._file: IO[bytes] | None = None
        self._ends = array("q", [0])  # bytes, each row from the end of the one before
        self._flushed = 0  # rows
        for row in rows:
            self.append(row)

    @property
    def rows(self) -> Sequence[T]:
        """The list of them, while they are few."""
        return self if self._file else self._held

    def append(self, row: T) -> None:
        """One more row, the last."""
        if self._file:
            self._write(self._file, row)
            return
        self._held.append(row)
        if len(self._held) > self.most:
            file = tempfile.TemporaryFile()  # noqa: SIM115 (closed when nobody holds the rows any more)
            weakref.finalize(self, file.close)
            for one in self._held:
                self._write(file, one)
            self._file, self._held = file, []

    def __len__(self) -> int:
        return len(self._ends) - 1 if self._file else len(self._held)

    @overload
    def __getitem__(self, place: int) -> T: ...

    @overload
    def __getitem__(self, place: slice) -> list[T]: ...

    def __getitem__(self, place: int | slice) -> T | list[T]:
        if not self._file:
            return self._held[place]
        if isinstance(place, slice):
            return [self._read(self._file, one) for one in range(*place.indices(len(self)))]
        return self._read(self._file, range(len(self))[place])

    def __iter__(self) -> Iterator[T]:
        return (self[place] for place in range(len(self)))

    def _write(self, file: IO[bytes], row: T) -> None:
        packed = pickle.dumps(row, pickle.HIGHEST_PROTOCOL)
        self._ends.append(self._ends[-1] + self._tried(lambda: file.write(packed)))

    def _read(self, file: IO[bytes], place: int) -> T:
        if place >= self._flushed:
            self._tried(file.flush)
            self._flushed = len(self)
        start, end = self._ends[place], self._ends[place + 1]
        row: T = pickle.loads(os.pread(file.fileno(), end - start, start))  # noqa: S301 (of this process alone)
        return row

    def _tried(self, write: Callable[[], R]) -> R:
        try:
            return write()
        except OSError as error:
            raise OutputError(
                f"{tempfile.gettempdir()}: no room for {len(self):,} rows ({error.strerror}): make room there, "
                "or name another folder in TMPDIR"
            ) from error
