"""What gates promise, held against simulated evals: the cells of `benchmarks/gate_cells.py`. The benchmark runs
all of them with 2,000 evals each; here are a few that broke earlier gates.
"""

import math
from dataclasses import replace

import numpy as np
import pytest

from vertigym.benchmarks.gate_cells import (
    ALLOWED,
    ALLOWED_RUN,
    NOMINAL,
    Cell,
    Draws,
    RunCell,
    at_the_bound,
    of_any,
    runs_without_gain,
)
from vertigym.benchmarks.gates import WAYS, Seen, any_passes, even, passes, promoted
from vertigym.core.seeds import generator
from vertigym.evals import sequential
from vertigym.evals.clustered import ClusteredValues
from vertigym.evals.mean_bounds import p_above
from vertigym.evals.power import power, smallest_difference
from vertigym.evals.statistics import difference_of, estimate

EVALS = 400
HARD = [
    cell
    for cell in at_the_bound()
    if (cell[2].tasks, cell[2].clusters) in {(100, 20), (100, 100), (500, 5), (300, 60)}
    and cell[2].sizes != "uneven"
]


def clustered(drawn: Draws, i: int) -> ClusteredValues:
    """One of the evals, a cluster being a task with its weight."""
    return ClusteredValues.of((drawn.first[i] - drawn.second[i]) / drawn.size[i], weights=drawn.size[i])


def most(rate: float, count: int) -> float:
    """Four standard errors above."""
    return rate + 4 * math.sqrt(rate * (1 - rate) / count)


def test_gates_err_as_seldom_as_they_say_in_cells_made_to_break_them() -> None:
    """No cell shows more than chance allows; all cells together not more than 2.5%."""
    rates = {
        (rule, bound, cell.name): passes(WAYS["worst case"], rule, bound, cell, EVALS)
        for rule, bound, cell in HARD
    }
    assert len(rates) > 80
    assert max(rates.values()) <= most(NOMINAL, EVALS), max(rates, key=lambda cell: rates[cell])
    assert np.mean(list(rates.values())) <= NOMINAL


@pytest.mark.parametrize(
    ("rule", "bound", "cell"),
    [
        ("improves", 0.0, Cell("rare", 100, 100)),
        ("not_worse", -0.05, Cell("forgotten", 500, 5, value=-0.05)),
        ("at_least", 0.9, Cell("skewed", 500, 5, value=0.9, paired=False)),
    ],
)
def test_the_cells_break_what_gates_did_before(rule: str, bound: float, cell: Cell) -> None:
    assert passes(WAYS["present"], rule, bound, cell, EVALS) > 2 * ALLOWED
    assert passes(WAYS["t"], rule, bound, cell, EVALS) > 2 * ALLOWED


def test_what_is_drawn_for_many_evals_is_what_gates_compute_for_one() -> None:
    for rule, bound, cell in HARD[:: len(HARD) // 12]:
        if rule == "at_most":
            continue
        rng = generator(1, cell.name)
        drawn = cell.draw(rng, 12)
        exact = [p_above(clustered(drawn, i), bound, -1.0 if cell.paired else 0.0) or 0.0 for i in range(12)]
        for level in (0.01, 0.1, 0.4):
            told = [p <= level for p in exact]
            found = [passes_one(bound, cell, drawn, i, level) for i in range(12)]
            close = [abs(p - level) < 0.02 for p in exact]
            assert all(a == b or near for a, b, near in zip(told, found, close, strict=True))


def passes_one(bound: float, cell: Cell, drawn: Draws, i: int, error: float) -> bool:
    first, size = drawn.first[[i]], drawn.size[[i]]
    seen = Seen(first - drawn.second[[i]], size, first, drawn.second[[i]], bound, cell.paired)
    return bool(WAYS["worst case"](seen, error, generator(i))[0])


def test_any_of_many_gates_and_slices_errs_no_more_than_one() -> None:
    """Rules of a table, and thresholds beside differences, combined by Holm."""
    assert max(any_passes(gates, EVALS) for gates in of_any()) <= most(NOMINAL, EVALS)


@pytest.mark.parametrize("kind", ["still", "drift", "clusters", "hairs"])
def test_a_run_that_never_improves_is_seldom_promoted(kind: str) -> None:
    """Ten looks: 5% at most with the error shared out, and far more without."""
    (cell,) = [cell for cell in runs_without_gain() if cell.kind == kind and cell.looks == 10]
    before, shared = promoted(replace(cell, tasks=100), 200, [even])
    assert shared <= most(ALLOWED_RUN, 200)
    assert before > shared


def test_what_a_run_gains_is_still_found() -> None:
    (shared,) = promoted(RunCell("still", 10, 0.15), 100, [even])[1:]
    assert shared >= 0.9


@pytest.mark.parametrize("cell", [Cell("even", 200, 200), Cell("even", 240, 60), Cell("whole", 100, 50)])
def test_intervals_cover_at_least_as_often_as_they_say(cell: Cell) -> None:
    drawn = replace(cell, value=0.05).draw(np.random.default_rng(3), EVALS)
    found = [difference_of(clustered(drawn, i)) for i in range(0, EVALS, 2)]
    covered = np.mean([(d.low or 0) <= 0.05 <= (d.high or 0) for d in found])
    assert covered >= 0.95 - 4 * math.sqrt(0.95 * 0.05 / len(found))


def test_intervals_of_a_share_cover_at_least_as_often_as_they_say() -> None:
    drawn = Cell("even", 100, 25, value=0.8, paired=False).draw(np.random.default_rng(4), EVALS)
    found = [estimate(clustered(drawn, i)) for i in range(0, EVALS, 2)]
    assert np.mean([(e.low or 0) <= 0.8 <= (e.high or 0) for e in found]) >= 0.9


@pytest.mark.parametrize(("tasks", "clusters", "gain"), [(200, 200, 0.08), (240, 60, 0.15), (60, 60, 0.2)])
def test_a_gain_is_found_as_often_as_power_says(tasks: int, clusters: int, gain: float) -> None:
    drawn = Cell("even", tasks, clusters, value=gain).draw(np.random.default_rng(5), EVALS)
    found = [difference_of(clustered(drawn, i)) for i in range(0, EVALS, 2)]
    shown = np.mean([(d.low or 0) > 0 for d in found])
    claimed = np.mean([power(gain, d) or 0.0 for d in found])
    assert shown == pytest.approx(claimed, abs=0.1)
    assert np.mean([(smallest_difference(d) or 0) for d in found]) < 2 * gain


def test_clusters_ignored_would_promote_far_too_often() -> None:
    """The control: a challenger that differs by whole clusters, judged as if tasks were independent."""
    rng = np.random.default_rng(3)
    cluster = np.repeat(np.arange(20), 10)
    wrong = right = 0
    for _ in range(200):
        delta = (rng.normal(0, 0.3, 20)[cluster] + rng.normal(0, 0.1, 200)).clip(-1, 1)
        wrong += (p_above(ClusteredValues.of(delta), 0.0, -1.0) or 0) <= NOMINAL
        right += (p_above(ClusteredValues.of(delta, cluster), 0.0, -1.0) or 0) <= NOMINAL
    assert wrong / 200 > 0.15
    assert right / 200 <= most(NOMINAL, 200)


def looks(plan: sequential.Plan, delta: np.ndarray) -> tuple[str, float]:
    """The verdict of looking as planned, and the share of tasks used."""
    for index, share in enumerate(plan.shares):
        seen = delta[: math.ceil(share * len(delta))]
        verdict = sequential.look(plan, index, ClusteredValues.of(seen)).verdict
        if verdict != "go on":
            return verdict, share
    raise AssertionError("the last look always decides")


@pytest.mark.parametrize(("gain", "most_used"), [(0.0, 0.85), (0.05, 0.9), (0.1, 0.75), (0.2, 0.45)])
def test_stopping_early_keeps_error_and_power_and_spends_less(gain: float, most_used: float) -> None:
    rng = np.random.default_rng(4)
    early, full = sequential.plan(5), sequential.plan(1)
    drawn = [rng.choice([-1.0, 0.0, 1.0], 300, p=[0.05, 0.9 - gain, 0.05 + gain]) for _ in range(150)]
    stopped, plain = [looks(early, delta) for delta in drawn], [looks(full, delta) for delta in drawn]
    assert np.mean([share for _, share in stopped]) <= most_used
    better, plainly = (np.mean([verdict == "better" for verdict, _ in found]) for found in (stopped, plain))
    if gain == 0:
        assert better <= most(NOMINAL, len(drawn))
    else:
        assert better >= plainly - 0.07
