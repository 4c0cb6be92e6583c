"""Rollouts sampled ahead of the step that trains on them, while an earlier step is being trained on.

With staleness k, the rollouts of step n are sampled from the weights before step n - k (the first k steps' from
the starting weights), beside that step's training:

    k = 1     sample 0 │ train 0 + sample 1 │ train 1 + sample 2 │ …

The lag of a step's rollouts is thus fixed, whoever is faster, and a run repeats to the bit
(`FixedLagRollouts`). Or it is only bounded (`BoundedAsyncRollouts`): the sampler goes on while weights change,
and waits at the bound. What is sampled but not yet trained on is part of a checkpoint: the weights it came from
are gone.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from vertigym.core.files import jsonable, read_jsonl, write_jsonl
from vertigym.core.types import Score, Segment, StopReason, Trajectory
from vertigym.trainer.collect import Rounds
from vertigym.trainer.config import RolloutConfig

FILE = "rollouts.jsonl"


class FixedLagRollouts:
    """Gives each step its rollouts, sampled a fixed number of steps ahead.

    Args:
        sample: gives a step's rollouts from the engine's current weights.
        staleness: how many steps ahead; 0 samples when asked.
        steps: none are sampled for steps past the last.
        overlap: sample beside training; the engine's weights must then be a copy. Else before it, with the same
            result.
    """

    def __init__(
        self, sample: Callable[[int], Rounds], *, staleness: int, steps: int, overlap: bool = True
    ) -> None:
        self._sample, self._staleness, self._steps = sample, staleness, steps
        self._ready: dict[int, Rounds] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sampling") if staleness and overlap else None
        self._running: tuple[int, Future[Rounds]] | None = None
        self._sampling_cost = (0.0, 0)

    def take(self, step: int) -> Rounds:
        """The rollouts of `step`; begins to sample those of `step + staleness`. To be followed by `wait`."""
        last = min(step + self._staleness, self._steps - 1)
        for number in range(step, last + 1):
            if number in self._ready:
                continue
            if number == last > step and self._thread:
                self._running = number, self._thread.submit(self._timed, number)
            else:
                self._ready[number] = self._timed(number)
        return self._ready.pop(step)

    def advance(self, refresh: Callable[[int], None], version: int) -> None:
        """Give the engine new weights."""
        self.wait()
        refresh(version)

    def close(self) -> None:
        """Sample no more; to be called before the engine is closed."""
        if self._thread:
            self._thread.shutdown(cancel_futures=True)

    def wait(self) -> None:
        """Wait until nothing is being sampled: the engine's weights may change."""
        if self._running:
            number, rounds = self._running
            self._running = None
            self._ready[number] = rounds.result()

    def sampling_cost(self) -> tuple[float, int]:
        """`(seconds, tokens)` of sampling, beside training or not, since the last call; settled."""
        taken, self._sampling_cost = self._sampling_cost, (0.0, 0)
        return taken

    def save_state(self, folder: Path) -> None:
        """Write the rollouts that wait to be trained on to `folder`."""
        rows = (
            {"step": step, "round": number, **jsonable(trajectory.plain())}
            for step, rounds in sorted(self._ready.copy().items())
            for number, one in enumerate(rounds)
            for trajectory in one
        )
        write_jsonl(folder / FILE, rows)

    def load_state(self, folder: Path) -> None:
        """Take over what `save_state` wrote to `folder`."""
        self._ready = {}
        for row in read_jsonl(folder / FILE):
            rounds = self._ready.setdefault(row.pop("step"), [])
            number = row.pop("round")
            rounds.extend([] for _ in range(number + 1 - len(rounds)))
            rounds[number].append(_trajectory(row))

    def _timed(self, step: int) -> Rounds:
        began = time.perf_counter()
        rounds = self._sample(step)
        seconds, tokens = self._sampling_cost
        wrote = sum(trajectory.completion_tokens for one in rounds for trajectory in one)
        self._sampling_cost = seconds + time.perf_counter() - began, tokens + wrote
        return rounds


class BoundedAsyncRollouts(FixedLagRollouts):
    """Rollouts of bounded age: the sampler works while weights change, between two calls of the engine.

        a step's rollouts are of the weights before it, or of up to `staleness` updates earlier, and mixed

    The sampler begins a step only when that holds for the weights of that moment, and waits until then; the
    trainer waits for rollouts only. How old they are depends on who is faster: such a run does not repeat.
    """

    def __init__(self, sample: Callable[[int], Rounds], *, staleness: int, steps: int) -> None:
        super().__init__(sample, staleness=staleness, steps=steps, overlap=False)
        self._change = threading.Condition()
        self._sampler: threading.Thread | None = None
        self._version = 0
        self._closed = False
        self._error: BaseException | None = None

    def take(self, step: int) -> Rounds:
        """The rollouts of `step`, as soon as they are there."""
        with self._change:
            self._version = max(self._version, step)
            self._change.notify_all()
            if self._sampler is None:
                self._sampler = threading.Thread(target=self._run, args=(step,), name="sampling", daemon=True)
                self._sampler.start()
            self._change.wait_for(lambda: step in self._ready or self._error)
            if step not in self._ready:
                assert self._error
                raise self._error
            return self._ready.pop(step)

    def advance(self, refresh: Callable[[int], None], version: int) -> None:
        """Give the engine new weights, whatever is being sampled."""
        refresh(version)
        with self._change:
            self._version = version
            self._change.notify_all()

    def close(self) -> None:
        """Sample no more; waits for the step that is being sampled."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        if self._sampler:
            self._sampler.join()

    def sampling_cost(self) -> tuple[float, int]:
        """`(seconds, tokens)` of the steps whose sampling has ended since the last call."""
        with self._change:
            return super().sampling_cost()

    def _run(self, first: int) -> None:
        try:
            for number in range(first, self._steps):
                if number in self._ready:  # from a checkpoint
                    continue
                if not self._wait_for_version(number):
                    return
                rounds = self._timed(number)
                with self._change:
                    self._ready[number] = rounds
                    self._change.notify_all()
        except BaseException as error:  # raised where the trainer waits for rollouts
            with self._change:
                self._error = error
                self._change.notify_all()

    def _wait_for_version(self, number: int) -> bool:
        """Wait until the rollouts of that step would not be too old; False where the run has ended."""
        with self._change:
            self._change.wait_for(lambda: self._closed or number - self._version <= self._staleness)
            return not self._closed


def open_rollouts(
    sample: Callable[[int], Rounds], rollouts: RolloutConfig, *, steps: int, has_copy: bool
) -> FixedLagRollouts:
    """The rollouts that the config asks for.

    Args:
        has_copy: whether the engine's weights are its own.
    """
    if rollouts.deterministic:
        return FixedLagRollouts(sample, staleness=rollouts.staleness, steps=steps, overlap=has_copy)
    assert has_copy, "with staleness, every engine has"
    return BoundedAsyncRollouts(sample, staleness=rollouts.staleness, steps=steps)


def _trajectory(row: dict[str, Any]) -> Trajectory:
    """Back from JSON, which has no NaN."""
    return Trajectory(
        **row
        | {
            "score": Score(**row["score"]),
            "segments": tuple(Segment(**segment) for segment in row["segments"]),
            "stop_reason": StopReason(row["stop_reason"]),
            "turn_rewards": tuple(float("nan") if r is None else r for r in row["turn_rewards"]),
        }
    )
