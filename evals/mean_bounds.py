"""The one test behind every gate: whether a mean is shown to lie above a bound.

The values lie in a known range, and clusters are the independent unit. Gaffke's bound weighs the clusters that
were seen, and one more that was not: as heavy as the heaviest and as bad as the range allows. The weights are
random, standard exponentials; the p-value of "the mean is `bound` or less" is the chance that the weighted sum
of all distances from the bound is not above 0 (Gaffke 2005, "Three test statistics for a nonparametric
one-sided hypothesis on the mean of a nonnegative variable"; Learned-Miller & Thomas 2020, arXiv:1905.06208).
For values of 0 and 1 it is Clopper and Pearson's test, for paired ones McNemar's exact test; for many clusters
it comes near Student's. That it never errs more often than it says is proven for two-valued data and a
conjecture beyond, without a known counterexample; `benchmarks/gates.py` holds it to cells made to break it.

The chance is computed, not drawn: a decision has no luck of its own.

Axes: G clusters, K distinct distances, Y points of an integral.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from vertigym.evals.clustered import ClusteredValues, clustered_se, mean

Floats = NDArray[np.float64]
Range = tuple[float, float]
"""What a value can be at least and at most."""


def p_above(values: ClusteredValues, bound: float, least: float | None) -> float | None:
    """p-value of "the true mean is `bound` or less", values being `least` or more. None of no tasks.

    Without `least` nothing holds whatever the values (Bahadur & Savage 1956): then it is Student's t with
    clustered errors, an approximation, and None with fewer than two clusters.
    """
    if not values.clusters:
        return None
    if least is None:
        return _student(values, bound)
    sum_G, weight_G = values.totals()
    distance = np.append(sum_G - weight_G * bound, weight_G.max() * (least - bound))
    scaled = np.round(distance / weight_G.max(), 12)  # equal ones are one, and 0 is 0
    return chance_not_above_0(*np.unique(scaled, return_counts=True))


def interval(values: ClusteredValues, limits: Range | None, confidence: float) -> tuple[float, float] | None:
    """Every mean that neither side's test rejects at half of 1 - `confidence`; None as for `p_above`."""
    low = _end(values, limits, (1 - confidence) / 2)
    high = _end(values.mirrored(), limits and (-limits[1], -limits[0]), (1 - confidence) / 2)
    return None if low is None or high is None else (low, -high)


def least_clusters(bound: float, limits: Range, error: float, best: float | None = None) -> int:
    """How many clusters of one weight it takes to show a mean above `bound`, if each has the value `best` (by
    default the best there is); 0 where none suffices. The p-value is ((bound - least) / (best - least))^G."""
    least, most = limits
    best = most if best is None else best
    if best <= bound:
        return 0
    share = (bound - least) / (best - least)
    return 1 if share <= 0 else math.ceil(math.log(error) / math.log(share) - 1e-9)


def chance_not_above_0(part_K: Floats, count_K: NDArray[np.int64]) -> float:
    """P(Σ part · gamma(count) ≤ 0), gammas being independent.

    The inversion integral of the moment generating function Π (1 + s part)^-count / s, along the vertical line
    through its saddle point (Rice 1980, SIAM J. Sci. Stat. Comput. 1:438); the step is halved until nothing
    changes.
    """
    if not (part_K > 0).any():
        return 1.0
    if not (part_K < 0).any():
        return 0.0
    if part_K @ count_K < 0:
        return 1 - chance_not_above_0(-part_K, count_K)
    centre, width = _saddle(part_K, count_K)
    step, last = 0.2, _reach(part_K, count_K, centre, width)

    def mean_over(offset: float) -> float:
        """The integral by steps that begin at `offset` of a step."""
        u_Y = np.arange(offset, last / step) * step
        value_Y = _integrand(part_K, count_K, centre, width, u_Y)
        return step * width / math.pi * (float(value_Y.sum()) - (value_Y[0] / 2 if offset == 0 else 0.0))

    found, before = mean_over(0.0), math.inf
    while abs(found - before) > 1e-7 * abs(found) and step > 1e-3:
        found, before = (found + mean_over(0.5)) / 2, found
        step /= 2
    return min(1.0, max(0.0, found))


def _saddle(part_K: Floats, count_K: NDArray[np.int64]) -> tuple[float, float]:
    """Where the integrand is least on the real line, and the width of its bell across it."""
    low, high = 0.0, -1 / part_K.min()
    for _ in range(50):
        centre = (low + high) / 2
        rising = (count_K * part_K / (1 + centre * part_K)).sum() + 1 / centre < 0
        low, high = (low, centre) if rising else (centre, high)
    curve = (count_K * (part_K / (1 + centre * part_K)) ** 2).sum() + 1 / centre**2
    return centre, 1 / math.sqrt(curve)


def _reach(part_K: Floats, count_K: NDArray[np.int64], centre: float, width: float) -> float:
    """The u beyond which the integrand does not count."""
    u_Y = np.arange(1.0, 60.0)
    size_Y = np.abs(1 + (centre + 1j * width * np.sinh(u_Y))[:, None] * part_K)
    log_Y = -np.log(size_Y) @ count_K
    return float(u_Y[np.argmax(log_Y < log_Y[0] - 35)])


def _integrand(part_K: Floats, count_K: NDArray[np.int64], centre: float, width: float, u_Y: Floats) -> Floats:
    """The real part at y = width · sinh(u), in real numbers only, which is four times as fast."""
    y_Y = width * np.sinh(u_Y)
    real_K, imag_YK = 1 + centre * part_K, y_Y[:, None] * part_K
    log_Y = -0.5 * np.log(real_K**2 + imag_YK**2) @ count_K - 0.5 * np.log(centre**2 + y_Y**2)
    turn_Y = -np.arctan(imag_YK / real_K) @ count_K - np.arctan2(y_Y, centre)
    return np.exp(log_Y) * np.cos(turn_Y) * np.cosh(u_Y)


def _end(values: ClusteredValues, limits: Range | None, error: float) -> float | None:
    """The lower end of an interval."""
    centre = mean(values)
    if centre is None:
        return None
    if limits is None:
        se = clustered_se(values)
        return None if se is None else centre - se * float(stats.t.isf(error, values.clusters - 1))
    least = limits[0]
    if centre <= least:
        return least

    def surplus(bound: float) -> float:
        found = p_above(values, bound, least)
        assert found is not None
        return found - error

    return float(optimize.brentq(surplus, least, centre, xtol=1e-7))


def _student(values: ClusteredValues, bound: float) -> float | None:
    centre, se = mean(values), clustered_se(values)
    if centre is None or se is None:
        return None
    if se == 0:
        return 0.0 if centre > bound else 1.0
    return float(stats.t.sf((centre - bound) / se, values.clusters - 1))
