"""Task values with what the tasks share, their mean, and its error from the spread between clusters.

The unit is the *task*: its value is the mean over its scored samples. Tasks that share a cluster (a case, a
template, a customer) are not independent, so every error comes from the spread between clusters (Miller 2024,
"Adding Error Bars to Evals", arXiv:2411.00640). Strata are fixed parts of a suite (its environments), and each
keeps its share of the weight. An error from one cluster is None, never 0: nothing was seen of how clusters
differ.

Axes: N tasks, G clusters, S strata.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Labels = Sequence[Hashable] | NDArray[Any] | None


@dataclass(frozen=True, slots=True)
class ClusteredValues:
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
    ) -> "ClusteredValues":
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
    def has_error(self) -> bool:
        """Whether every stratum has two clusters or more, so that an error is defined."""
        return self.clusters > 0 and int(np.bincount(self.stratum_G).min()) >= 2

    def filled(self, value: float | Floats) -> "ClusteredValues":
        """The same tasks with other values: one for all, or one each."""
        return replace(self, value_N=np.broadcast_to(np.asarray(value, dtype=np.float64), self.value_N.shape))

    def mirrored(self) -> "ClusteredValues":
        """With every value's sign turned."""
        return replace(self, value_N=-self.value_N)

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


def mean(values: ClusteredValues) -> float | None:
    """The weighted mean; None of no tasks."""
    if not len(values.value_N):
        return None
    return float(np.average(values.value_N, weights=values.weight_N))


def clustered_se(values: ClusteredValues) -> float | None:
    """Standard error of the weighted mean with clusters as the independent unit.

    Per stratum sqrt(G/(G-1) Σ_g (Σ_{i∈g} w_i (y_i - ȳ))²) / Σ w: the sandwich estimator with the CR1
    correction (Liang & Zeger 1986), what statsmodels calls `cov_type="cluster"`. With clusters of one it is the
    usual s/√N. Assumes that clusters are independent draws. None where a stratum has fewer than two clusters.
    """
    if not values.has_error:
        return None
    G_S = np.bincount(values.stratum_G)
    square_S = np.bincount(values.stratum_G, values.residuals() ** 2)
    return float(np.sqrt((square_S * G_S / (G_S - 1)).sum()))


def _codes(labels: Labels, count: int, *, default: Ints) -> Ints:
    """Labels as integers in order of first appearance; `default` where there are none."""
    if labels is None:
        return default
    if len(labels) != count:
        raise ValueError(f"{len(labels)} labels for {count} values")
    seen: dict[Hashable, int] = {}
    return np.fromiter((seen.setdefault(label, len(seen)) for label in labels), np.int64, count)
