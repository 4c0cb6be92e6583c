"""Stop a comparison early when the answer is clear, without spending more error than was allowed.

The plan fixes the looks beforehand. An error-spending function (Lan & DeMets 1983, Biometrika 70:659; the
O'Brien-Fleming shape) says how much of the error may be used up to each look, and numerical integration of the
joint distribution of the looks (Armitage, McPherson & Rowe 1969, JRSS A 132:235) turns that into a bound on z.
A look compares the p-value of `mean_bounds` with the tail area of its bound. Looks at nothing gained are free:
stopping for futility only ever lowers the chance of promoting.

Assumes that looks add whole clusters in random order, so that evidence grows like a Brownian motion.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from vertigym.evals.clustered import ClusteredValues
from vertigym.evals.mean_bounds import Range
from vertigym.evals.statistics import difference_of

Verdict = Literal["better", "worse", "futile", "go on"]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Plan:
    """Looks as shares of all clusters, and the bound on |z| at each. `futility`: below this chance of still
    showing `target` (a true difference), stop."""

    shares: tuple[float, ...]
    bounds: tuple[float, ...]
    confidence: float
    target: float
    futility: float


@dataclass(frozen=True, slots=True)
class Look:
    """What one look showed. `low` and `high` are a repeated confidence interval, valid at every look
    (Jennison & Turnbull 1989, JRSS B 51:305)."""

    verdict: Verdict
    share: float
    difference: float | None
    z: float | None
    bound: float
    low: float | None
    high: float | None


def plan(looks: int = 5, confidence: float = 0.95, *, target: float = 0.05, futility: float = 0.2) -> Plan:
    """Equally spaced looks with O'Brien-Fleming-like spending on each side.

    Raises:
        ValueError: no looks, or a confidence or target outside its range.
    """
    if looks < 1 or not 0.5 < confidence < 1 or target <= 0 or not 0 <= futility < 1:
        raise ValueError("a plan needs looks >= 1, 0.5 < confidence < 1, target > 0 and 0 <= futility < 1")
    shares = tuple((i + 1) / looks for i in range(looks))
    return Plan(shares, tuple(spending_bounds(shares, (1 - confidence) / 2)), confidence, target, futility)


def spent(share: float, error: float) -> float:
    """One-sided error that may be used up to `share`: 2 - 2Φ(z_{error/2}/√share)."""
    return float(2 * stats.norm.sf(stats.norm.isf(error / 2) / math.sqrt(share)))


def spending_bounds(shares: Sequence[float], error: float) -> list[float]:
    """Upper bounds on z, one a look, whose crossing has chance `error` in all under no difference."""
    bounds: list[float] = []
    grid, density, before = np.zeros(1), np.ones(1), 0.0
    used = 0.0
    for share in shares:
        step = math.sqrt(share - before)
        allowed = spent(share, error) - used
        edge = _edge(grid, density, step, allowed)
        bounds.append(edge / math.sqrt(share))
        used += allowed
        fresh = np.linspace(-8 * math.sqrt(share), edge, 1200)
        density = _advance(grid, density, fresh, step)
        grid, before = fresh, share
    return bounds


def look(plan: Plan, index: int, values: ClusteredValues, limits: Range | None = (0.0, 1.0)) -> Look:
    """Judge the paired differences seen by look `index`. The last look always decides. `limits` is what a
    task's score can be."""
    share, bound = plan.shares[index], plan.bounds[index]
    width = limits[1] - limits[0] if limits else 1.0
    error = float(stats.norm.sf(bound))
    found = difference_of(values, (-width, width) if limits else None, 1 - 2 * error)
    if found.mean is None or found.low is None or found.high is None:
        return Look("futile" if share == 1 else "go on", share, found.mean, None, bound, None, None)
    se = max(found.se or 0.0, width / (found.clusters + 2))
    z = found.mean / se
    verdict: Verdict = "go on"
    if found.low > 0:
        verdict = "better"
    elif found.high < 0:
        verdict = "worse"
    elif share == 1 or conditional_power(plan, index, z, plan.target / se) < plan.futility:
        verdict = "futile"
    return Look(verdict, share, found.mean, z, bound, found.low, found.high)


def conditional_power(plan: Plan, index: int, z: float, drift: float) -> float:
    """Chance that the last look crosses its bound, given `z` now and a true difference of `drift` standard
    errors of this look (Lan, Simon & Halperin 1982, Seq. Anal. 1:207)."""
    share = plan.shares[index]
    if share == 1:
        return float(z >= plan.bounds[-1])
    still = 1 - share
    at_end = z * math.sqrt(share) + drift / math.sqrt(share) * still
    return float(stats.norm.sf((plan.bounds[-1] - at_end) / math.sqrt(still)))


def _edge(grid: Floats, density: Floats, step: float, allowed: float) -> float:
    """The level that the process exceeds after `step` with chance `allowed`, having stayed below before."""

    def surplus(level: float) -> float:
        return _integral(density * stats.norm.sf((level - grid) / step), grid) - allowed

    return float(optimize.brentq(surplus, -10.0, 12.0))


def _advance(grid: Floats, density: Floats, fresh: Floats, step: float) -> Floats:
    """Density at `fresh` after a normal step from `grid`."""
    kernel = stats.norm.pdf((fresh[:, None] - grid[None, :]) / step) / step
    return np.array([_integral(row * density, grid) for row in kernel])


def _integral(values: Floats, grid: Floats) -> float:
    """Trapezoid rule; a single point is a point mass (the start)."""
    return float(values[0]) if len(grid) == 1 else float(np.trapezoid(values, grid))
