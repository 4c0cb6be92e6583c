"""Near-duplicates, exactly: texts whose sets of word triples overlap by at least a threshold.

Two sets that overlap that much share one of the rarest triples of each, so only texts that do are compared
(prefix filtering: Chaudhuri et al. 2006, "A primitive operator for similarity joins"). Triples found in more
than a tenth of all texts are a template's, not the task's own, and are left out; where little else is left
(`own_share`), the method says nothing.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import combinations, pairwise
from math import ceil

import numpy as np

from vertigym.traces.ngrams import U64, among, distinct, overlap, windows

_TRIPLE = 3
_WORDS = re.compile(r"\w+|[^\w\s]")
_CROWD = 50  # texts that share a triple; more is a template, not a set of duplicates


def near_duplicates(texts: Sequence[str], threshold: float) -> list[tuple[int, int, float]]:
    """Pairs (i, j, Jaccard overlap) with an overlap of at least `threshold`, i < j."""
    sets = _own_triples(_triples(texts))
    counts = Counter(triple for triples in sets for triple in triples.tolist())
    holders: dict[int, list[int]] = defaultdict(list)
    for index, triples in enumerate(sets):
        if len(triples) > 1:
            rarest = sorted(triples.tolist(), key=lambda triple: (counts[triple], triple))
            for triple in rarest[: len(rarest) - ceil(threshold * len(rarest)) + 1]:
                holders[triple].append(index)
    candidates = {pair for held in holders.values() if len(held) <= _CROWD for pair in combinations(held, 2)}
    overlaps = ((i, j, overlap(sets[i], sets[j])) for i, j in sorted(candidates))
    return [(i, j, share) for i, j, share in overlaps if share >= threshold]


def own_share(texts: Sequence[str]) -> float:
    """The median share of a text's word triples that are its own, not a template's."""
    sets = _triples(texts)
    shares = [len(own) / len(all_) for own, all_ in zip(_own_triples(sets), sets, strict=True) if len(all_)]
    return float(np.median(shares)) if shares else 0.0


def _triples(texts: Sequence[str]) -> list[U64]:
    """The different runs of three words of each text, hashed and sorted; a shorter text is one run."""
    numbers: dict[str, int] = {"": 0}
    split = [_WORDS.findall(text.casefold()) for text in texts]
    padded = [[*words, *[""] * (_TRIPLE - len(words))] for words in split]
    flat = np.array([numbers.setdefault(word, len(numbers)) for words in padded for word in words], np.uint64)
    hashes, offsets = windows(flat, np.array([len(words) for words in padded], np.int64), _TRIPLE)
    return [distinct(hashes[start:stop]) for start, stop in pairwise(offsets)]


def _own_triples(sets: list[U64]) -> list[U64]:
    if len(sets) < 20:
        return sets
    found, counts = np.unique(np.concatenate(sets), return_counts=True)
    own = found[counts <= len(sets) / 10]
    return [triples[among(triples, own)] for triples in sets]
