"""A sandbox that lives: a folder that commands read and change one after another, until it is closed.

with Session({"shop/prices.py": source}) as session:
    session.run(["bash", "-c", "ls -R"]).stdout
    session.write("shop/prices.py", better)
    tree = session.snapshot()

Every command is a job of its own in the same sandbox: what it writes stays, and what it starts ends with it
(`namespaced`: each has a process namespace) or with the session (`docker`).
"""

import os
import select
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count

from vertigym.core.errors import SandboxError
from vertigym.sandboxes import codec
from vertigym.sandboxes.contract import MIB, Job, JobLimits, JobOutcome, Level
from vertigym.sandboxes.forkserver_worker import interpreter
from vertigym.sandboxes.levels import best_level, start_worker
from vertigym.sandboxes.sandbox_worker import kind_of

FOLDER = "/tmp/work"  # noqa: S108
LIMITS = JobLimits(
    cpu_s=20, wall_s=60, memory_bytes=1024 * MIB, processes=64, disk_bytes=64 * MIB, disk_inodes=8192
)


class Session:
    """One worker for one episode, with `files` in its folder. `links`: further paths of the root, and the part
    of the folder that each leads to (`{"/app": "app"}`). Not thread-safe.

    Raises:
        SandboxError: the level is not available, or cannot hold files.
    """

    def __init__(
        self,
        files: Mapping[str, str | bytes] | None = None,
        *,
        level: Level | str | None = None,
        limits: JobLimits = LIMITS,
        links: Mapping[str, str] | None = None,
    ) -> None:
        name = best_level() if level is None else level
        if name not in (Level.NAMESPACED, Level.DOCKER):
            raise SandboxError(f"a session needs namespaced or docker: {name} has no folder to work in")
        if links and name != Level.NAMESPACED:
            raise SandboxError(f"links need a root of the sandbox's own, which {name} has not: use namespaced")
        self.level = Level(name)
        self.limits = limits
        self._numbers = count(1)
        self._closed = False
        leads = tuple((place, f"{FOLDER}/{part}") for place, part in (links or {}).items())
        self._worker = start_worker(replace(kind_of(Job(limits=limits), self.level, ()), links=leads))
        try:
            while not self._worker.ready:
                self._receive()
            self.run(["true"], files=files or {})
        except BaseException:
            self.close()
            raise

    def run(
        self,
        argv: Sequence[str],
        *,
        files: Mapping[str, str | bytes] | None = None,
        env: Mapping[str, str] | None = None,
        limits: JobLimits | None = None,
    ) -> JobOutcome:
        """Run a command in the folder, after writing `files`; `env` and `limits` are for this one.

        Raises:
            SandboxError: the sandbox was lost.
        """
        path = f"{os.path.dirname(interpreter())}:/usr/local/bin:/usr/bin:/bin"
        variables = {"PATH": path, "PYTHONDONTWRITEBYTECODE": "1", **(env or {})}
        job = Job(argv=argv, files=files or {}, limits=limits or self.limits, env=variables)
        return codec.outcome(job, self._send(codec.payloads(job, FOLDER), job), self.level)

    def write(self, path: str, content: str | bytes) -> None:
        """Write one file, making its folders.

        Raises:
            InputError: the path leaves the folder. SandboxError: it could not be written.
        """
        outcome = self.run(["true"], files={path: content})
        if outcome.exit_code:
            raise SandboxError(f"{path} could not be written: {outcome.stderr or outcome.status}")

    def read(self, path: str) -> bytes | None:
        """What is in one file; None where there is no regular file of that name.

        Raises:
            SandboxError: the sandbox was lost.
        """
        return next(iter(self._collect(path).values()), None)

    def snapshot(self) -> dict[str, bytes]:
        """All regular files of the folder by relative path; links, and names that are not UTF-8, are left out.

        Raises:
            SandboxError: the sandbox was lost.
        """
        return self._collect()

    def _collect(self, path: str = "") -> dict[str, bytes]:
        limits = JobLimits(result_bytes=4 * self.limits.disk_bytes, disk_bytes=4 * self.limits.disk_bytes)
        job = Job(limits=limits)
        return codec.collected(self._send([codec.collecting(FOLDER, path)], job))

    def close(self) -> None:
        """End it; everything in it is gone. A second time does nothing."""
        if not self._closed:
            self._closed = True
            self._worker.close()

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _send(self, payloads: Sequence[bytes], job: Job) -> codec.RawOutcome:
        number = next(self._numbers)
        try:
            self._worker.send(number, payloads, job, keep=True)
        except OSError as error:
            raise SandboxError(f"the session's sandbox was lost: {error}") from None
        while True:
            heard = self._receive()
            if heard is not None:
                assert isinstance(heard[1], codec.RawOutcome)  # what all levels give
                return heard[1]

    def _receive(self) -> tuple[int, codec.RawOutcome | JobOutcome] | None:
        while not select.select([self._worker], [], [], self._worker.patience_s)[0]:
            self._worker.look()
            if self._worker.overdue:
                raise SandboxError("the session's sandbox stopped answering")
        return self._worker.receive()
