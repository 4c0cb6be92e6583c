"""The record of a server: an append-only JSONL file of traces and feedback that loses no confirmed line.

A line is confirmed when it is on the disk (fsync), and the reply is sent only then. Lines that arrive together
share one fsync. A server killed in mid-write leaves at most a torn last line, of a call without a reply; the
next server starts a new line after it, and `vertigym traces import` sets it aside.
"""

import asyncio
import fcntl
import json
import os
import threading
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue

from vertigym.core.errors import ConfigError, DataError
from vertigym.core.files import sync_folder

_Line = tuple[bytes, "Future[None]"]


class Recorder:
    """Appends lines to `path`, in order; only one server may use a file.

    Raises:
        ConfigError: another process records there. DataError: the file cannot be opened.
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
        self._end = os.fstat(self._file).st_size
        if self._end and os.pread(self._file, 1, self._end - 1) != b"\n":
            self._write(b"\n")  # closes a line that a crash tore
        sync_folder(path.parent)
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
        """The ids of the recorded calls. Lines that are no JSON are skipped."""
        found = set()
        with self.path.open("rb") as file:
            for line in file:
                try:
                    row = json.loads(line)
                except ValueError:
                    continue
                if isinstance(row, dict) and "messages" in row:
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
            except OSError as error:
                for done in awaited:
                    done.set_exception(error)
            else:
                for done in awaited:
                    done.set_result(None)
            if last:
                return

    def _write(self, data: bytes) -> None:
        """All of `data` and an fsync, or nothing."""
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._file, view) :]
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, self._end)
            raise
        self._end += len(data)
