"""The verifier of a query rewriter: what does retrieval find with the rewrite that it did not find without?

Paid is the *gain* over the raw query: repeating the query earns nothing, and a rewrite that finds all there was
left to find earns 1. Each word counts once, and a rewrite longer than `max_words` earns nothing, so stuffing it
with keywords finds whatever is about everything, which is nothing. Retrieval is BM25 (Robertson & Zaragoza
2009) by the package bm25s.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vertigym.core.errors import DataError, MissingDependencyError
from vertigym.core.types import Score
from vertigym.rewards.calling import RewardFunction, bounded

_TERMS = re.compile(r"\w+")
_DEPTH = 10  # places that the reciprocal rank looks at


class Library:
    """Documents by id, and a BM25 index over them.

    Raises:
        DataError: there is none, or none has a word. MissingDependencyError: `bm25s` is not installed.
    """

    def __init__(self, documents: Mapping[str, str]) -> None:
        try:
            import bm25s
        except ImportError:
            raise MissingDependencyError(
                "bm25s", "retrieval", "finding documents for a rewritten query"
            ) from None
        self.documents = dict(documents)
        self._ids = list(self.documents)
        corpus = [terms(text) for text in self.documents.values()]
        if not any(corpus):
            raise DataError("no document has a word in it: retrieval needs documents")
        self._index = bm25s.BM25()
        self._index.index(corpus, show_progress=False)
        self._known = set(self._index.vocab_dict)
        counts: dict[str, int] = {}
        for listed in corpus:
            for term in set(listed):
                counts[term] = counts.get(term, 0) + 1
        self._counts = counts

    def __contains__(self, document: str) -> bool:
        return document in self.documents

    def find(self, query: str, k: int) -> list[str]:
        """The ids of the `k` best documents, best first; those that share no word with the query are not found.
        Equal scores stay in the documents' order."""
        asked = [term for term in dict.fromkeys(terms(query)) if term in self._known]
        if not asked:
            return []
        scores = self._index.get_scores(asked)
        best = np.argsort(-scores, kind="stable")[:k]
        return [self._ids[i] for i in best if scores[i] > 0]

    def telling(self, document: str, most: int) -> str:
        """The document's `most` rarest words, in its order: the query that should find it, if any does."""
        own = list(dict.fromkeys(terms(self.documents[document])))
        rare = sorted(own, key=lambda term: self._counts[term])[:most]
        return " ".join(term for term in own if term in rare)


def terms(text: str) -> list[str]:
    """The words of a text as the index sees them."""
    return _TERMS.findall(text.casefold())


def found(library: Library, query: str, relevant: Sequence[str], k: int) -> tuple[float, float]:
    """(recall@k, reciprocal rank of the first relevant document among the first ten)."""
    ranked = library.find(query, max(k, _DEPTH))
    hits = sum(document in ranked[:k] for document in relevant)
    rank = next((place for place, document in enumerate(ranked, 1) if document in relevant), None)
    return hits / min(k, len(relevant)), 1 / rank if rank else 0.0


def retrieval(
    library: Library, *, k: int = 5, mrr: float = 0.5, max_words: int = 16, gain: bool = True
) -> RewardFunction:
    """What the rewrite finds: `(1 - mrr) · recall@k + mrr · reciprocal rank`, as the share of what the raw
    query (`info["query"]`) left to gain; with `gain` off, as it is. `info["relevant"]` names the documents.

    Parts: `recall`, `mrr`, and the raw query's `raw_recall`, `raw_mrr`.
    """

    @bounded
    def retrieval(completion: str, info: dict[str, Any]) -> Score:
        wanted = [document for document in info["relevant"] if document in library]
        if not wanted:
            return Score.unscored(f"none of the relevant documents {info['relevant']} is in the library")
        raw_recall, raw_rank = found(library, info["query"], wanted, k)
        asked = terms(completion[: 50 * max_words])
        fits = len(asked) <= max_words and len(completion) <= 50 * max_words
        recall, rank = found(library, completion, wanted, k) if fits else (0.0, 0.0)
        value, before = (1 - mrr) * recall + mrr * rank, (1 - mrr) * raw_recall + mrr * raw_rank
        if gain and before < 1:
            value = max(0.0, (value - before) / (1 - before))
        parts = {"recall": recall, "mrr": rank, "raw_recall": raw_recall, "raw_mrr": raw_rank}
        return Score(value, parts, {} if fits else {"reason": f"more than {max_words} words"})

    return retrieval
