"""Alarms speak when they should, once, and say what it means; they are silent about runs that learn."""

import math
from collections.abc import Mapping, Sequence
from itertools import cycle

import pytest

from tests.metric_series import COLLAPSING, HEALTHY
from vertigym.trainer.alarms import AlarmConfig, Alarms, Knobs

FINE = {
    "sampler_kl": 1e-5,
    "kl": 0.01,
    "entropy": 0.5,
    "reward": 0.4,
    "groups_with_variance": 0.5,
    "completion_tokens": 10.0,
    "truncated": 0.02,
}


def spoken(rows: Sequence[Mapping[str, float]], alarms: Alarms | None = None) -> dict[str, int]:
    """The step at which each alarm first spoke."""
    alarms, found = alarms or Alarms(AlarmConfig()), dict[str, int]()
    for step, metrics in enumerate(rows, 1):
        found |= {kind: step for kind in alarms.watch(metrics) if kind not in found}
    return found


@pytest.mark.parametrize(
    ("change", "kind", "word"),
    [
        ({"sampler_kl": 0.3}, "mismatch", "disagree"),
        ({"kl": 2.0}, "drift", "kl 0.01 → 2 since"),
        ({"entropy": 0.001}, "entropy", "exploring"),
        ({"reward": 0.0, "groups_with_variance": 0.0}, "no_reward", "warm-start"),
        ({"groups_with_variance": 0.0}, "no_variance", "scores alike"),
        ({"completion_tokens": 50.0}, "length", "5.0 times"),
        ({"truncated": 0.2}, "truncated", "truncated 0.02 → 0.2 since"),
    ],
)
def test_each_alarm_speaks_once_after_its_patience(change: dict[str, float], kind: str, word: str) -> None:
    alarms = Alarms(AlarmConfig(patience=2, fall=0.0))
    bad = FINE | change
    said = [alarms.watch(metrics) for metrics in (FINE, bad, bad, bad, FINE, bad, bad)]
    assert [list(found) for found in said] == [[], [], [kind], [], [], [], [kind]]
    assert word in next(iter(said[2].values()))


def test_metrics_that_a_run_does_not_have_raise_no_alarm() -> None:
    alarms = Alarms(AlarmConfig(patience=1))
    assert all(alarms.watch({"loss": 1.0}) == {} for _ in range(5))


@pytest.mark.parametrize("name", HEALTHY)
def test_a_run_that_learnt_is_left_in_peace(name: str) -> None:
    assert spoken(HEALTHY[name]) == {}


@pytest.mark.parametrize("name", COLLAPSING)
def test_a_collapse_is_seen_while_variety_is_left(name: str) -> None:
    rows = COLLAPSING[name]
    step = min(spoken(rows)[kind] for kind in ("collapse", "entropy") if kind in spoken(rows))
    best = max(row["groups_with_variance"] for row in rows)
    assert rows[step - 1]["groups_with_variance"] > 0.2 * best
    assert step <= 0.75 * len(rows)


def falling(name: str, values: Sequence[float], rewards: Sequence[float]) -> list[dict[str, float]]:
    """A run in which one metric moves with the reward, beside others that stay."""
    return [FINE | {name: value, "reward": reward} for value, reward in zip(values, rewards, strict=False)]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("groups_with_variance", "collapse"), ("entropy", "entropy"), ("sampled_entropy", "entropy")],
)
def test_variety_may_fall_as_fast_as_the_reward_rises_and_no_faster(name: str, kind: str) -> None:
    values = [0.9, 0.9, 0.9, 0.7, 0.5, 0.4, 0.3, 0.2, 0.2]
    learning = [0.2, 0.2, 0.2, 0.4, 0.6, 0.7, 0.8, 0.85, 0.85]
    rows = {
        reward: [{k: v for k, v in row.items() if k != "entropy" or name == "entropy"} for row in run]
        for reward, run in (
            ("rises", falling(name, values, learning)),
            ("stays", falling(name, values, cycle([0.2]))),  # type: ignore[arg-type]
        )
    }
    assert spoken(rows["rises"]) == {}
    assert spoken(rows["stays"]) == {kind: 7}
    unbounded = Alarms(AlarmConfig(), best=math.inf)
    assert spoken(rows["stays"], unbounded) == {}
    wider = Alarms(AlarmConfig(), best=10.0)  # 0.2 → 0.85 is then little of what there is to gain
    assert spoken(rows["rises"], wider) == {kind: 7}


def test_an_alarm_says_from_what_to_what_and_which_key_to_change() -> None:
    alarms = Alarms(AlarmConfig(), Knobs(lr=2e-5, entropy=0.0, group_size=8, max_tokens=32))
    rows = falling("groups_with_variance", [0.9, 0.9, 0.9, 0.5, 0.4, 0.3], [0.2] * 6)
    (text,) = [text for row in rows for text in alarms.watch(row).values()]
    assert "groups_with_variance 0.9 → 0.3 while reward 0.2 → 0.2 in 3 steps" in text
    assert "optimizer.lr (now 2e-05; try 5e-06)" in text
    assert "policy.entropy (now 0; try 0.01)" in text


def test_a_policy_that_has_solved_its_tasks_may_stop_varying() -> None:
    rows = falling("groups_with_variance", [0.9] * 3 + [0.01] * 9, [0.2] * 3 + [0.95] * 9)
    assert spoken(rows) == {}


def test_most_answers_cut_off_from_the_start_are_an_alarm_too() -> None:
    assert spoken([FINE | {"truncated": 0.8}] * 3) == {"truncated": 3}
