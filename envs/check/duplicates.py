"""Near-duplicates by MinHash (Broder 1997): texts whose sets of word triples overlap.

Signatures of 128 hashes, cut into bands of 8: texts that share a band are candidates, and the overlap of a
candidate pair is then computed exactly. Triples found in more than a tenth of all texts are a template's, not
the task's own, and are left out; where little else is left (`own_share`), the method says nothing.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from hashlib import blake2b
from itertools import combinations
from typing import Any

import numpy as np

from vertigym.core.seeds import generator

_HASHES, _BAND = 128, 8
_WORDS = re.compile(r"\w+|[^\w\s]")
_PRIME = (1 << 31) - 1
_CROWD = 50  # texts in one band; more is a template, not a set of duplicates


def near_duplicates(texts: Sequence[str], threshold: float) -> list[tuple[int, int, float]]:
    """Pairs (i, j, Jaccard overlap) with an overlap of at least `threshold`, i < j."""
    sets = _own_triples([_triples(text) for text in texts])
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for index, triples in enumerate(sets):
        if len(triples) > 1:
            signature = _signature(triples)
            for band in range(0, _HASHES, _BAND):
                buckets[band, signature[band : band + _BAND].tobytes()].append(index)
    candidates = {
        pair for bucket in buckets.values() if len(bucket) <= _CROWD for pair in combinations(bucket, 2)
    }
    overlaps = ((i, j, _overlap(sets[i], sets[j])) for i, j in sorted(candidates))
    return [(i, j, overlap) for i, j, overlap in overlaps if overlap >= threshold]


def own_share(texts: Sequence[str]) -> float:
    """The median share of a text's word triples that are its own, not a template's."""
    sets = [_triples(text) for text in texts]
    shares = [len(own) / len(all_) for own, all_ in zip(_own_triples(sets), sets, strict=True) if all_]
    return float(np.median(shares)) if shares else 0.0


def _triples(text: str) -> set[int]:
    words = _WORDS.findall(text.casefold())
    if len(words) < 3:
        words = [*words, "", ""]
    return {_hash(" ".join(words[i : i + 3])) for i in range(len(words) - 2)}


def _own_triples(sets: list[set[int]]) -> list[set[int]]:
    if len(sets) < 20:
        return sets
    counts = Counter(triple for triples in sets for triple in triples)
    return [{triple for triple in triples if counts[triple] <= len(sets) / 10} for triples in sets]


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=4).digest(), "big") % _PRIME


_A, _B = generator(0, "minhash").integers(1, _PRIME, size=(2, _HASHES), dtype=np.int64)


def _signature(triples: set[int]) -> np.ndarray[Any, Any]:
    """The least value of each hash function over the set, `[128]`."""
    values = np.fromiter(triples, dtype=np.int64, count=len(triples))
    least: np.ndarray[Any, Any] = ((values[:, None] * _A[None, :] + _B[None, :]) % _PRIME).min(axis=0)
    return least


def _overlap(left: set[int], right: set[int]) -> float:
    return len(left & right) / len(left | right)
