"""Workers: processes, here or on other machines, that play episodes with engines and environments of their own.

The one idea: work is cut into chunks that do not depend on which workers there are. A chunk is a list of
episodes (or of prompts), each with its own seed, and every call names the version of the weights it is for and
brings a way to fetch them. So any worker can do any chunk: a lost worker is replaced, its chunk goes to another
as a whole, and the result is the same. Results are ordered by chunk: none is missing or counted twice.

    DistributedEngine ─ chunks ─▶ RolloutWorkerPool ─ one at a time ─▶ RolloutWorker: engine + environments
                      ─ weights, once a version ─▶ WorkerBackend (Ray's object store, say)
"""

import itertools
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, Protocol

from pydantic import Field, model_validator
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from vertigym.core.config import Config
from vertigym.core.errors import EngineError, InfrastructureError, InputError
from vertigym.core.types import Completion, Prompt, Sampling, Trajectory
from vertigym.policies.chat import ChatRenderer
from vertigym.policies.engine import Weights
from vertigym.rollouts.rollout import Episode
from vertigym.rollouts.rollout_worker import WeightUpdate, WorkerFailure, WorkerSpec


class WorkersConfig(Config):
    """How many workers, what each is given, and how long they are waited for, `[rollout.ray]`."""

    count: int = Field(2, ge=1, description="workers; each has an engine and environments of its own")
    cpus: float = Field(1.0, ge=0, description="cores each reserves, and torch threads it has")
    gpus: float = Field(0.0, ge=0, description="GPUs each reserves")
    retries: int = Field(3, ge=0, description="how often a chunk of episodes is given to another worker")
    start_s: float = Field(600, gt=0, description="how long to be without any worker, at first and later")
    chunk_s: float = Field(3600, gt=0, description="for one chunk of episodes; a slower worker is given up")

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, given: Any) -> Any:
        if isinstance(given, dict) and "share_s" in given:
            raise ValueError("share_s has a new name: chunk_s")
        return given


class WorkerLostError(InfrastructureError):
    """A worker ended or cannot be reached any more. Only inside a pool: it is replaced."""


class WorkerHandle(Protocol):
    """A worker, as its caller sees it."""

    def call(self, name: str, *arguments: Any) -> "Future[Any]":
        """The result of a method of the RolloutWorker. Its future raises WorkerLostError where the worker, not
        the work, failed."""
        ...

    def stop(self) -> None:
        """End it at once. May be called twice."""
        ...


class WorkerBackend(Protocol):
    """Starts workers and stores weights for them."""

    def start(self, spec: WorkerSpec, number: int) -> WorkerHandle:
        """A new worker; it may take its time, and answers `ready` when it runs."""
        ...

    def put(self, state: Mapping[str, Tensor]) -> Weights:
        """Store a copy of some weights where every worker can fetch it."""
        ...

    def describe(self) -> str:
        """Its resources, for a person who wonders why no worker starts."""
        ...

    def close(self) -> None:
        """Release what it holds."""
        ...


class RolloutWorkerPool:
    """Workers that take one chunk at a time.

    Args:
        start: makes a worker, given its number.
        on_note: told when a worker is lost.
    """

    def __init__(
        self,
        start: Callable[[int], WorkerHandle],
        config: WorkersConfig,
        *,
        describe: Callable[[], str] = lambda: "",
        on_note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._start, self._config = start, config
        self._describe, self._on_note = describe, on_note
        self._lock = threading.Lock()  # evals may ask while a step is sampled ahead
        self._workers: list[WorkerHandle] = []
        self._starting: dict[Future[Any], int] = {}  # workers that have not answered `ready` yet
        self._idle: deque[int] = deque()
        self._failed_starts: Counter[int] = Counter()  # in a row
        self._last_error = ""
        for number in range(config.count):
            self._launch(number)

    def map(self, name: str, chunks: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The result of the method `name` for each chunk, in order.

        Raises:
            EngineError: a chunk was lost too often, or there was no worker for `start_s`.
            InputError: a worker cannot use what it was given.
        """
        with self._lock:
            try:
                return _ChunkScheduler(self, name, chunks).run()
            except BaseException:
                self.close()  # some may still work on chunks that nobody waits for
                raise

    def close(self) -> None:
        """End all workers."""
        for worker in self._workers:
            worker.stop()

    def _launch(self, number: int) -> None:
        worker = self._start(number)
        self._workers[number : number + 1] = [worker]
        self._starting[worker.call("ready")] = number

    def _replace(self, number: int, why: str) -> None:
        self._on_note(f"worker {number} was lost ({why}): another takes its place")
        self._workers[number].stop()
        self._launch(number)

    def _collect_started(self) -> None:
        """Make workers that have started idle; start those that failed again, up to `retries` times."""
        for future in [future for future in self._starting if future.done()]:
            number = self._starting.pop(future)
            try:
                future.result()
            except WorkerLostError as error:
                self._failed_starts[number] += 1
                self._last_error = str(error)
                if self._failed_starts[number] <= self._config.retries:
                    self._replace(number, self._last_error)
                else:
                    self._on_note(f"worker {number} does not start ({self._last_error}): going on without it")
            else:
                del self._failed_starts[number]
                self._idle.append(number)


class _ChunkScheduler:
    """One `map`: which chunks wait, run, and are done."""

    def __init__(self, pool: RolloutWorkerPool, name: str, chunks: Sequence[tuple[Any, ...]]) -> None:
        self._pool, self._config = pool, pool._config
        self._name, self._chunks = name, chunks
        self._waiting = deque(range(len(chunks)))
        self._running: dict[Future[Any], tuple[int, int, float]] = {}  # (worker, chunk, deadline)
        self._done: dict[int, Any] = {}
        self._lost: Counter[int] = Counter()
        self._idle_since = time.monotonic()  # no worker at work

    def run(self) -> list[Any]:
        while len(self._done) < len(self._chunks):
            self._assign()
            self._wait()
        return [self._done[chunk] for chunk in range(len(self._chunks))]

    def _assign(self) -> None:
        pool = self._pool
        while self._waiting and pool._idle:
            worker, chunk = pool._idle.popleft(), self._waiting.popleft()
            future = pool._workers[worker].call(self._name, *self._chunks[chunk])
            self._running[future] = worker, chunk, time.monotonic() + self._config.chunk_s

    def _wait(self) -> None:
        """Wait for the next result, started worker or deadline, and act on it.

        Raises:
            EngineError: there is no worker, and none starts.
        """
        pool = self._pool
        if self._running:
            until = min(deadline for _, _, deadline in self._running.values())
            self._idle_since = time.monotonic()
        else:
            until = self._idle_since + self._config.start_s
            self._check_workers(until)
        pending = [*self._running, *pool._starting]
        wait(pending, timeout=max(until - time.monotonic(), 0), return_when=FIRST_COMPLETED)
        pool._collect_started()
        for future in [future for future in self._running if future.done()]:
            worker, chunk, _ = self._running.pop(future)
            self._accept(worker, chunk, future)
        now = time.monotonic()
        for future in [future for future, (*_, deadline) in self._running.items() if now >= deadline]:
            worker, chunk, _ = self._running.pop(future)
            self._reassign(worker, chunk, f"no answer within rollout.ray.chunk_s = {self._config.chunk_s:g}")

    def _check_workers(self, until: float) -> None:
        pool = self._pool
        if not pool._starting:
            raise EngineError(f"no worker is left: {pool._last_error}; the run can be resumed")
        if time.monotonic() >= until:
            raise EngineError(
                f"no worker came up within {self._config.start_s:g} s (rollout.ray.start_s); "
                f"{pool._describe()}; the run can be resumed"
            )

    def _accept(self, worker: int, chunk: int, future: "Future[Any]") -> None:
        try:
            result = future.result()
        except WorkerLostError as error:
            self._reassign(worker, chunk, str(error))
            return
        if isinstance(result, WorkerFailure) and result.machine:
            self._reassign(worker, chunk, result.reason)
            return
        self._pool._idle.append(worker)
        if isinstance(result, WorkerFailure):
            raise InputError(f"worker {worker}: {result.reason}")
        self._done[chunk] = result

    def _reassign(self, worker: int, chunk: int, why: str) -> None:
        """Replace the worker and give the chunk to another."""
        self._pool._replace(worker, why)
        self._lost[chunk] += 1
        if self._lost[chunk] > self._config.retries:
            raise EngineError(
                f"a chunk of episodes was lost with {self._lost[chunk]} workers (rollout.ray.retries = "
                f"{self._config.retries}), at last by: {why}; the run can be resumed"
            )
        self._waiting.appendleft(chunk)


class DistributedEngine:
    """An Engine whose work is done by workers; it can play whole episodes, too.

    Args:
        spec: how a worker is set up; its `batch` is the most episodes in a chunk. Chunks are smaller where that
            gives every worker one.
        weights: where `refresh` takes them from.
        stop: the tokens that end a turn by the model's config.
        rows: how many tokens the model reads.
        on_note: told when a worker is lost.
    """

    has_copy = True

    def __init__(
        self,
        backend: WorkerBackend,
        spec: WorkerSpec,
        config: WorkersConfig,
        tokenizer: PreTrainedTokenizerBase,
        weights: Weights,
        *,
        stop: Sequence[int] = (),
        rows: int | None = None,
        on_note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.tokenizer, self.renderer = tokenizer, ChatRenderer(tokenizer, stop=stop, rows=rows)
        self._backend, self._weights = backend, weights
        self._batch, self._count = spec.batch, config.count
        self._numbers = itertools.count()
        self.refresh(0)
        self._pool = RolloutWorkerPool(
            lambda number: backend.start(spec, number), config, describe=backend.describe, on_note=on_note
        )

    @property
    def version(self) -> int:
        """The policy version of the next answer."""
        return self._update.version

    def refresh(self, version: int) -> None:
        """Store the weights; workers fetch them with their next chunk."""
        state = {name: tensor.detach().cpu() for name, tensor in self._weights().items()}
        self._update = WeightUpdate(version, next(self._numbers), self._backend.put(state))

    def play(self, episodes: Sequence[Episode], sampling: Sampling) -> list[Trajectory]:
        """Play every episode; Trajectories in order.

        Raises:
            EngineError, InputError: as in `RolloutWorkerPool.map`.
        """
        return self._map("play", episodes, sampling)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """One completion a prompt, in order.

        Raises:
            EngineError, InputError: as in `RolloutWorkerPool.map`.
        """
        return self._map("generate", prompts, sampling)

    def close(self) -> None:
        """End the workers."""
        self._pool.close()
        self._backend.close()

    def _map(self, name: str, items: Sequence[Any], sampling: Sampling) -> list[Any]:
        size = max(1, min(self._batch, math.ceil(len(items) / self._count)))
        cuts = range(0, len(items), size)
        chunks = [(self._update, list(items[start : start + size]), sampling) for start in cuts]
        return [result for chunk in self._pool.map(name, chunks) for result in chunk]
