"""What the intervals and gates promise, held against simulated evals.

Tasks sit in clusters of unequal size; a cluster has its own accuracy, a task in it its own chance of success,
and a task's value is the share of successes over its samples. By default a few hundred evals are simulated and
held within four standard errors of the claim; the slow tests simulate 2,000 and hold it within a point.
"""

import math

import numpy as np
import pytest

from vertigym.evals import sequential
from vertigym.evals.power import power
from vertigym.evals.sequential import Plan
from vertigym.evals.statistics import Sample, estimate, non_inferior, paired_difference, shown_better

Floats = np.ndarray
QUICK, FULL = 250, 2000
SCALES = [QUICK, pytest.param(FULL, marks=pytest.mark.slow)]


def chances(rng: np.random.Generator, clusters: int, size: int, accuracy: float) -> tuple[Floats, Floats]:
    """Each task's chance of success, (N,), and its cluster, (N,)."""
    sizes = 1 + rng.poisson(size - 1, clusters)
    cluster = np.repeat(np.arange(clusters), sizes)
    own = rng.beta(accuracy * 4, (1 - accuracy) * 4, clusters)[cluster]
    return rng.beta(np.maximum(own * 2, 1e-6), np.maximum((1 - own) * 2, 1e-6)), cluster


def pair(
    rng: np.random.Generator, gain: float, *, clusters: int, size: int, samples: int, accuracy: float = 0.6
) -> tuple[Floats, Floats, Floats]:
    """Challenger's and champion's task values and the clusters; the challenger's accuracy is `gain` higher."""
    chance, cluster = chances(rng, clusters, size, accuracy)
    lifted = chance + gain * (1 - chance) / (1 - accuracy)
    return rng.binomial(samples, lifted) / samples, rng.binomial(samples, chance) / samples, cluster


def allowed(claim: float, sims: int) -> float:
    """A point in the full runs, four standard errors in the quick ones."""
    return 0.01 if sims == FULL else 4 * math.sqrt(claim * (1 - claim) / sims)


SETTINGS = [
    {"clusters": 200, "size": 1, "samples": 1},
    {"clusters": 60, "size": 4, "samples": 1},
    {"clusters": 60, "size": 4, "samples": 4},
]


@pytest.mark.parametrize("sims", SCALES)
@pytest.mark.parametrize("setting", SETTINGS)
def test_intervals_of_a_mean_cover_95_percent(setting: dict[str, int], sims: int) -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(sims):
        chance, cluster = chances(rng, setting["clusters"], setting["size"], 0.7)
        samples = setting["samples"]
        found = estimate(Sample.of(rng.binomial(samples, chance) / samples, cluster), rng)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 0.7 <= found.high
    assert abs(hits / sims - 0.95) <= allowed(0.95, sims)


@pytest.mark.parametrize("sims", SCALES)
@pytest.mark.parametrize("setting", SETTINGS)
def test_gates_err_as_seldom_and_find_as_often_as_claimed(setting: dict[str, int], sims: int) -> None:
    """No gain: promoted in at most 5% (and near the 2.5% of one side). A real gain of five points: covered by
    95% of intervals, found as often as `power` says. A real loss of two points: called not worse by two
    points in at most 5%."""
    rng = np.random.default_rng(2)
    promoted = found = covered = passed = 0
    claimed = 0.0
    for _ in range(sims):
        first, second, cluster = pair(rng, 0.0, **setting)
        promoted += shown_better(paired_difference(first, second, rng, clusters=cluster))
        first, second, cluster = pair(rng, 0.05, **setting)
        gain = paired_difference(first, second, rng, clusters=cluster)
        found += shown_better(gain)
        assert gain.low is not None
        assert gain.high is not None
        covered += gain.low <= 0.05 <= gain.high
        claimed += power(0.05, gain.se or 0.0, gain.clusters) or 0.0
        loss = paired_difference(second, first, rng, clusters=cluster)
        passed += non_inferior(loss, 0.05)
    assert promoted / sims <= 0.025 + allowed(0.025, sims)
    assert passed / sims <= 0.025 + allowed(0.025, sims)
    assert abs(covered / sims - 0.95) <= allowed(0.95, sims)
    assert abs(found - claimed) / sims <= 3 * allowed(0.5, sims)


@pytest.mark.parametrize("sims", SCALES)
@pytest.mark.parametrize("discordant", [3, 6, 10, 20, 40])
def test_a_handful_of_tasks_that_differ_does_not_promote(discordant: int, sims: int) -> None:
    rng = np.random.default_rng(5)
    promoted = 0
    for _ in range(sims):
        differs = rng.random(200) < discordant / 200
        delta = np.where(differs, rng.choice([-1.0, 1.0], 200), 0.0)
        promoted += shown_better(paired_difference(delta, np.zeros(200), rng))
    assert promoted / sims <= 0.025 + allowed(0.025, sims)


@pytest.mark.parametrize("sims", SCALES)
def test_clusters_ignored_would_promote_far_too_often(sims: int) -> None:
    """The control: a challenger that differs by whole clusters, judged as if tasks were independent."""
    rng = np.random.default_rng(3)
    wrong = right = 0
    for _ in range(sims // 2):
        delta = rng.normal(0, 0.3, 20)[np.repeat(np.arange(20), 10)] + rng.normal(0, 0.1, 200)
        blind = paired_difference(delta, np.zeros(200), rng)
        told = paired_difference(delta, np.zeros(200), rng, clusters=list(np.repeat(np.arange(20), 10)))
        wrong += shown_better(blind)
        right += shown_better(told)
    assert wrong / (sims // 2) > 0.15
    assert right / (sims // 2) <= 0.025 + allowed(0.025, sims // 2)


def looks(plan: Plan, first: Floats, second: Floats, cluster: Floats) -> tuple[str, float]:
    """The verdict of looking as planned, and the share of tasks used."""
    for index, share in enumerate(plan.shares):
        seen = cluster < math.ceil(share * (cluster.max() + 1))
        verdict = sequential.look(plan, index, Sample.of((first - second)[seen], cluster[seen])).verdict
        if verdict != "go on":
            return verdict, float(seen.mean())
    raise AssertionError("the last look always decides")


@pytest.mark.parametrize("sims", SCALES)
@pytest.mark.parametrize(("gain", "most"), [(0.0, 0.8), (0.05, 0.85), (0.1, 0.6), (0.2, 0.45)])
def test_stopping_early_keeps_error_and_power_and_spends_less(gain: float, most: float, sims: int) -> None:
    rng = np.random.default_rng(4)
    early, full = sequential.plan(5), sequential.plan(1)
    used = 0.0
    better = plain = 0
    for _ in range(sims):
        drawn = pair(rng, gain, clusters=150, size=2, samples=4)
        verdict, share = looks(early, *drawn)
        better += verdict == "better"
        plain += looks(full, *drawn)[0] == "better"
        used += share
    assert used / sims <= most
    if gain == 0:
        assert better / sims <= 0.025 + allowed(0.025, sims)
    else:
        assert better / sims >= plain / sims - 0.03
