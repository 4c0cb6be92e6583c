"""What the pool asks of anything that runs jobs for it, and the bookkeeping that all of them share."""

import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vertigym.core.errors import SandboxError
from vertigym.sandboxes.codec import RawOutcome
from vertigym.sandboxes.contract import MIB, Job, JobLimits, JobOutcome, Level

START_S = 60.0
GRACE_S = 10.0  # beyond the wall limits of what it has been given, a silent worker counts as lost
LOOK_S = 0.005  # between two looks at what no cgroup caps


@dataclass(frozen=True, slots=True)
class WorkerKind:
    """What a worker is made for; a job runs in a worker of its kind."""

    level: Level
    profile: str = "plain"
    packages: tuple[str, ...] = ()
    processes: bool = False
    memory_bytes: int = 512 * MIB
    disk_bytes: int = 16 * MIB
    disk_inodes: int = 1024
    tasks: int = 1  # processes and threads of a job, where the container counts them
    backend: str = ""  # a registered one (`backends`)
    links: tuple[tuple[str, str], ...] = ()  # paths of a namespaced root, and where each leads


def kind_of(job: Job, level: Level, packages: tuple[str, ...], backend: str = "") -> WorkerKind:
    """The kind of worker that `job` needs at `level`."""
    limits = job.limits
    return WorkerKind(
        level,
        job.profile,
        packages,
        limits.processes > 1,
        limits.memory_bytes,
        limits.disk_bytes,
        limits.disk_inodes,
        limits.processes if level is Level.DOCKER else 1,
        backend,
    )


class SandboxWorker(ABC):
    """Runs jobs one after another. Not thread-safe: the pool's own thread is its only user."""

    ahead = 1  # jobs it may hold

    def __init__(self, kind: WorkerKind) -> None:
        self.kind = kind
        self.cgroup: Path | None = None
        self.pid = 0  # the process that its jobs are below, where it is one of this machine
        self.ready = False
        self.jobs_done = 0
        self.note = ""  # what the worker said of itself: "landlock" where that is enforced too
        self.worn = False  # it asked to be replaced
        self._uncapped = False  # no cgroup caps what its jobs use together
        self._limits: OrderedDict[int, JobLimits] = OrderedDict()
        self._deadline = time.monotonic() + START_S

    @abstractmethod
    def fileno(self) -> int:
        """The descriptor to wait on for `receive`."""

    @abstractmethod
    def send(self, sequence: int, payloads: Sequence[bytes], job: Job, *, keep: bool = False) -> None:
        """Hand over one job. With `keep`, what it leaves in its folder stays for the next.

        Raises:
            OSError: the worker is gone.
        """

    @abstractmethod
    def receive(self) -> tuple[int, RawOutcome | JobOutcome] | None:
        """The next finished job; None for a message that was only about the worker.

        Raises:
            SandboxError: the worker is gone, or could not start.
        """

    @abstractmethod
    def close(self) -> None:
        """End it and everything in it."""

    @abstractmethod
    def let_go(self) -> None:
        """Close our end in a forked copy of this process, so that it does not keep the worker alive."""

    def look(self) -> None:
        """Called now and then while it is busy: enforce what the kernel does not."""
        return

    def oom_killed(self) -> bool:
        """Whether something here was killed for want of memory since this was last asked."""
        return False

    @property
    def outstanding(self) -> list[int]:
        """Sequence numbers of what it has been given and not returned; the first is the one running."""
        return list(self._limits)

    @property
    def overdue(self) -> bool:
        """Whether it has been silent for longer than everything it was given may take."""
        return (bool(self._limits) or not self.ready) and time.monotonic() > self._deadline

    @property
    def patience_s(self) -> float:
        """How long one may wait for it without a `look`."""
        return LOOK_S if self._uncapped and self._limits else 1.0

    def _hold(self, sequence: int, limits: JobLimits) -> None:
        start = max(self._deadline, time.monotonic()) if self._limits else time.monotonic() + GRACE_S
        self._deadline = start + limits.wall_s
        self._limits[sequence] = limits

    def _release(self, sequence: int) -> JobLimits:
        self.jobs_done += 1
        return self._limits.pop(sequence)

    def _greet(self, message: str) -> None:
        kind, _, text = message.partition(" ")
        if kind != "ready":
            raise SandboxError(f"a {self.kind.level} sandbox could not start: {text}")
        self.ready, self.note = True, text
