"""The record of a server: an append-only JSONL file of traces and feedback that loses no confirmed line.

A line is confirmed when it is on the disk (fsync), and the reply is sent only then. Lines that arrive together
share one fsync. A server killed in mid-write leaves at most a torn last line, of a call without a reply; the
next server starts a new line after it, and `vertigym traces import` sets it aside.
"""

import asyncio
import errno
import fcntl
import os
import threading
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue

from pydantic_core import from_json

from vertigym.core.errors import ConfigError, DataError
from vertigym.core.files import sync_folder

_Line = tuple[bytes, "Future[None]"]


class Recorder:
    """Appends lines to `path`, in order; only one server may use a file.

    Raises:
        ConfigError: another process records there. DataError: the file cannot be opened or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise DataError(f"{path}: cannot record there ({error.strerror})") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise ConfigError(f"{path}: another server records there; give this one its own file") from None
        self._torn = False
        self._end = os.fstat(self._file).st_size
        try:
            if self._end and os.pread(self._file, 1, self._end - 1) != b"\n":
                self._write(b"\n")  # closes a line that a crash tore
            sync_folder(path.parent)
        except OSError as error:
            os.close(self._file)
            raise DataError(f"{path}: cannot record there ({error.strerror})") from None
        self._queue: SimpleQueue[_Line | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    async def append(self, line: str) -> None:
        """Write one line (with its newline) and return when it is on the disk.

        Raises:
            OSError: the write failed; nothing of it is left in the file.
        """
        done: Future[None] = Future()
        self._queue.put((line.encode("utf-8"), done))
        await asyncio.wrap_future(done)

    def known(self) -> set[str]:
        """The ids of the recorded calls that were answered. Lines that are no JSON are skipped."""
        found = set()
        with self.path.open("rb") as file:
            for line in file:
                try:
                    row = from_json(line)
                except ValueError:
                    continue
                if isinstance(row, dict) and "messages" in row and row.get("delivered", True):
                    found.add(str(row.get("id")))
        return found

    def close(self) -> None:
        """Write the waiting lines and close the file."""
        self._queue.put(None)
        self._thread.join()
        os.close(self._file)

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            lines, last = [first], False
            while not self._queue.empty():
                more = self._queue.get()
                if more is None:
                    last = True
                    break
                lines.append(more)
            awaited = [done for _, done in lines if done.set_running_or_notify_cancel()]
            try:
                self._write(b"".join(data for data, _ in lines))
            except Exception as error:  # of any kind: the thread must go on, and nobody may wait for ever
                for done in awaited:
                    done.set_exception(error)
            else:
                for done in awaited:
                    done.set_result(None)
            if last:
                return

    def _write(self, data: bytes) -> None:
        """All of `data` and an fsync, or nothing."""
        if not os.fstat(self._file).st_nlink:
            raise OSError(errno.ENOENT, "the record was deleted; start the server again")
        self._cut()
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._file, view) :]
            os.fsync(self._file)
        except OSError:
            self._torn = True
            self._cut()
            raise
        self._end += len(data)

    def _cut(self) -> None:
        """Take away half a line; where that fails too, before the next one is written."""
        if self._torn:
            os.ftruncate(self._file, self._end)
            self._torn = False
