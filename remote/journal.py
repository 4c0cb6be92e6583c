"""What a model was asked, on disk before the client hears that it was heard.

The one idea: what a model has become follows from its last snapshot and the requests after it, since they give
the same bits again. A request is appended and synced in a millisecond; weights are written now and then.
A file of records: a line of JSON (seq_id, kind, length) and so many bytes. A crash can tear the last record,
whose client was never answered; it is cut off.
"""

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vertigym.core.files import write_bytes


@dataclass(frozen=True, slots=True)
class Recorded:
    """A request by its number in its model's order."""

    seq_id: int
    kind: str
    body: bytes

    def encoded(self) -> bytes:
        """As in the file."""
        head = {"seq_id": self.seq_id, "kind": self.kind, "length": len(self.body)}
        return json.dumps(head).encode() + b"\n" + self.body + b"\n"


class Journal:
    """The file of one model's requests."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()  # appended to by the server, shortened by the worker

    def append(self, record: Recorded) -> None:
        """Write it, and return when it is on the disk."""
        with self._lock, self._file.open("ab") as opened:
            opened.write(record.encoded())
            opened.flush()
            os.fsync(opened.fileno())

    def records(self) -> list[Recorded]:
        """All that are whole; what a crash tore is cut off."""
        with self._lock:
            if not self._file.exists():
                return []
            found = list(self._read())
            end = found[-1][1] if found else 0
            if end < self._file.stat().st_size:
                os.truncate(self._file, end)
            return [record for record, _ in found]

    def _read(self) -> Iterator[tuple[Recorded, int]]:
        with self._file.open("rb") as opened:
            while (line := opened.readline()).endswith(b"\n"):
                try:
                    head = json.loads(line)
                except ValueError:
                    return
                body = opened.read(head["length"])
                if opened.read(1) != b"\n":
                    return
                yield Recorded(head["seq_id"], head["kind"], body), opened.tell()

    def drop_until(self, seq_id: int) -> None:
        """Forget the requests up to this one: a snapshot holds what they did."""
        kept = [record for record in self.records() if record.seq_id > seq_id]
        with self._lock:
            write_bytes(self._file, b"".join(record.encoded() for record in kept))

    @property
    def size(self) -> int:
        """Bytes."""
        return self._file.stat().st_size if self._file.exists() else 0
