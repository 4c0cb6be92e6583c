"""Estimates from eval scores, each with its source, its assumptions, and None where it is undefined.

The unit is the *task*: its value is the mean over its scored samples. Tasks that share a cluster (a rule, a
template, a customer) are not independent, so every error here comes from the spread between clusters
(Miller 2024, "Adding Error Bars to Evals", arXiv:2411.00640). Strata are fixed parts of a suite (its
environments): clusters are resampled within them, and each keeps its share of the weight. An error from one
cluster is None, never 0: nothing was seen of how clusters differ.

Axes: N tasks, G clusters, S strata, B resamples.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Labels = Sequence[Hashable] | NDArray[Any] | None
RESAMPLES = 2000
FEW = 20  # clusters that differ, up to which a bootstrap needs a second opinion
CHUNK = 4_000_000  # numbers drawn at once, about 32 MB


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


@dataclass(frozen=True, slots=True)
class Sample:
    """Task values with what they share. `cluster_N` are codes 0…G-1, each within one stratum of `stratum_G`;
    `share_S` is a stratum's part of the whole weight."""

    value_N: Floats
    weight_N: Floats
    cluster_N: Ints
    stratum_G: Ints
    share_S: Floats

    @classmethod
    def of(
        cls,
        values: ArrayLike,
        clusters: Labels = None,
        weights: ArrayLike | None = None,
        strata: Labels = None,
    ) -> "Sample":
        """Lay out values for the estimates below. Without `clusters` every task is its own; weights are per
        task and default to 1.

        Raises:
            ValueError: lengths differ, a value is not finite, or a weight is not positive.
        """
        value_N = np.asarray(values, dtype=np.float64)
        weight_N = np.ones(len(value_N)) if weights is None else np.asarray(weights, dtype=np.float64)
        stratum_N = _codes(strata, len(value_N), default=np.zeros(len(value_N), np.int64))
        cluster_N = _codes(clusters, len(value_N), default=np.arange(len(value_N)))
        if not len(value_N) == len(weight_N) == len(stratum_N) == len(cluster_N):
            raise ValueError("values, clusters, weights and strata must have one length")
        if not np.isfinite(value_N).all() or not (weight_N > 0).all():
            raise ValueError("values must be finite and weights positive; leave out tasks that have no score")
        pairs, cluster_N = np.unique(np.stack([stratum_N, cluster_N]), axis=1, return_inverse=True)
        share_S = np.bincount(stratum_N, weight_N)
        return cls(value_N, weight_N, cluster_N.ravel(), pairs[0], share_S / share_S.sum())

    @property
    def clusters(self) -> int:
        """G."""
        return len(self.stratum_G)

    @property
    def free(self) -> int:
        """Degrees of freedom: clusters less strata."""
        return self.clusters - len(self.share_S)

    @property
    def has_error(self) -> bool:
        """Whether every stratum has two clusters or more, so that an error is defined."""
        return self.clusters > 0 and int(np.bincount(self.stratum_G).min()) >= 2

    def totals(self) -> tuple[Floats, Floats]:
        """Weighted sum of values and sum of weights, per cluster: (G,), (G,)."""
        sum_G = np.bincount(self.cluster_N, self.weight_N * self.value_N, minlength=self.clusters)
        weight_G = np.bincount(self.cluster_N, self.weight_N, minlength=self.clusters)
        return sum_G.astype(np.float64), weight_G.astype(np.float64)

    def residuals(self) -> Floats:
        """What each cluster adds to the error of the mean, (G,): its weighted deviation from its stratum's
        mean, scaled so that the mean's error is their sum."""
        sum_G, weight_G = self.totals()
        sum_S, weight_S = np.bincount(self.stratum_G, sum_G), np.bincount(self.stratum_G, weight_G)
        deviation_G = sum_G - weight_G * (sum_S / weight_S)[self.stratum_G]
        return deviation_G * (self.share_S / weight_S)[self.stratum_G]


def mean(sample: Sample) -> float | None:
    """The weighted mean; None of no tasks."""
    if not len(sample.value_N):
        return None
    return float(np.average(sample.value_N, weights=sample.weight_N))


def clustered_se(sample: Sample) -> float | None:
    """Standard error of the weighted mean with clusters as the independent unit.

    Per stratum sqrt(G/(G-1) Σ_g (Σ_{i∈g} w_i (y_i - ȳ))²) / Σ w: the sandwich estimator with the CR1
    correction (Liang & Zeger 1986), what statsmodels calls `cov_type="cluster"`. With clusters of one it is the
    usual s/√N. Assumes that clusters are independent draws. None where a stratum has fewer than two clusters.
    """
    if not sample.has_error:
        return None
    G_S = np.bincount(sample.stratum_G)
    square_S = np.bincount(sample.stratum_G, sample.residuals() ** 2)
    return float(np.sqrt((square_S * G_S / (G_S - 1)).sum()))


def wilson(successes: float, trials: float, confidence: float = 0.95) -> tuple[float, float] | None:
    """Score interval of a proportion (Wilson 1927). Assumes independent 0/1 trials. None of no trials."""
    if trials <= 0:
        return None
    z = float(stats.norm.isf((1 - confidence) / 2))
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def bootstrap_means(sample: Sample, rng: np.random.Generator, resamples: int = RESAMPLES) -> Floats:
    """Means of `resamples` suites made by drawing whole clusters with replacement within each stratum, (B,)
    (Davison & Hinkley 1997, section 3.8)."""
    sum_G, weight_G = sample.totals()
    mean_B = np.zeros(resamples)
    for stratum, share in enumerate(sample.share_S):
        own = sample.stratum_G == stratum
        mean_B += share * _ratio_resamples(sum_G[own], weight_G[own], rng, resamples)
    return mean_B


def bootstrap_interval(
    sample: Sample,
    rng: np.random.Generator,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    kernel: float = 0.0,
) -> tuple[float, float] | None:
    """Clustered bootstrap interval of the mean: percentiles, taken further out to undo the bootstrap's
    narrowness in small samples ("expanded percentile", Hesterberg 2015, arXiv:1411.5279, section 4.5).

    `kernel`: width of the normal kernel that smooths the resampled means without widening them (Silverman &
    Young 1987, Biometrika 74:469); the interval is never narrower than the kernel's own. Assumes that clusters
    are independent draws. None where a stratum has fewer than two clusters.
    """
    se = clustered_se(sample)
    if se is None:
        return None
    mean_B = bootstrap_means(sample, rng, resamples)
    if kernel > 0:
        centre, shrink = mean_B.mean(), math.sqrt(max(0.0, 1 - (kernel / se) ** 2)) if se else 0.0
        mean_B = centre + shrink * (mean_B - centre) + kernel * rng.standard_normal(resamples)
    tail = expanded_tail((1 - confidence) / 2, sample.free)
    low, high = np.quantile(mean_B, [tail, 1 - tail])
    return float(low), float(high)


def expanded_tail(tail: float, free: int) -> float:
    """The percentile to read so that a bootstrap interval is as wide as a t interval with `free` degrees of
    freedom: Φ(-√((ν+1)/ν) · t_ν)."""
    return float(stats.norm.cdf(-np.sqrt((free + 1) / free) * stats.t.isf(tail, free)))


def estimate(
    sample: Sample, rng: np.random.Generator, confidence: float = 0.95, *, share: bool = True
) -> Estimate:
    """Mean, clustered error and the interval that fits: Wilson for independent 0/1 values, otherwise the
    clustered bootstrap. Where every 0/1 value is the same, the bootstrap would claim certainty; Wilson over the
    clusters does not. `share` says that values of 0 and 1 are failures and successes, not counts or seconds."""
    centre, se = mean(sample), clustered_se(sample)
    binary = share and bool(np.isin(sample.value_N, (0.0, 1.0)).all())
    alike = len(np.unique(sample.value_N)) <= 1
    single = sample.clusters == len(sample.value_N) and len(np.unique(sample.weight_N)) <= 1
    bounds: tuple[float, float] | None
    if centre is None or not sample.has_error:
        bounds, method = None, ""
    elif binary and (alike or single):
        bounds, method = wilson(centre * sample.clusters, sample.clusters, confidence), "wilson"
    else:
        bounds, method = bootstrap_interval(sample, rng, confidence), "clustered bootstrap"
    low, high = bounds or (None, None)
    return Estimate(
        centre, se, low, high, len(sample.value_N), sample.clusters, confidence, method if bounds else ""
    )


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    rng: np.random.Generator,
    *,
    clusters: Labels = None,
    weights: ArrayLike | None = None,
    strata: Labels = None,
    confidence: float = 0.95,
    unit: float = 1.0,
    resamples: int = RESAMPLES,
) -> Difference:
    """First minus second, task by task: clustered bootstrap interval and sign-flip p-value.

    `unit` is the largest difference one task can show (1 for scores in [0, 1]). The bootstrap is smoothed with
    the error that half a win and half a loss more would give, unit/(N+2) (Agresti & Min 2005, Stat. Med.
    24:729): two models that agree on every task of a small suite would otherwise get an interval of width 0,
    and 0/1 scores one whose ends jump from task to task. None where a stratum has fewer than two clusters.
    """
    delta_N = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    sample = Sample.of(delta_N, clusters, weights, strata)
    kernel = unit / (len(delta_N) + 2)
    bounds = bootstrap_interval(sample, rng, confidence, resamples, kernel)
    low, high = (max(bounds[0], -unit), min(bounds[1], unit)) if bounds else (None, None)
    return Difference(
        mean=mean(sample),
        se=clustered_se(sample),
        low=low,
        high=high,
        p=sign_flip(sample, rng),
        tasks=len(delta_N),
        clusters=sample.clusters,
        wins=int((delta_N > 0).sum()),
        ties=int((delta_N == 0).sum()),
        losses=int((delta_N < 0).sum()),
        differing=int((sample.totals()[0] != 0).sum()),
        confidence=confidence,
    )


def sign_flip(
    sample: Sample, rng: np.random.Generator, flips: int = 3999, exact_up_to: int = 12
) -> float | None:
    """Two-sided p-value for "the two sides are exchangeable": the sign of each cluster's total difference is
    flipped at random (Fisher's randomisation test). With clusters of one task and 0/1 scores it is the exact
    McNemar test. All 2^k flips of k totals that are not 0 are tried for small k, else `flips` random ones.
    None where a stratum has fewer than two clusters.
    """
    if not sample.has_error:
        return None
    sum_G, weight_G = sample.totals()
    scale_S = sample.share_S / np.bincount(sample.stratum_G, weight_G)
    total_K = (sum_G * scale_S[sample.stratum_G])[sum_G != 0]
    # A tie must count as a tie in floating point too.
    observed = abs(total_K.sum()) - 1e-9 * np.abs(total_K).sum()
    if len(total_K) <= exact_up_to:
        bits = np.arange(2 ** len(total_K))[:, None] >> np.arange(len(total_K)) & 1
        return float((np.abs((1 - 2 * bits) @ total_K) >= observed).mean())
    reached = 0
    for size in _chunks(flips, len(total_K)):
        signs = rng.integers(0, 2, (size, len(total_K)), dtype=np.int8) * 2 - 1
        reached += int((np.abs(signs @ total_K) >= observed).sum())
    return (reached + 1) / (flips + 1)


def mcnemar(first: ArrayLike, second: ArrayLike) -> float:
    """Exact two-sided McNemar test of two 0/1 results on the same tasks (McNemar 1947): binomial on the tasks
    where they differ; 1 where they never do. Assumes independent tasks.

    Raises:
        ValueError: a value is neither 0 nor 1.
    """
    a_N, b_N = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if not np.isin(np.concatenate([a_N, b_N]), (0.0, 1.0)).all():
        raise ValueError("McNemar's test needs values of 0 and 1")
    wins, losses = int((a_N > b_N).sum()), int((a_N < b_N).sum())
    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def one_sided_p(difference: Difference, bound: float) -> float | None:
    """p-value for "the true difference is `bound` or less", from the mean and its error by Student's t with
    G-1 degrees of freedom. None where the error is undefined; without any spread, 0 or 1."""
    if difference.mean is None or difference.se is None:
        return None
    gap = difference.mean - bound
    if difference.se == 0:
        return 0.0 if gap > 0 else 1.0
    return float(stats.t.sf(gap / difference.se, difference.clusters - 1))


def shown_better(difference: Difference, margin: float = 0.0) -> bool:
    """Whether the first is better by more than `margin`: the interval lies above it. Where the two differ in
    only a few clusters, the bootstrap is too sure of itself (four wins without a loss look certain to it), and
    the sign-flip test has to agree. Errs in at most half of 1 - confidence. An undefined interval shows
    nothing."""
    if difference.low is None or difference.p is None:
        return False
    trusted = difference.differing > FEW or difference.p <= 1 - difference.confidence
    return difference.low > margin and trusted


def non_inferior(difference: Difference, margin: float) -> bool:
    """Whether the first is not worse than the second by `margin` or more: the interval's lower end lies above
    -margin, a one-sided test at half the error (ICH E9, section 3.3.2). An undefined interval shows nothing."""
    return difference.low is not None and difference.low > -margin


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


def _codes(labels: Labels, count: int, *, default: Ints) -> Ints:
    """Labels as integers in order of first appearance; `default` where there are none."""
    if labels is None:
        return default
    if len(labels) != count:
        raise ValueError(f"{len(labels)} labels for {count} values")
    seen: dict[Hashable, int] = {}
    return np.fromiter((seen.setdefault(label, len(seen)) for label in labels), np.int64, count)


def _ratio_resamples(sum_G: Floats, weight_G: Floats, rng: np.random.Generator, resamples: int) -> Floats:
    """Σ sum / Σ weight over G clusters drawn with replacement, `resamples` times."""
    parts = []
    for size in _chunks(resamples, len(sum_G)):
        drawn = rng.integers(0, len(sum_G), (size, len(sum_G)))
        parts.append(sum_G[drawn].sum(axis=1) / weight_G[drawn].sum(axis=1))
    return np.concatenate(parts)


def _chunks(rows: int, columns: int) -> list[int]:
    """Split `rows` so that a chunk holds at most CHUNK numbers."""
    size = max(1, CHUNK // max(1, columns))
    return [min(size, rows - start) for start in range(0, rows, size)]
