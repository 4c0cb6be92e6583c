"""A pool of warm workers: jobs go in from any thread or coroutine, outcomes come out in order.

with SandboxPool() as pool:
    outcome = pool.run(Job("print(input())", stdin="hi"))
    outcomes = pool.run_many(jobs)             # side by side, one worker a core
    outcome = await pool.arun(job)

One thread of its own talks to all workers. Each is given its next job while it still runs the last, so that it
never waits for Python here. A worker that is lost takes nothing with it: its jobs are tried again elsewhere,
and what cannot be run after all is INFRA, never a verdict.
"""

import asyncio
import atexit
import os
import select
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import count

from vertigym.core.errors import InputError, SandboxError, UnknownNameError, VertigymError
from vertigym.sandboxes import cgroups, codec
from vertigym.sandboxes.backends import find_backend
from vertigym.sandboxes.contract import Job, JobOutcome, Level, Status
from vertigym.sandboxes.levels import best_level, start_worker
from vertigym.sandboxes.sandbox_worker import SandboxWorker, WorkerKind, kind_of

# numpy loads `random` when first asked for it, which inside the sandbox may be too late.
PROFILES: Mapping[str, tuple[str, ...]] = {
    "plain": (),
    "numpy": ("numpy", "numpy.random"),
    "pytest": ("pytest", "unittest.mock"),
}

_WORTH_A_START = 50  # jobs that wait: a worker with packages takes as long to start as some dozens of jobs


@dataclass(slots=True)
class _Ticket:
    """A job on its way."""

    job: Job
    kind: WorkerKind
    payloads: Sequence[bytes]
    future: "Future[JobOutcome]"
    lost: int = 0


class SandboxPool:
    """Workers of one level.

    `level`: how strong the isolation is, or a registered backend's name (default: the strongest this machine
    has that needs no daemon). `size`: workers, by default one a core. `profiles`: name -> packages imported
    before the first job. `retries`: how often a job whose worker was lost is tried again. `recycle_after`: jobs
    after which a worker is replaced.

    Raises:
        SandboxError: the level is not available; the message says why and what to do. InputError: no worker.
    """

    def __init__(
        self,
        level: Level | str | None = None,
        *,
        size: int | None = None,
        profiles: Mapping[str, Sequence[str]] | None = None,
        retries: int = 2,
        recycle_after: int = 10_000,
    ) -> None:
        self.level, self._backend = _resolve(level)
        self.size = (os.cpu_count() or 1) if size is None else size
        if self.size < 1 or recycle_after < 1:
            raise InputError(
                f"a pool of {self.size} workers of {recycle_after} jobs each: both must be above 0"
            )
        self._profiles = {name: tuple(p) for name, p in {**PROFILES, **(profiles or {})}.items()}
        self._retries = retries
        self._recycle_after = recycle_after
        self._workers: list[SandboxWorker] = []
        self._waiting: dict[WorkerKind, deque[_Ticket]] = {}
        self._tickets: dict[int, _Ticket] = {}
        self._numbers = count(1)
        self._lock = threading.Lock()
        self._inbox: list[_Ticket] = []
        self._closed = False
        self._refused = 0
        self._wake_read, self._wake_write = os.pipe()
        for end in (self._wake_read, self._wake_write):
            os.set_blocking(end, False)
        if self.level is Level.NAMESPACED:
            cgroups.sweep()
        self._thread = threading.Thread(target=self._serve, name="sandbox-pool", daemon=True)
        self._thread.start()
        atexit.register(self.close)
        os.register_at_fork(after_in_child=self._forked)

    # What callers use.

    def submit(self, job: Job) -> "Future[JobOutcome]":
        """Start a job; the Future holds its JobOutcome, or SandboxError.

        Raises:
            SandboxError: the pool is closed or weaker than the job's `min_level`. InputError: an input without
                a data form. UnknownNameError: no such profile.
        """
        return self._submit([job])[0]

    def run(self, job: Job) -> JobOutcome:
        """Run a job and wait for it.

        Raises:
            SandboxError: no sandbox could finish it, however often tried.
        """
        return self.submit(job).result()

    def run_many(self, jobs: Sequence[Job]) -> list[JobOutcome]:
        """Run jobs side by side; Outcomes in their order. One that no sandbox could finish has status INFRA, so
        that the others are not lost with it."""
        return [self._settled(future) for future in self._submit(jobs)]

    async def arun(self, job: Job) -> JobOutcome:
        """`run`, for coroutines."""
        return await asyncio.wrap_future(self.submit(job))

    def close(self) -> None:
        """End all workers. What is still waiting fails with SandboxError."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._wake()
        atexit.unregister(self.close)
        self._thread.join()

    def __enter__(self) -> "SandboxPool":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _submit(self, jobs: Sequence[Job]) -> list["Future[JobOutcome]"]:
        tickets = [self._ticket(job) for job in jobs]
        with self._lock:
            if self._closed:
                raise SandboxError("the sandbox pool is closed (a forked process needs a pool of its own)")
            self._inbox += tickets
            self._wake()
        return [ticket.future for ticket in tickets]

    def _ticket(self, job: Job) -> _Ticket:
        if job.min_level.rank > self.level.rank:
            raise SandboxError(f"the job asks for {job.min_level}, this pool gives {self.level}")
        if job.files and self.level is Level.LANDLOCK:
            raise SandboxError(
                "a job with files needs the level namespaced or docker: landlock cannot cap disk"
            )
        if job.limits.processes > 1 and self.level is Level.LANDLOCK:
            raise SandboxError("a job with processes needs namespaced or docker: landlock cannot end them")
        if job.profile not in self._profiles:
            raise UnknownNameError("sandbox profile", job.profile, self._profiles)
        kind = kind_of(job, self.level, self._profiles[job.profile], self._backend)
        return _Ticket(job, kind, codec.payloads(job), Future())

    def _settled(self, future: "Future[JobOutcome]") -> JobOutcome:
        try:
            return future.result()
        except SandboxError as error:
            return JobOutcome(Status.INFRA, stderr=str(error), level=self.level)

    def _wake(self) -> None:
        try:
            os.write(self._wake_write, b"x")
        except BlockingIOError:
            return  # it is about to wake anyway

    def _forked(self) -> None:
        """In a forked copy: let go of the workers, which belong to the parent."""
        self._closed = True
        for worker in self._workers:
            worker.let_go()

    # The pool's thread.

    def _serve(self) -> None:
        try:
            while self._safe_turn():
                pass
        finally:
            self._end()

    def _safe_turn(self) -> bool:
        """One turn. A fault of ours costs the jobs under way, never the pool."""
        try:
            return self._turn()
        except Exception as error:
            fault = SandboxError(f"a fault of the sandbox pool: {type(error).__name__}: {error}")
            for worker in list(self._workers):
                self._drop(worker)
            for number in list(self._tickets):
                self._finish(self._tickets.pop(number), fault)
            self._give_up(fault)
            return True

    def _turn(self) -> bool:
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        by_descriptor = {worker.fileno(): worker for worker in self._workers}
        for descriptor in by_descriptor:
            poll.register(descriptor, select.POLLIN)
        while True:
            busy = [worker.patience_s for worker in self._workers if worker.outstanding or not worker.ready]
            before = list(self._workers)
            for descriptor, _ in poll.poll(min(busy) * 1000 if busy else None):
                if descriptor == self._wake_read:
                    self._take_in()
                else:
                    self._hear(by_descriptor[descriptor])
            if self._closed:
                return False
            for worker in self._workers:
                worker.look()
            for worker in [worker for worker in self._workers if worker.overdue]:
                self._lose(worker, SandboxError(f"a {self.level} sandbox stopped answering"))
            self._hand_out()
            if self._workers != before:
                return True

    def _take_in(self) -> None:
        os.read(self._wake_read, 4096)
        with self._lock:
            tickets, self._inbox = self._inbox, []
        for ticket in tickets:
            if ticket.future.set_running_or_notify_cancel():
                self._waiting.setdefault(ticket.kind, deque()).append(ticket)

    def _hear(self, worker: SandboxWorker) -> None:
        if worker not in self._workers:  # lost earlier in this turn
            return
        try:
            heard = worker.receive()
        except SandboxError as error:
            self._lose(worker, error)
            return
        self._refused = 0
        if heard is None:
            return
        number, result = heard
        ticket = self._tickets.pop(number)
        self._finish(ticket, self._outcome(ticket.job, result))
        if (worker.worn or worker.jobs_done >= self._recycle_after) and not worker.outstanding:
            self._drop(worker)

    def _outcome(self, job: Job, result: codec.RawOutcome | JobOutcome) -> JobOutcome | SandboxError:
        if isinstance(result, JobOutcome):
            return result
        try:
            return codec.outcome(job, result, self.level)
        except Exception as error:  # decoding hostile bytes; whatever it is, it is this job's alone
            return SandboxError(f"an outcome that cannot be read: {type(error).__name__}: {error}")

    def _finish(self, ticket: _Ticket, result: JobOutcome | Exception) -> None:
        if isinstance(result, JobOutcome):
            ticket.future.set_result(result)
        else:
            ticket.future.set_exception(result)

    def _lose(self, worker: SandboxWorker, error: SandboxError) -> None:
        """Give a dead worker's jobs back. Only the one it ran may be at fault; if the kernel shot the worker
        for want of memory, that job's memory was the want."""
        started = worker.ready
        tickets = [self._tickets.pop(number) for number in worker.outstanding]
        starved = worker.oom_killed()
        self._drop(worker)
        if tickets and starved:
            first = tickets.pop(0)
            self._finish(first, JobOutcome(Status.MEMORY, level=self.level))
        elif tickets and started:
            tickets[0].lost += 1
            if tickets[0].lost > self._retries:
                self._finish(tickets.pop(0), error)
        for ticket in reversed(tickets):
            self._waiting.setdefault(ticket.kind, deque()).appendleft(ticket)
        if not started:
            self._refuse(error)

    def _refuse(self, error: SandboxError) -> None:
        """A worker could not start: after a few in a row nothing that waits can be run."""
        self._refused += 1
        if self._refused > self._retries:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        for tickets in self._waiting.values():
            while tickets:
                self._finish(tickets.popleft(), error)
        self._refused = 0

    def _drop(self, worker: SandboxWorker) -> None:
        self._workers.remove(worker)
        worker.close()

    def _hand_out(self) -> None:
        for kind, tickets in list(self._waiting.items()):
            while tickets:
                worker = self._free_worker(kind)
                if worker is None:
                    break
                if self._give(worker, tickets[0]):
                    tickets.popleft()
        for kind in [kind for kind, tickets in self._waiting.items() if not tickets]:
            del self._waiting[kind]

    def _free_worker(self, kind: WorkerKind) -> SandboxWorker | None:
        """The least busy worker of this kind with room; a new one while there is room, or in place of an idle
        one of another kind: for the first of its kind, and for a queue that repays the start."""
        mine = [w for w in self._workers if w.kind == kind and not w.worn]
        mine = [w for w in mine if w.jobs_done + len(w.outstanding) < self._recycle_after]
        best = min(mine, key=lambda worker: len(worker.outstanding), default=None)
        if best is not None and not best.outstanding:
            return best
        crowded = len(self._waiting[kind]) >= _WORTH_A_START
        if len(self._workers) >= self.size and (crowded or not best):
            others = [w for w in self._workers if w.kind != kind and not w.outstanding and w.ready]
            idle = next((w for w in others if not best or not self._waiting.get(w.kind)), None)
            if idle:
                self._drop(idle)
        if len(self._workers) < self.size:
            return self._start(kind)
        return best if best is not None and len(best.outstanding) < best.ahead else None

    def _start(self, kind: WorkerKind) -> SandboxWorker | None:
        try:
            worker = start_worker(kind)
        except (VertigymError, OSError) as error:
            self._give_up(error)
            return None
        self._workers.append(worker)
        return worker

    def _give(self, worker: SandboxWorker, ticket: _Ticket) -> bool:
        number = next(self._numbers)
        try:
            worker.send(number, ticket.payloads, ticket.job)
        except OSError as error:
            self._lose(worker, SandboxError(f"a {self.level} sandbox was lost: {error}"))
            return False
        except Exception as error:  # this job cannot be sent; the worker is as it was
            self._finish(ticket, SandboxError(f"the job cannot be sent: {type(error).__name__}: {error}"))
            return True
        self._tickets[number] = ticket
        return True

    def _end(self) -> None:
        with self._lock:
            self._closed = True
            left, self._inbox = self._inbox, []
            os.close(self._wake_read)
            os.close(self._wake_write)
        for worker in list(self._workers):
            self._drop(worker)
        error = SandboxError("the sandbox pool was closed")
        for ticket in (*self._tickets.values(), *left, *(t for w in self._waiting.values() for t in w)):
            self._finish(ticket, error)


def _resolve(level: Level | str | None) -> tuple[Level, str]:
    """(its level, the registered backend's name or nothing)."""
    if level is None:
        return best_level(), ""
    if level in list(Level):
        return Level(level), ""
    return find_backend(level).level, str(level)


_shared: dict[tuple[int, str | None], SandboxPool] = {}
_shared_lock = threading.Lock()


def shared_pool(level: Level | str | None = None) -> SandboxPool:
    """This process's pool of a level, started on first use and ended with the process.

    Raises:
        SandboxError: the level is not available.
    """
    key = (os.getpid(), None if level is None else str(level))
    with _shared_lock:
        if key not in _shared:
            _shared[key] = SandboxPool(level)
        return _shared[key]
