"""Do gates keep their promise, and what does it cost? Ways to decide, measured on the cells of `gate_cells`.

    python benchmarks/gates.py [--evals 2000] [--only errors power runs] [--ways present t]

A way is promised to err in at most 2.5% of evals and may show 3.5% in no cell; a run in which nothing improves
may promote something in at most 5%. Cells and limits were fixed before any way but the present one was run.

Axes: B evals, G clusters, R resamples.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from vertigym.benchmarks.gate_cells import (
    ALLOWED,
    ALLOWED_RUN,
    NOMINAL,
    Cell,
    Floats,
    RunCell,
    at_the_bound,
    of_any,
    runs_with_gain,
    runs_without_gain,
    to_be_found,
)
from vertigym.core.seeds import generator
from vertigym.evals.sequential import spent
from vertigym.evals.statistics import holm

RESAMPLES = 2000
FEW = 20


@dataclass(frozen=True, slots=True)
class Seen:
    """What a way decides on: whether the mean of all tasks lies above `bound`. `total` is a cluster's, `size`
    its weight; a task's value lies in [`low`, `low + width`]; `first` and `second` are the two sides of a
    difference."""

    total: Floats
    size: Floats
    first: Floats
    second: Floats
    bound: float
    paired: bool

    @property
    def width(self) -> float:
        """Of the range of a task's value."""
        return 2.0 if self.paired else 1.0

    @property
    def low(self) -> float:
        """The least value of a task."""
        return -1.0 if self.paired else 0.0

    def slack(self) -> Floats:
        """Each cluster's weight times its distance from the bound, in tasks: (B, G)."""
        return self.total - self.size * self.bound

    def residual(self) -> Floats:
        """Each cluster's total less what the mean would give it."""
        return self.total - self.size * self.mean()[:, None]

    def mean(self) -> Floats:
        """(B,)."""
        return self.total.sum(1) / self.size.sum(1)

    def error(self) -> Floats:
        """Clustered standard error, (B,)."""
        count = self.total.shape[1]
        return np.sqrt((self.residual() ** 2).sum(1) * count / (count - 1)) / self.size.sum(1)


Way = Callable[[Seen, float, np.random.Generator], Floats]
Schedule = Callable[[int], list[float]]


def present(seen: Seen, error: float, rng: np.random.Generator) -> Floats:
    """The gate of version 0.1: a smoothed bootstrap over clusters, expanded to the width of a t interval; where
    20 clusters or fewer differ, `improves` asks a sign-flip test too. Thresholds: Wilson's interval for single
    tasks or all alike, else the bootstrap."""
    count = seen.total.shape[1]
    tasks = seen.size.sum(1)
    drawn = stats.multinomial(count, np.full(count, 1 / count)).rvs(RESAMPLES, random_state=rng).astype(float)
    mean_BR = (seen.total @ drawn.T) / (seen.size @ drawn.T)
    if seen.paired:
        kernel, se = 1 / (tasks + 2), np.maximum(seen.error(), 1e-12)
        shrink = np.sqrt(np.maximum(0.0, 1 - (kernel / se) ** 2))[:, None]
        centre = mean_BR.mean(1, keepdims=True)
        mean_BR = centre + shrink * (mean_BR - centre) + kernel[:, None] * rng.standard_normal(mean_BR.shape)
    free = count - 1
    tail = stats.norm.cdf(-np.sqrt((free + 1) / free) * stats.t.isf(error, free))
    low = np.quantile(mean_BR, tail, axis=1)
    if not seen.paired:
        flat = np.ptp(seen.total / seen.size, axis=1) == 0
        exact = flat | (count == tasks)
        return np.where(exact, _wilson(seen.mean(), count, error), low) >= seen.bound
    passed = low > seen.bound
    if seen.bound == 0:
        doubted = passed & ((seen.total != 0).sum(1) <= FEW)
        for i in np.flatnonzero(doubted):
            passed[i] = _flipped(seen.total[i], rng) <= error
    return passed


def _wilson(mean: Floats, count: int, error: float) -> Floats:
    z = stats.norm.isf(error)
    half = z / (1 + z * z / count) * np.sqrt(mean * (1 - mean) / count + z * z / (4 * count**2))
    return (mean + z * z / (2 * count)) / (1 + z * z / count) - half


def _flipped(total_G: Floats, rng: np.random.Generator, flips: int = 3999) -> float:
    """One-sided p-value of flipping the signs of clusters at random."""
    total_K = total_G[total_G != 0]
    signs = rng.choice([-1.0, 1.0], (flips, len(total_K)))
    return float(((signs @ total_K >= total_K.sum() - 1e-9).sum() + 1) / (flips + 1))


def student(seen: Seen, error: float, rng: np.random.Generator) -> Floats:
    """Student's t with the clustered error (Liang & Zeger 1986) and G-1 degrees of freedom."""
    return _beyond(seen.mean() - seen.bound, seen.error(), stats.t.isf(error, seen.total.shape[1] - 1))


def unpaired(seen: Seen, error: float, rng: np.random.Generator) -> Floats:
    """Welch's t as if the two sides had met different tasks."""
    sides = [Seen(side, seen.size, side, side, 0.0, False) for side in (seen.first, seen.second)]
    se = np.hypot(*(side.error() for side in sides))
    return _beyond(seen.mean() - seen.bound, se, stats.t.isf(error, 2 * seen.total.shape[1] - 2))


def _beyond(gap: Floats, se: Floats, critical: float) -> Floats:
    return gap > critical * se


def bootstrap_t(seen: Seen, error: float, rng: np.random.Generator) -> Floats:
    """Studentised bootstrap over clusters (Davison & Hinkley 1997, section 5.2.1)."""
    count = seen.total.shape[1]
    drawn = stats.multinomial(count, np.full(count, 1 / count)).rvs(RESAMPLES, random_state=rng).astype(float).T
    weight_BR, centre = seen.size @ drawn, seen.mean()[:, None]
    own = seen.residual()
    shift_BR = own @ drawn / weight_BR  # the resample's mean, less the mean
    square_BR = (
        own**2 @ drawn - 2 * shift_BR * ((own * seen.size) @ drawn) + shift_BR**2 * (seen.size**2 @ drawn)
    )
    se_BR = np.sqrt(np.maximum(square_BR, 0) * count / (count - 1)) / weight_BR
    with np.errstate(divide="ignore", invalid="ignore"):
        t_BR = np.nan_to_num(shift_BR / se_BR, nan=0.0)
    return seen.error() * np.quantile(t_BR, 1 - error, axis=1) < centre[:, 0] - seen.bound


def sign_flip(seen: Seen, error: float, rng: np.random.Generator) -> Floats:
    """Flip each cluster's distance from the bound at random (Fisher 1935): exact where it is symmetric."""
    slack = seen.slack()
    signs = rng.choice([-1.0, 1.0], (RESAMPLES, slack.shape[1]))
    observed = slack.sum(1, keepdims=True) - 1e-9
    return (((slack @ signs.T) >= observed).sum(1) + 1) / (RESAMPLES + 1) <= error


def betting(seen: Seen, error: float, rng: np.random.Generator) -> Floats:
    """Predictable plug-in bets of Waudby-Smith & Ramdas (2024, JRSS B 86:1, section 4.2), clusters in random
    order, stopped as soon as the capital reaches 1 / error."""
    count = seen.total.shape[1]
    reach = seen.size.max(1, keepdims=True) * seen.width
    null = (seen.bound - seen.low) / seen.width
    x = (
        rng.permuted(seen.slack() / reach, axis=1) + null
    )  # in [0, 1], mean at most `null` where nothing is gained
    ahead = np.arange(1, count + 1)
    centre = (0.5 + np.cumsum(x, 1)) / (ahead + 1)
    spread = (0.25 + np.cumsum((x - centre) ** 2, 1)) / (ahead + 1)
    spread = np.concatenate([np.full((len(x), 1), 0.25), spread[:, :-1]], 1)
    bet = np.minimum(np.sqrt(2 * np.log(1 / error) / (count * spread)), 0.75 / null)
    return np.cumsum(np.log1p(bet * (x - null)), 1).max(1) >= np.log(1 / error)


def mixture(seen: Seen, error: float, rng: np.random.Generator) -> Floats:
    """Fixed bets, mixed evenly over a grid: needs no order, and holds for clusters that are not alike."""
    reach = seen.size.max(1, keepdims=True) * (seen.bound - seen.low)
    x = seen.slack() / reach  # at least -1
    bets = 1 - np.geomspace(1, 1e-3, 40)
    bets = np.concatenate([np.geomspace(1e-3, 0.5, 40), bets[bets > 0.5]])
    capital = np.stack([np.log1p(bet * x).sum(1) for bet in bets])
    return np.logaddexp.reduce(capital, axis=0) - np.log(len(bets)) >= np.log(1 / error)


def worst_case(seen: Seen, error: float, rng: np.random.Generator) -> Floats:
    """What the gates do (`vertigym.evals.mean_bounds`), drawn instead of computed."""
    return worst_case_p(seen, rng) <= error


def worst_case_p(seen: Seen, rng: np.random.Generator) -> Floats:
    """Gaffke's bound (2005; Learned-Miller & Thomas 2020, arXiv:1905.06208) over clusters: weigh the clusters
    and one more, as heavy as the heaviest and as bad as the range allows, with random exponential weights."""
    added = seen.size.max(1) * (seen.low - seen.bound)
    parts = np.concatenate([seen.slack(), added[:, None]], 1)
    weights = rng.standard_exponential((4 * RESAMPLES, parts.shape[1]), dtype=np.float32)
    return np.asarray((parts.astype(np.float32) @ weights.T <= 0).mean(1))


WAYS: dict[str, Way] = {
    "present": present,
    "unpaired": unpaired,
    "t": student,
    "bootstrap-t": bootstrap_t,
    "sign-flip": sign_flip,
    "betting": betting,
    "mixture": mixture,
    "worst case": worst_case,
}


def passes(way: Way, rule: str, bound: float, cell: Cell, evals: int, error: float = NOMINAL) -> float:
    """Share of simulated evals of a cell that a gate passes."""
    rng = generator(0, "gates", rule, cell.name, f"{bound} {cell.value} {cell.churn}")
    return float(way(_seen(rng, rule, bound, cell, evals), error, rng).mean())


def any_passes(gates: Sequence[tuple[str, float, Cell]], evals: int, error: float = NOMINAL) -> float:
    """Share of simulated evals in which any of several gates passes, by the worst case and Holm's p-values."""
    rng = generator(0, "gates", "any", *(cell.name for _, _, cell in gates))
    p_GB = np.array([worst_case_p(_seen(rng, *gate, evals), rng) for gate in gates])
    return float(np.mean([min(holm(p_G)) <= error for p_G in p_GB.T]))


def _seen(rng: np.random.Generator, rule: str, bound: float, cell: Cell, evals: int) -> Seen:
    drawn = cell.draw(rng, evals)
    first, second = drawn.first, drawn.second
    if rule == "at_most":  # at most so many ones is at least so many zeros
        first, bound = drawn.size - first, 1 - bound
    return Seen(first - second, drawn.size, first, second, bound, cell.paired)


def promoted(cell: RunCell, runs: int, schedules: Sequence[Schedule]) -> list[float]:
    """Share of simulated runs that promote something: by version 0.1 at every look, then by the worst case with
    each schedule."""
    rng = generator(0, "gates", cell.kind, cell.looks, f"{cell.gain}")
    start, *looks = cell.draw(rng, runs)
    size = np.full(start.shape, cell.tasks / cell.clusters)
    shown = [Seen(now - start, size, now, start, 0.0, True) for now in looks]
    before = np.any([present(seen, NOMINAL, rng) for seen in shown], axis=0)
    p_LB = np.array([worst_case_p(seen, rng) for seen in shown])
    ever = [(p_LB <= np.array(schedule(cell.looks))[:, None]).any(0) for schedule in schedules]
    return [float(found.mean()) for found in (before, *ever)]


def each(looks: int) -> list[float]:
    """Every look by itself, as if it were the only one."""
    return [NOMINAL] * looks


def even(looks: int) -> list[float]:
    """Twice the error of a look for the whole run, in even shares."""
    return [min(NOMINAL, 2 * NOMINAL / looks)] * looks


def late(looks: int) -> list[float]:
    """The same in the increments of Lan and DeMets' O'Brien-Fleming shape: most of it at the end."""
    used = [spent((i + 1) / looks, 2 * NOMINAL) for i in range(looks)]
    return [min(NOMINAL, float(part)) for part in np.diff(used, prepend=0.0)]


def rising(looks: int) -> list[float]:
    """The same by the square of what has passed (Kim & DeMets 1987, Biometrika 74:149): 1, 3, 5, … parts."""
    return [min(NOMINAL, 2 * NOMINAL * (2 * i + 1) / looks**2) for i in range(looks)]


def error_table(ways: Sequence[str], evals: int) -> Table:
    """The worst cell of each rule, bound and kind."""
    table = Table("gate", "kind", "cells", title=f"errors, worst cell (cells above {ALLOWED:.1%})")
    for way in ways:
        table.add_column(way, justify="right")
    cells = [(rule, bound, cell.kind, cell) for rule, bound, cell in at_the_bound()]
    for (rule, bound, kind), found in groupby(cells, key=lambda c: c[:3]):
        group = [cell for *_, cell in found]
        shown = [_worst([(passes(WAYS[w], rule, bound, c, evals), c.name) for c in group]) for w in ways]
        table.add_row(f"{rule} {abs(bound):g}", kind, str(len(group)), *shown)
    return table


def _worst(rates: Sequence[tuple[float, str]]) -> str:
    rate, name = max(rates)
    over = sum(r > ALLOWED for r, _ in rates)
    return f"{rate:.1%}" + (f" ({over}: {name.split(' ', 1)[1]})" if over else "")


def power_table(ways: Sequence[str], evals: int) -> Table:
    """How often each way finds what is there."""
    table = Table("gate", "true", "churn", "tasks/clusters", title="found")
    for way in ways:
        table.add_column(way, justify="right")
    for rule, bound, cell in to_be_found():
        shown = [f"{passes(WAYS[way], rule, bound, cell, evals):.0%}" for way in ways]
        about = f"{cell.tasks}/{cell.clusters}"
        table.add_row(f"{rule} {abs(bound):g}", f"{cell.value:g}", f"{cell.churn:g}", about, *shown)
    return table


def run_table(runs: int, schedules: Sequence[Schedule] = (each, even, late, rising)) -> Iterator[Table]:
    """How often runs promote something: by luck, and rightly."""
    for title, cells in (
        (f"promoted by luck ({ALLOWED_RUN:.0%} at most)", runs_without_gain()),
        ("promoted rightly", runs_with_gain()),
    ):
        table = Table("run", "looks", "gain", "version 0.1", *(s.__name__ for s in schedules), title=title)
        for cell in cells:
            count = runs // 4 if cell.gain else runs
            shown = [f"{share:.1%}" for share in promoted(cell, count, schedules)]
            gain = f"{cell.gain:g}" + (" soon" if cell.soon else "")
            table.add_row(cell.kind, str(cell.looks), gain, *shown)
        yield table


def main() -> None:
    """Run and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evals", type=int, default=2000)
    parser.add_argument("--only", nargs="+", default=["errors", "power", "runs"])
    parser.add_argument("--ways", nargs="+", default=list(WAYS))
    arguments = parser.parse_args()
    screen = Console(width=160)
    if "errors" in arguments.only:
        screen.print(error_table(arguments.ways, arguments.evals))
        rates = [(any_passes(gates, arguments.evals), f"any {gates[0][2].name}") for gates in of_any()]
        screen.print(f"any of several gates, {len(rates)} suites, worst: {_worst(rates)}")
    if "power" in arguments.only:
        screen.print(power_table(arguments.ways, arguments.evals))
    if "runs" in arguments.only:
        for table in run_table(arguments.evals):
            screen.print(table)


if __name__ == "__main__":
    main()
