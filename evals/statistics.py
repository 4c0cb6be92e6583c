"""What reports and comparisons say: estimates with error and interval, paired differences, Holm's p-values.

Every estimate is None where it is undefined. Intervals are those of `mean_bounds`: they hold for any
values in the range given; without a range they are Student's, an approximation, and `method` says so.

Axes: N tasks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vertigym.evals.clustered import ClusteredValues, clustered_se, mean
from vertigym.evals.mean_bounds import Range, interval, p_above


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over tasks. `se` is clustered; `low` and `high` bound it at the stated confidence; `method` says
    how they were made."""

    mean: float | None
    se: float | None
    low: float | None
    high: float | None
    tasks: int
    clusters: int
    confidence: float = 0.95
    method: str = ""


@dataclass(frozen=True, slots=True)
class Difference:
    """First minus second on the same tasks. `p` is two-sided for "no difference"; wins, ties and losses count
    tasks, seen from the first; `differing` counts clusters in which the two are not level."""

    mean: float | None
    se: float | None
    low: float | None
    high: float | None
    p: float | None
    tasks: int
    clusters: int
    wins: int
    ties: int
    losses: int
    differing: int
    confidence: float = 0.95


@dataclass(frozen=True, slots=True)
class VarianceSplit:
    """Where the error of a mean comes from: `between` tasks (shrinks with more tasks only) and `within`
    tasks, between samples of one task (shrinks with more samples too). Variances of single draws."""

    between: float
    within: float

    def se(self, tasks: int, samples: int) -> float:
        """The standard error that `tasks` independent tasks with `samples` each would have."""
        return float(np.sqrt((self.between + self.within / samples) / tasks))


def estimate(values: ClusteredValues, limits: Range | None = (0.0, 1.0), confidence: float = 0.95) -> Estimate:
    """Mean, clustered error and interval; `limits` is what a value can be, None where nobody knows."""
    low, high = interval(values, limits, confidence) or (None, None)
    method = "" if low is None else "exact" if limits else "Student's t"
    counts = len(values.value_N), values.clusters
    return Estimate(mean(values), clustered_se(values), low, high, *counts, confidence, method)


def difference_of(
    values: ClusteredValues, limits: Range | None = (-1.0, 1.0), confidence: float = 0.95
) -> Difference:
    """Of the tasks' differences, first minus second. `limits` is what one can be, None where nobody knows."""
    low, high = interval(values, limits, confidence) or (None, None)
    return Difference(
        mean=mean(values),
        se=clustered_se(values),
        low=low,
        high=high,
        p=p_no_difference(values, limits),
        tasks=len(values.value_N),
        clusters=values.clusters,
        wins=int((values.value_N > 0).sum()),
        ties=int((values.value_N == 0).sum()),
        losses=int((values.value_N < 0).sum()),
        differing=int((values.totals()[0] != 0).sum()),
        confidence=confidence,
    )


def p_no_difference(values: ClusteredValues, limits: Range | None) -> float | None:
    """Two-sided p-value: twice the smaller of the two sides'. McNemar's exact test for single 0/1 tasks."""
    above = p_above(values, 0.0, limits and limits[0])
    below = p_above(values.mirrored(), 0.0, limits and -limits[1])
    return None if above is None or below is None else min(1.0, 2 * min(above, below))


def variance_split(scores: Sequence[Sequence[float]]) -> VarianceSplit | None:
    """Split the variance of scores into between tasks and within tasks (one-way random effects by moments,
    Searle, Casella & McCulloch 1992, section 3.6; a negative `between` is 0). `scores` holds each task's
    samples. Assumes independent tasks. None with fewer than two tasks of two samples."""
    rows = [np.asarray(row, dtype=np.float64) for row in scores if len(row) >= 2]
    if len(rows) < 2:
        return None
    within = float(np.average([row.var(ddof=1) for row in rows], weights=[len(row) - 1 for row in rows]))
    noise = within * float(np.mean([1 / len(row) for row in rows]))
    return VarianceSplit(max(0.0, float(np.var([row.mean() for row in rows], ddof=1)) - noise), within)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that keep the chance of any false rejection (Holm 1979). Valid under any dependence."""
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, dtype=np.float64)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return [float(p) for p in adjusted]
