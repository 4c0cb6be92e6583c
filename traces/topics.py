"""What users ask, in groups: words weighted by how rare they are (TF-IDF), grouped by k-means on the sphere.

Words and groups are found in a sample of the calls; then every call joins the group whose mean is nearest. A
call that has none of the words is of no topic (-1). Sources: Salton & Buckley 1988 (TF-IDF); Dhillon & Modha
2001 (spherical k-means); Arthur & Vassilvitskii 2007 (how it begins).
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vertigym.core.seeds import generator
from vertigym.traces.ngrams import plain
from vertigym.traces.store import Store

_SAMPLE, _WORDS, _ROUNDS, _TRIES = 4000, 2000, 20, 4
_RARE, _COMMON = (
    3,
    0.6,
)  # a word counts that so many inputs have, and at most this share: one topic may be most of a log
F64 = npt.NDArray[np.float64]


def find_topics(store: Store, count: int, seed: int) -> list[str]:
    """Fill the table `topics` (row, topic) for the rows alive; the words that name each topic."""
    store.db.execute("CREATE OR REPLACE TABLE topics (row UINTEGER, topic INTEGER)")
    every = max(1, store.count() // _SAMPLE)
    sample = [_words(call.trace.question) for batch in store.calls(f"row % {every} = 0") for call in batch]
    seen = Counter(word for words in sample for word in set(words))
    kept = [word for word, n in seen.most_common() if _RARE <= n <= max(_RARE, _COMMON * len(sample))][:_WORDS]
    if not kept:
        return []
    column = {word: i for i, word in enumerate(kept)}
    weight_V = np.log(len(sample) / np.array([seen[word] for word in kept], np.float64))
    points_NV = _vectors(sample, column, weight_V)
    means_KV = _means(points_NV[points_NV.any(axis=1)], count, seed)
    for batch in store.calls():
        vectors = _vectors([_words(call.trace.question) for call in batch], column, weight_V)
        nearest = np.where(vectors.any(axis=1), np.argmax(vectors @ means_KV.T, axis=1), -1)
        store.insert("topics", [(call.row, int(topic)) for call, topic in zip(batch, nearest, strict=True)])
    return [" ".join(kept[i] for i in np.argsort(-mean, kind="stable")[:4]) for mean in means_KV]


def _words(text: str) -> list[str]:
    return plain(text).split()


def _vectors(texts: Sequence[list[str]], column: dict[str, int], weight_V: F64) -> F64:
    """Texts as rows of length 1 `[N, V]`; zeros where none of the words is there."""
    made = np.zeros((len(texts), len(column)))
    for row, words in zip(made, texts, strict=True):
        for word in words:
            if word in column:
                row[column[word]] += 1
    made *= weight_V
    lengths: Any = np.linalg.norm(made, axis=1, keepdims=True)
    return made / np.where(lengths == 0, 1, lengths)


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
