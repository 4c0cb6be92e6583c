"""The run's own rollouts on a clock that jumps: how long steps take follows from what takes how long."""

from itertools import pairwise
from typing import Any

import pytest

from vertigym.benchmarks.virtual_time import World
from vertigym.core.types import Score, Trajectory
from vertigym.trainer import async_rollouts
from vertigym.trainer.async_rollouts import open_rollouts
from vertigym.trainer.config import RolloutConfig


def run(
    sampling: float, training: float, sync: float = 0.0, steps: int = 6, **rows: Any
) -> tuple[list[float], list[int]]:
    """The moments at which steps ended, and how old their rollouts were."""
    world, version = World(), 0
    ended, ages = list[float](), list[int]()

    def sample(step: int) -> list[list[Trajectory]]:
        begun = version
        world.sleep(sampling)
        return [[Trajectory(str(step), [], Score(1.0), policy_version=begun)]]

    def refresh(number: int) -> None:
        nonlocal version
        world.sleep(sync)
        version = number

    with world.rules(async_rollouts):
        rollouts = open_rollouts(sample, RolloutConfig(**rows), steps=steps, has_copy=True)
        for step in range(steps):
            ((trajectory,),) = rollouts.take(step)
            assert trajectory.task_id == str(step)
            world.sleep(training)
            rollouts.advance(refresh, step + 1)
            ended.append(world.now)
            ages.append(step - trajectory.policy_version)
        rollouts.close()
    return ended, ages


def test_in_turn_a_step_takes_both() -> None:
    assert run(3.0, 2.0, sync=0.5) == ([5.5, 11.0, 16.5, 22.0, 27.5, 33.0], [0] * 6)


@pytest.mark.parametrize(("sampling", "training", "step"), [(3.0, 2.0, 3.0), (2.0, 3.0, 3.0)])
def test_with_a_fixed_lag_a_step_takes_the_longer(sampling: float, training: float, step: float) -> None:
    ended, ages = run(sampling, training, staleness=1)
    assert ended[0] == sampling + step  # the first is sampled before, the next beside the first's training
    assert [b - a for a, b in pairwise(ended[:-1])] == [step] * 4
    assert ages == [0, 1, 1, 1, 1, 1]


def test_with_a_bounded_lag_the_sampler_waits_at_the_bound_only() -> None:
    ended, ages = run(1.0, 4.0, staleness=2, deterministic=False)
    assert [b - a for a, b in pairwise(ended)] == [4.0] * 5
    assert max(ages) == 2
    ended, ages = run(4.0, 1.0, staleness=2, deterministic=False)
    assert [b - a for a, b in pairwise(ended)] == [4.0] * 5
    assert max(ages) <= 1


def test_threads_that_wait_for_each_other_are_told() -> None:
    with pytest.raises(RuntimeError, match="every thread waits"):
        World().until(lambda: False)


def test_a_thread_goes_on_where_its_time_is_over() -> None:
    world, seen = World(), list[float]()

    def sleeper() -> None:
        world.sleep(2)
        seen.append(world.now)

    world.begin(sleeper)
    world.at(1.0, lambda: seen.append(world.now))
    world.until(lambda: len(seen) == 2, most=10)
    assert seen == [1.0, 2.0]
    world.until(lambda: False, most=3)
    assert world.now == 5.0
