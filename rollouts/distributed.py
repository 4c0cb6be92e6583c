"""Workers: processes, here or on other machines, that play episodes with engines and environments of their own.

The one idea: work is cut into shares that do not depend on who is there. A share is a list of episodes (or of
prompts), each with its own seed, and every request names the version of the weights it is for and brings a way
to fetch them. So any worker can do any share: one that is lost is replaced, its share goes to another as a
whole, and what comes back is the same. A share's place decides where its result goes: nothing is missing or
counted twice.

    Farm ─ shares ─▶ Pool ─ one at a time ─▶ Worker: engine + environments
         ─ weights, once a version ─▶ Place (Ray's object store, say)
"""

import itertools
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, Protocol

from pydantic import Field
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from vertigym.core.config import Config
from vertigym.core.errors import EngineError, InfrastructureError, InputError
from vertigym.core.types import Completion, Prompt, Sampling, Trajectory
from vertigym.policies.chat import ChatRenderer
from vertigym.policies.vllm_backend import Weights
from vertigym.rollouts.rollout import Episode
from vertigym.rollouts.rollout_worker import Failure, Spec, Update

Fetch = Callable[[], Mapping[str, Tensor]]


class WorkersConfig(Config):
    """How many workers, what each is given, and how long they are waited for, `[rollout.ray]`."""

    count: int = Field(2, ge=1, description="workers; each has an engine and environments of its own")
    cpus: float = Field(1.0, ge=0, description="cores each reserves, and torch threads it has")
    gpus: float = Field(0.0, ge=0, description="GPUs each reserves")
    retries: int = Field(3, ge=0, description="how often a share of episodes is given to another worker")
    start_s: float = Field(600, gt=0, description="how long to be without any worker, at first and later")
    share_s: float = Field(3600, gt=0, description="for one share of episodes; a slower worker is given up")


class WorkerLostError(InfrastructureError):
    """A worker ended, or cannot be reached any more. Inside a pool only: it is replaced."""


class Handle(Protocol):
    """A worker, from outside."""

    def ask(self, name: str, *arguments: Any) -> "Future[Any]":
        """What a method of the Worker returns. Its future raises WorkerLostError where the worker, not the
        work, failed."""
        ...

    def stop(self) -> None:
        """End it at once. May be called twice."""
        ...


class Place(Protocol):
    """Where workers live."""

    def start(self, spec: Spec, number: int) -> Handle:
        """A new worker; it may take its time, and answers `ready` when it is there."""
        ...

    def put(self, state: Mapping[str, Tensor]) -> Fetch:
        """Keep a copy of some weights where every worker can fetch it."""
        ...

    def describe(self) -> str:
        """What there is, for a person who wonders why no worker comes."""
        ...

    def close(self) -> None:
        """Leave."""
        ...


class Pool:
    """Workers that take one share at a time.

    Args:
        start: makes a worker, given its number.
        on_note: told when a worker is lost.
    """

    def __init__(
        self,
        start: Callable[[int], Handle],
        config: WorkersConfig,
        *,
        describe: Callable[[], str] = lambda: "",
        on_note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._start, self._config = start, config
        self._describe, self._on_note = describe, on_note
        self._turn = threading.Lock()  # evals may ask while a step is sampled ahead
        self._workers: list[Handle] = []
        self._coming: dict[Future[Any], int] = {}  # workers that have not said yet that they are there
        self._idle: deque[int] = deque()
        self._failed: Counter[int] = Counter()  # starts in a row
        self._last_words = ""
        for number in range(config.count):
            self._begin(number)

    def map(self, name: str, shares: Sequence[tuple[Any, ...]]) -> list[Any]:
        """What the method `name` returns for each share, in order.

        Raises:
            EngineError: a share was lost too often, or there was no worker for `start_s`.
            InputError: a worker says that what it was given cannot be used.
        """
        with self._turn:
            try:
                return _Round(self, name, shares).run()
            except BaseException:
                self.close()  # some may be at work on what nobody waits for any more
                raise

    def close(self) -> None:
        """End all workers."""
        for worker in self._workers:
            worker.stop()

    def _begin(self, number: int) -> None:
        worker = self._start(number)
        self._workers[number : number + 1] = [worker]
        self._coming[worker.ask("ready")] = number

    def _replace(self, number: int, why: str) -> None:
        self._on_note(f"worker {number} was lost ({why}): another takes its place")
        self._workers[number].stop()
        self._begin(number)

    def _welcome(self) -> None:
        """Workers that are there now, and such as ended before they were: these are given up in the end."""
        for future in [future for future in self._coming if future.done()]:
            number = self._coming.pop(future)
            try:
                future.result()
            except WorkerLostError as error:
                self._failed[number] += 1
                self._last_words = str(error)
                if self._failed[number] <= self._config.retries:
                    self._replace(number, self._last_words)
                else:
                    self._on_note(f"worker {number} does not start ({self._last_words}): going on without it")
            else:
                del self._failed[number]
                self._idle.append(number)


class _Round:
    """One `map`: which shares wait, are being done, are done."""

    def __init__(self, pool: Pool, name: str, shares: Sequence[tuple[Any, ...]]) -> None:
        self._pool, self._config = pool, pool._config
        self._name, self._shares = name, shares
        self._waiting = deque(range(len(shares)))
        self._running: dict[Future[Any], tuple[int, int, float]] = {}  # (worker, share, deadline)
        self._done: dict[int, Any] = {}
        self._lost: Counter[int] = Counter()
        self._alone_since = time.monotonic()  # no worker at work

    def run(self) -> list[Any]:
        while len(self._done) < len(self._shares):
            self._hand_out()
            self._await()
        return [self._done[share] for share in range(len(self._shares))]

    def _hand_out(self) -> None:
        pool = self._pool
        while self._waiting and pool._idle:
            worker, share = pool._idle.popleft(), self._waiting.popleft()
            future = pool._workers[worker].ask(self._name, *self._shares[share])
            self._running[future] = worker, share, time.monotonic() + self._config.share_s

    def _await(self) -> None:
        """Until something has happened, or should have.

        Raises:
            EngineError: there is no worker, and none comes.
        """
        pool = self._pool
        if self._running:
            until = min(deadline for _, _, deadline in self._running.values())
            self._alone_since = time.monotonic()
        else:
            until = self._alone_since + self._config.start_s
            self._despair(until)
        pending = [*self._running, *pool._coming]
        wait(pending, timeout=max(until - time.monotonic(), 0), return_when=FIRST_COMPLETED)
        pool._welcome()
        for future in [future for future in self._running if future.done()]:
            worker, share, _ = self._running.pop(future)
            self._take(worker, share, future)
        now = time.monotonic()
        for future in [future for future, (*_, deadline) in self._running.items() if now >= deadline]:
            worker, share, _ = self._running.pop(future)
            self._lose(worker, share, f"no answer within rollout.ray.share_s = {self._config.share_s:g}")

    def _despair(self, until: float) -> None:
        pool = self._pool
        if not pool._coming:
            raise EngineError(f"no worker is left: {pool._last_words}; the run can be resumed")
        if time.monotonic() >= until:
            raise EngineError(
                f"no worker came up within {self._config.start_s:g} s (rollout.ray.start_s); "
                f"{pool._describe()}; the run can be resumed"
            )

    def _take(self, worker: int, share: int, future: "Future[Any]") -> None:
        try:
            result = future.result()
        except WorkerLostError as error:
            self._lose(worker, share, str(error))
            return
        if isinstance(result, Failure) and result.machine:
            self._lose(worker, share, result.reason)
            return
        self._pool._idle.append(worker)
        if isinstance(result, Failure):
            raise InputError(f"worker {worker}: {result.reason}")
        self._done[share] = result

    def _lose(self, worker: int, share: int, why: str) -> None:
        """Give the share to another worker."""
        self._pool._replace(worker, why)
        self._lost[share] += 1
        if self._lost[share] > self._config.retries:
            raise EngineError(
                f"a share of episodes was lost with {self._lost[share]} workers (rollout.ray.retries = "
                f"{self._config.retries}), at last by: {why}; the run can be resumed"
            )
        self._waiting.appendleft(share)


class Farm:
    """An Engine whose work is done by workers, and which plays whole episodes, too.

    Args:
        spec: what every worker is told; its `batch` is the most episodes in a share. Shares are smaller where
            every worker is to get one.
        weights: where `refresh` takes them from.
        on_note: told when a worker is lost.
    """

    has_copy = True

    def __init__(
        self,
        place: Place,
        spec: Spec,
        config: WorkersConfig,
        tokenizer: PreTrainedTokenizerBase,
        weights: Weights,
        *,
        on_note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.tokenizer, self.renderer = tokenizer, ChatRenderer(tokenizer)
        self._place, self._weights = place, weights
        self._batch, self._count = spec.batch, config.count
        self._numbers = itertools.count()
        self.refresh(0)
        self._pool = Pool(
            lambda number: place.start(spec, number), config, describe=place.describe, on_note=on_note
        )

    @property
    def version(self) -> int:
        """Of the policy that answers next."""
        return self._update.version

    def refresh(self, version: int) -> None:
        """Put the weights where workers fetch them, with the next share they take."""
        state = {name: tensor.detach().cpu() for name, tensor in self._weights().items()}
        self._update = Update(version, next(self._numbers), self._place.put(state))

    def play(self, episodes: Sequence[Episode], sampling: Sampling) -> list[Trajectory]:
        """Play every episode; Trajectories in order.

        Raises:
            EngineError, InputError: as in `Pool.map`.
        """
        return self._map("play", episodes, sampling)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """One completion a prompt, in order.

        Raises:
            EngineError, InputError: as in `Pool.map`.
        """
        return self._map("generate", prompts, sampling)

    def close(self) -> None:
        """End the workers."""
        self._pool.close()
        self._place.close()

    def _map(self, name: str, items: Sequence[Any], sampling: Sampling) -> list[Any]:
        size = max(1, min(self._batch, math.ceil(len(items) / self._count)))
        cuts = range(0, len(items), size)
        shares = [(self._update, list(items[start : start + size]), sampling) for start in cuts]
        return [result for share in self._pool.map(name, shares) for result in share]
