"""Runs of characters and of words, hashed a batch at a time with NumPy.

Each window of `n` symbols is folded by multiply and shift, modulo 2^64, then mixed (the finaliser of
SplitMix64) so that MinHash can take the values as random. No Python loop runs over characters.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vertigym.traces.config import KINDS

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

_WORDS = re.compile(r"\w+")
_IN_NUMBER = re.compile(r"(?<=\d)[.,](?=\d)")
_PLACEHOLDER = re.compile(rf"\[({'|'.join(KINDS).upper()})_\d+\]")
_BASE = np.uint64(0x9E3779B97F4A7C15)


def plain(text: str) -> str:
    """Lower case, words only, single spaces; placeholders of masked values without their number. A text without
    words (a thumb, a face) is itself."""
    if "[" in text:
        text = _PLACEHOLDER.sub(r"\1", text)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(words(text)) or text.strip()


def words(text: str) -> list[str]:
    """The words of a text in lower case; punctuation is none, and 1,000 is the word 1000."""
    return _WORDS.findall(_IN_NUMBER.sub("", text.casefold()))


def char_grams(texts: Sequence[str], n: int) -> tuple[U64, I64]:
    """Hashes of the runs of `n` characters of each text, flat, and where each text's begin: `[G]`, `[T+1]`.

    A text shorter than `n` is padded to one run; an empty one has none.
    """
    padded = [text.ljust(n) if text else "" for text in texts]
    sizes = np.fromiter(map(len, padded), dtype=np.int64, count=len(padded))
    joined = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    return windows(joined.astype(np.uint64), sizes, n)


def windows(symbols_S: U64, sizes_T: I64, n: int) -> tuple[U64, I64]:
    """Hashes of the windows of `n` symbols that lie within one text: flat `[G]`, and the offsets `[T+1]`."""
    counts = np.maximum(sizes_T - n + 1, 0)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    if not offsets[-1]:
        return np.empty(0, np.uint64), offsets
    starts = np.repeat(np.cumsum(sizes_T) - sizes_T - offsets[:-1], counts) + np.arange(offsets[-1])
    total = len(symbols_S) - n + 1
    hashes = np.zeros(total, np.uint64)
    with np.errstate(over="ignore"):
        for k in range(n):
            hashes = (hashes + symbols_S[k : k + total] + np.uint64(1)) * _BASE
            hashes ^= hashes >> np.uint64(29)
        return mixed(hashes)[starts], offsets


def mixed(values: U64) -> U64:
    """SplitMix64's finaliser."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def distinct(values: U64) -> U64:
    """The different values, sorted; quicker than `np.unique` on the few hundred of one text."""
    ordered: U64 = np.sort(values)
    first = np.ones(len(ordered), bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return ordered[first]


def overlap(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> float:
    """Jaccard overlap of two sorted arrays without repetitions; two empty ones are equal."""
    if not len(left) or not len(right):
        return float(len(left) == len(right))
    both = np.searchsorted(right, left)
    both[both == len(right)] = 0
    shared = int((right[both] == left).sum())
    return shared / (len(left) + len(right) - shared)


def among(values: U64, known: U64) -> npt.NDArray[np.bool_]:
    """Which values stand in the sorted array `known`."""
    if not len(known):
        return np.zeros(len(values), bool)
    at = np.searchsorted(known, values)
    at[at == len(known)] = 0
    return np.equal(known[at], values)
