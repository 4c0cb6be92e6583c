"""Inputs as points: their words, weighted by how rare they are (TF-IDF; Salton & Buckley 1988)."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vertigym.traces.ngrams import plain
from vertigym.traces.store import Store, StoredCall

_SAMPLE = 4000
_RARE, _COMMON = 3, 0.6  # a word counts that so many texts have, and at most this share: one topic may be most
F64 = npt.NDArray[np.float64]


def sampled(store: Store, where: str = "true") -> list[StoredCall]:
    """About 4,000 of the rows alive, at even distances."""
    every = max(1, store.count(where=where) // _SAMPLE)
    sql = f"({where}) AND row % {every} = 0"
    return [call for batch in store.calls(sql) for call in batch]


class TfIdf:
    """The words of a sample of texts, at most `most`, with their weights."""

    def __init__(self, texts: Sequence[str], most: int) -> None:
        seen = Counter(word for text in texts for word in set(plain(text).split()))
        limit = max(_RARE, _COMMON * len(texts))
        self.words = [word for word, n in seen.most_common() if _RARE <= n <= limit][:most]
        self._column = {word: i for i, word in enumerate(self.words)}
        self._weight_V = np.log(len(texts) / np.array([seen[word] for word in self.words], np.float64))

    def vectors(self, texts: Sequence[str]) -> F64:
        """Texts as rows of length 1 `[N, V]`; zeros where none of the words is there."""
        made_NV = np.zeros((len(texts), len(self.words)))
        for row, text in zip(made_NV, texts, strict=True):
            for word in plain(text).split():
                if word in self._column:
                    row[self._column[word]] += 1
        made_NV *= self._weight_V
        lengths: Any = np.linalg.norm(made_NV, axis=1, keepdims=True)
        return made_NV / np.where(lengths == 0, 1, lengths)
