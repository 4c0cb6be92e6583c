"""What users ask, in groups: words weighted by how rare they are (TF-IDF), grouped by k-means on the sphere.

Words and groups are found in a sample of the calls; then every call joins the group whose mean is nearest. A
call that has none of the words is of no topic (-1). Sources: Dhillon & Modha
2001 (spherical k-means); Arthur & Vassilvitskii 2007 (how it begins).
"""

import numpy as np

from vertigym.core.seeds import generator
from vertigym.traces.store import Store
from vertigym.traces.tf_idf import F64, TfIdf, sampled

_WORDS, _ROUNDS, _TRIES = 2000, 20, 4


def find_topics(store: Store, count: int, seed: int) -> list[str]:
    """Fill the table `topics` (row, topic) for the rows alive; the words that name each topic."""
    store.db.execute("CREATE OR REPLACE TABLE topics (row UINTEGER, topic INTEGER)")
    questions = [call.trace.question for call in sampled(store)]
    terms = TfIdf(questions, _WORDS)
    if not terms.words:
        return []
    points_NV = terms.vectors(questions)
    means_KV = _means(points_NV[points_NV.any(axis=1)], count, seed)
    for batch in store.calls():
        vectors_BV = terms.vectors([call.trace.question for call in batch])
        nearest = np.where(vectors_BV.any(axis=1), np.argmax(vectors_BV @ means_KV.T, axis=1), -1)
        store.insert("topics", [(call.row, int(topic)) for call, topic in zip(batch, nearest, strict=True)])
    return [" ".join(terms.words[i] for i in np.argsort(-mean, kind="stable")[:4]) for mean in means_KV]


def _means(points_NV: F64, count: int, seed: int) -> F64:
    """The means of at most `count` groups, `[K, V]`, each of length 1: the best of a few beginnings."""
    dice = generator(seed, "topics")
    found = [_settled(points_NV, _first(points_NV, count, dice)) for _ in range(_TRIES)]
    return max(found, key=lambda means_KV: float((points_NV @ means_KV.T).max(axis=1).sum()))


def _first(points_NV: F64, count: int, dice: np.random.Generator) -> F64:
    """Points to begin with, each far from those before it."""
    chosen = [int(dice.integers(len(points_NV)))]
    while len(chosen) < min(count, len(points_NV)):
        far_N = np.maximum(1 - (points_NV @ points_NV[chosen].T).max(axis=1), 0)
        if far_N.sum() < 1e-9:
            break
        chosen.append(int(dice.choice(len(points_NV), p=far_N / far_N.sum())))
    return points_NV[chosen]


def _settled(points_NV: F64, means_KV: F64) -> F64:
    """The means after each point has joined the nearest one, again and again."""
    for _ in range(_ROUNDS):
        nearest_N = np.argmax(points_NV @ means_KV.T, axis=1)
        sums_KV = np.stack([points_NV[nearest_N == k].sum(axis=0) for k in range(len(means_KV))])
        lengths = np.linalg.norm(sums_KV, axis=1, keepdims=True)
        moved = np.where(lengths > 0, sums_KV / np.where(lengths == 0, 1, lengths), means_KV)
        if np.allclose(moved, means_KV):
            break
        means_KV = moved
    return means_KV
