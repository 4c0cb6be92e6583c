"""How many labels are wrong: confident learning (Northcutt, Jiang & Chuang 2021) over a sample of the calls.

Each call gets the probability of every label from a model of the words of its input that has not seen the
call: ridge regression on TF-IDF, whose answers without a call follow from one inverse (Allen 1974). A label's
threshold is the mean probability of that label among the calls that carry it. A call whose label is i and that
reaches the threshold of j (of several, the most probable) is counted as truly j: C[i, j]. The rows of C are
scaled to the calls of each label; the share off the diagonal is the noise. As many calls as it stands for, with
the largest margin for another label, are suspects: for people to read, not to drop unseen.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vertigym.traces.store import Store, class_of
from vertigym.traces.tf_idf import F64, TfIdf, sampled

_RIDGE = 1.0
_FEWEST = 20  # calls of a label; with fewer, nothing can be said of it
_LABELS, _WORDS = 200, 1000

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Suspect:
    """A call whose label the others contradict: its row, its label, the one that they would give, and how much
    more probable that is."""

    row: int
    label: str
    rather: str
    margin: float


@dataclass(frozen=True, slots=True)
class LabelNoise:
    """The estimated share of wrong labels among `calls` sampled ones, and the suspects, the clearest first."""

    share: float
    calls: int
    suspects: tuple[Suspect, ...]


def label_noise(store: Store) -> LabelNoise | None:
    """The noise of the labels of the rows alive; None where fewer than two labels have calls enough, or so many
    that they are no classes."""
    calls = sampled(store, "label IS NOT NULL")
    seen = Counter(class_of(call.trace) for call in calls)
    names = sorted(name for name, n in seen.items() if n >= _FEWEST)
    if not 2 <= len(names) <= _LABELS:
        return None
    calls = [call for call in calls if seen[class_of(call.trace)] >= _FEWEST]
    questions = [call.trace.question for call in calls]
    given_N = np.array([names.index(class_of(call.trace)) for call in calls])
    probability_NK = unseen_probabilities(TfIdf(questions, _WORDS).vectors(questions), given_N, len(names))
    share = noise_share(confident_joint(given_N, probability_NK), given_N)
    suspects = tuple(
        Suspect(calls[i].row, names[given_N[i]], names[other], margin)
        for i, other, margin in contradicted(given_N, probability_NK, share)
    )
    return LabelNoise(share, len(calls), suspects)


def unseen_probabilities(points_NV: F64, given_N: I64, labels: int) -> F64:
    """For each point the probabilities of the labels `[N, K]` by ridge regression on all the others."""
    x_NV, target_NK = np.hstack([points_NV, np.ones((len(points_NV), 1))]), np.eye(labels)[given_N]
    solved_NV = np.linalg.solve(x_NV.T @ x_NV + _RIDGE * np.eye(x_NV.shape[1]), x_NV.T).T
    fitted_NK = x_NV @ (solved_NV.T @ target_NK)
    own_N1 = (solved_NV * x_NV).sum(axis=1, keepdims=True)
    unseen_NK = np.clip((fitted_NK - own_N1 * target_NK) / (1 - own_N1), 1e-6, 1.0)
    made: F64 = unseen_NK / unseen_NK.sum(axis=1, keepdims=True)
    return made


def confident_joint(given_N: I64, probability_NK: F64) -> I64:
    """C `[K, K]`: the calls by the label given and the label that they are confidently counted as."""
    labels = probability_NK.shape[1]
    threshold_K = np.array([probability_NK[given_N == k, k].mean() for k in range(labels)])
    reached_NK = probability_NK >= threshold_K - 1e-6
    sure_N = reached_NK.any(axis=1)
    counted_N = np.argmax(np.where(reached_NK, probability_NK, -1), axis=1)
    counts_KK = np.zeros((labels, labels), np.int64)
    np.add.at(counts_KK, (given_N[sure_N], counted_N[sure_N]), 1)
    return counts_KK


def contradicted(given_N: I64, probability_NK: F64, share: float) -> list[tuple[int, int, float]]:
    """The share of the calls whose label has the largest margin against it: which call, which other label, the
    margin."""
    at = np.arange(len(given_N))
    others_NK = probability_NK.copy()
    others_NK[at, given_N] = -1
    other_N = np.argmax(others_NK, axis=1)
    margin_N = probability_NK[at, other_N] - probability_NK[at, given_N]
    first = np.argsort(-margin_N, kind="stable")[: round(share * len(given_N))]
    return [(int(i), int(other_N[i]), round(float(margin_N[i]), 3)) for i in first if margin_N[i] > 0]


def noise_share(counts_KK: I64, given_N: I64) -> float:
    """The share off the diagonal, once each row is scaled to the calls that carry its label."""
    sizes_K = np.bincount(given_N, minlength=len(counts_KK))
    right_K = np.diag(counts_KK) / np.maximum(counts_KK.sum(axis=1), 1)
    right_K = np.where(counts_KK.sum(axis=1) > 0, right_K, 1.0)
    return round(float(1 - (right_K * sizes_K).sum() / sizes_K.sum()), 6)
