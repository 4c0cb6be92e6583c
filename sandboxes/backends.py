"""Other people's sandboxes: implement `SandboxBackend`, register it under a name, ask a pool for that name.

    register_backend("firecracker", MyBackend())        # or an entry point of the group `vertigym.sandboxes`
    SandboxPool("firecracker")

A backend opens sandboxes; each runs one job at a time and may block: the pool gives it a thread of its own.
"""

import os
import threading
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Protocol

from vertigym.core.errors import SandboxError, UnknownNameError
from vertigym.core.plugins import find_plugin, load_plugin, plugins
from vertigym.sandboxes.contract import Job, JobOutcome, Level
from vertigym.sandboxes.sandbox_worker import SandboxWorker, WorkerKind

ENTRY_POINTS = "vertigym.sandboxes"


class OpenSandbox(Protocol):
    """One sandbox of a backend."""

    def run(self, job: Job) -> JobOutcome:
        """Run a job to its end, within its limits. Any exception means that the sandbox was lost: the job is
        tried again in another one."""

    def close(self) -> None:
        """End it and everything in it."""


class SandboxBackend(Protocol):
    """A way to run jobs."""

    level: Level
    """The built-in level whose isolation this is at least as strong as; compared with a job's `min_level`."""

    def open(self, kind: WorkerKind) -> OpenSandbox:
        """A sandbox for jobs of this kind.

        Raises:
            SandboxError: there can be none; the message says why and what to do.
        """


_registered: dict[str, SandboxBackend] = {}


def register_backend(name: str, backend: SandboxBackend) -> None:
    """Make `backend` available as `SandboxPool(name)`."""
    _registered[name] = backend


def find_backend(name: str) -> SandboxBackend:
    """The backend registered under `name`, here or by an installed package's entry point.

    Raises:
        UnknownNameError: there is none, and no level of that name either.
    """
    if name not in _registered:
        if (point := find_plugin(name, ENTRY_POINTS, {})) is None:
            known = {*map(str, Level), *_registered, *plugins(ENTRY_POINTS, {})}
            raise UnknownNameError("sandbox level", name, known)
        register_backend(name, load_plugin(point)())
    return _registered[name]


class BackendWorker(SandboxWorker):
    """A sandbox of a registered backend, on a thread of its own."""

    def __init__(self, kind: WorkerKind) -> None:
        super().__init__(kind)
        self._backend = find_backend(kind.backend)
        self._jobs: SimpleQueue[tuple[int, Job] | None] = SimpleQueue()
        self._said: SimpleQueue[tuple[int, JobOutcome] | Exception | None] = SimpleQueue()
        self._heard, self._tell = os.pipe()
        threading.Thread(target=self._work, name=f"sandbox {kind.backend}", daemon=True).start()

    def fileno(self) -> int:
        """A pipe with one byte for each message."""
        return self._heard

    def send(self, sequence: int, payloads: Sequence[bytes], job: Job, *, keep: bool = False) -> None:
        """Queue one job."""
        self._hold(sequence, job.limits)
        self._jobs.put((sequence, job))

    def receive(self) -> tuple[int, JobOutcome] | None:
        """The next finished job."""
        os.read(self._heard, 1)
        said = self._said.get()
        if isinstance(said, Exception):
            raise SandboxError(f"a sandbox of {self.kind.backend} was lost: {said}") from said
        if said is None:
            self.ready = True
        else:
            self._release(said[0])
        return said

    def close(self) -> None:
        """Ask the thread to close the sandbox; one that hangs is left behind."""
        self._jobs.put(None)
        os.close(self._heard)

    def let_go(self) -> None:
        """Nothing is shared with a forked copy but the pipe."""
        os.close(self._heard)

    def _work(self) -> None:
        try:
            sandbox = self._backend.open(self.kind)
            try:
                self._say(None)
                while (given := self._jobs.get()) is not None:
                    self._say((given[0], sandbox.run(given[1])))
            finally:
                sandbox.close()
        except Exception as error:
            self._say(error)
        finally:
            os.close(self._tell)

    def _say(self, message: tuple[int, JobOutcome] | Exception | None) -> None:
        self._said.put(message)
        try:
            os.write(self._tell, b"x")
        except BrokenPipeError:
            return  # closed meanwhile
