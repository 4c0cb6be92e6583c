"""Alarms speak when they should, once, and say what it means."""

import pytest

from vertigym.trainer.alarms import AlarmConfig, Alarms

FINE = {
    "sampler_kl": 1e-5,
    "entropy": 0.5,
    "reward": 0.4,
    "groups_with_variance": 0.5,
    "completion_tokens": 10.0,
}


@pytest.mark.parametrize(
    ("change", "kind", "word"),
    [
        ({"sampler_kl": 0.3}, "mismatch", "disagree"),
        ({"entropy": 0.001}, "entropy", "exploring"),
        ({"reward": 0.0, "groups_with_variance": 0.0}, "no_reward", "warm-start"),
        ({"groups_with_variance": 0.0}, "no_variance", "scores alike"),
        ({"completion_tokens": 50.0}, "length", "5.0 times"),
    ],
)
def test_each_alarm_speaks_once_after_its_patience(change: dict[str, float], kind: str, word: str) -> None:
    alarms = Alarms(AlarmConfig(patience=2))
    bad = FINE | change
    spoken = [alarms.watch(metrics) for metrics in (FINE, bad, bad, bad, FINE, bad, bad)]
    assert [list(found) for found in spoken] == [[], [], [kind], [], [], [], [kind]]
    assert word in next(iter(spoken[2].values()))


def test_metrics_that_a_run_does_not_have_raise_no_alarm() -> None:
    alarms = Alarms(AlarmConfig(patience=1))
    assert all(alarms.watch({"loss": 1.0}) == {} for _ in range(5))
