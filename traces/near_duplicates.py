"""Near-duplicates by MinHash (Broder 1997) and locality-sensitive hashing, on disk.

Each input is the set of its runs of five characters, without those inside of a template: text of forty
characters and more that stands in many calls ("Sort the message below into …"). Its signature (`rensa`, 120
hashes) is cut into 24 bands; inputs that share a band are candidates: at an overlap of 0.7 that happens with
probability 0.99, at 0.8 with 0.9999. In a band each row meets the first one and the one before it, so that a
crowd of n costs 2n pairs and not n². Every candidate is then measured exactly. Equal plain words always meet,
however short.

Two tables come of it: `near` (row, kept, overlap) names the duplicates, of each group the first stays; `alike`
(row, group) says which inputs belong together whatever was answered: a split must not separate them.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from vertigym.core.errors import MissingDependencyError
from vertigym.traces.config import Duplicates
from vertigym.traces.ngrams import I64, U64, among, char_grams, distinct, mixed, overlap, plain
from vertigym.traces.records import Trace
from vertigym.traces.store import Store, answer_text, input_text

_GRAM = 5  # characters
_RUN = 40  # characters of a template; a multiple of _GRAM
_BANDS, _ROWS = 24, 5
_SAMPLE = 4000  # inputs that templates are looked for in
_FEWEST = 8  # own runs of characters; with fewer, only equal words are duplicates
_SHORT = 8  # words; a shorter answer must be equal, not alike

Link = tuple[int, int, float]


def find_near(store: Store, settings: Duplicates, seed: int) -> None:
    """Fill the tables `near` and `alike` from the rows alive.

    Raises:
        MissingDependencyError: rensa is not installed.
    """
    store.db.execute("CREATE OR REPLACE TABLE bands (hash UBIGINT, row UINTEGER)")
    store.db.execute("CREATE OR REPLACE TABLE near (row UINTEGER, kept UINTEGER, overlap DOUBLE)")
    store.db.execute("CREATE OR REPLACE TABLE alike (row UINTEGER, grp UINTEGER)")
    template = _template_runs(store, settings.common)
    for batch in store.calls():
        _add_bands(store, [c.row for c in batch], _own_grams([c.trace for c in batch], template), seed)
    store.db.execute("INSERT INTO bands SELECT question, row FROM alive")
    same_input: list[Link] = []
    duplicates: list[Link] = []
    for pairs in store.select(_CANDIDATES, 2000):
        _measure(store, pairs, template, settings.near, same_input, duplicates)
    store.insert("near", _kept(duplicates))
    store.insert("alike", [(row, group) for row, group in _groups(same_input).items()])
    store.db.execute("DROP TABLE bands")


_CANDIDATES = """
    WITH crowds AS (
        SELECT hash, row FROM bands SEMI JOIN (SELECT hash FROM bands GROUP BY hash HAVING count(*) > 1)
        USING (hash)
    ), met AS (
        SELECT min(row) OVER (PARTITION BY hash) AS a, row AS b FROM crowds
        UNION ALL
        SELECT lag(row) OVER (PARTITION BY hash ORDER BY row) AS a, row AS b FROM crowds
    )
    SELECT DISTINCT a, b FROM met WHERE a < b ORDER BY a, b
"""


def _template_runs(store: Store, common: float) -> U64:
    """The long runs of characters found in more than `common` of a sample of the inputs, sorted."""
    every = max(1, store.count() // _SAMPLE)
    seen: list[U64] = []
    for batch in store.calls(f"row % {every} = 0"):
        grams, offsets = char_grams([_words(call.trace) for call in batch], _GRAM)
        runs, starts = _runs(grams, offsets)
        ends = np.searchsorted(starts, offsets)
        seen += [distinct(runs[a:b]) for a, b in pairwise(ends)]
    found, counts = np.unique(np.concatenate([np.empty(0, np.uint64), *seen]), return_counts=True)
    return found[counts > max(20, common * len(seen))]


def _runs(grams_G: U64, offsets_T: I64) -> tuple[U64, I64]:
    """Hashes of the runs of `_RUN` characters, folded out of their grams, and where they start."""
    span = _RUN - _GRAM
    counts = np.diff(offsets_T)
    left = np.repeat(offsets_T[1:], counts) - np.arange(len(grams_G))  # grams from here to the text's end
    starts = np.flatnonzero(left > span)
    runs = np.zeros(len(starts), np.uint64)
    for step in range(0, span + 1, _GRAM):
        runs = mixed(runs + grams_G[starts + step])
    return runs, starts


def _own_grams(traces: Sequence[Trace], template: U64) -> list[U64]:
    """For each input its runs of five characters, sorted, without those inside of a template."""
    grams, offsets = char_grams([_words(trace) for trace in traces], _GRAM)
    own = np.ones(len(grams), bool)
    if len(template):
        runs, starts = _runs(grams, offsets)
        hits = starts[among(runs, template)]
        edges = np.zeros(len(grams) + 1, np.int64)
        np.add.at(edges, hits, 1)
        np.add.at(edges, hits + _RUN - _GRAM + 1, -1)
        own = np.cumsum(edges[:-1]) == 0
    return [distinct(grams[a:b][own[a:b]]) for a, b in pairwise(offsets)]


def _words(trace: Trace) -> str:
    return plain(input_text(trace))


def _add_bands(store: Store, rows: Sequence[int], grams: Sequence[U64], seed: int) -> None:
    kept = [i for i, own in enumerate(grams) if len(own) >= _FEWEST]
    if not kept:
        return
    flat = np.concatenate([grams[i] for i in kept])
    offsets = np.cumsum([0, *(len(grams[i]) for i in kept)]).astype(np.uint64)
    digests = minhash()(flat, offsets, _BANDS * _ROWS, seed)
    signature_TBR = np.array(digests.to_rows(), np.uint64).reshape(len(kept), _BANDS, _ROWS)
    hashes_TB = np.broadcast_to(np.arange(_BANDS, dtype=np.uint64), (len(kept), _BANDS)).copy()
    for r in range(_ROWS):
        hashes_TB = mixed(hashes_TB + signature_TBR[:, :, r])
    band = {
        "hash": hashes_TB.ravel(),
        "row": np.repeat(np.array([rows[i] for i in kept], np.uint32), _BANDS),
    }
    assert band  # DuckDB finds it by its name
    store.db.execute("INSERT INTO bands SELECT hash, row FROM band")


def minhash() -> Any:
    """The function that makes signatures.

    Raises:
        MissingDependencyError: rensa is not installed.
    """
    try:
        from rensa import RMinHash
    except ImportError:
        raise MissingDependencyError("rensa", "traces", "finding near-duplicates") from None
    return RMinHash.digest_matrix_from_flat_token_hashes


def _measure(
    store: Store,
    pairs: Sequence[tuple[int, int]],
    template: U64,
    threshold: float,
    same_input: list[Link],
    duplicates: list[Link],
) -> None:
    """Measure candidate pairs; append those whose inputs overlap, and of these those whose answers do, too."""
    traces = store.of({row for pair in pairs for row in pair})
    words = {row: _words(trace) for row, trace in traces.items()}
    grams = dict(zip(traces, _own_grams(list(traces.values()), template), strict=True))
    for a, b in pairs:
        share = 1.0 if words[a] == words[b] else 0.0
        if not share and min(len(grams[a]), len(grams[b])) >= _FEWEST:
            share = overlap(grams[a], grams[b])
        if share >= threshold:
            same_input.append((a, b, share))
            if _same_verdict(traces[a], traces[b]) and _answers_alike(traces[a], traces[b], threshold):
                duplicates.append((a, b, share))


def _same_verdict(a: Trace, b: Trace) -> bool:
    return (a.label, a.outcome, a.feedback) == (b.label, b.outcome, b.feedback)


def _answers_alike(a: Trace, b: Trace, threshold: float) -> bool:
    left, right = plain(answer_text(a)), plain(answer_text(b))
    if left == right:
        return True
    if min(left.count(" "), right.count(" ")) + 1 < _SHORT:
        return False
    grams, (_, middle, _) = char_grams([left, right], _GRAM)
    return overlap(distinct(grams[:middle]), distinct(grams[middle:])) >= threshold


def _groups(links: Iterable[Link]) -> dict[int, int]:
    """Row -> the first row it is linked with, directly or through others."""
    parent: dict[int, int] = {}

    def root(row: int) -> int:
        while (up := parent.setdefault(row, row)) != row:
            parent[row] = row = parent[up]
        return row

    for a, b, _ in links:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    return {row: root(row) for row in sorted(parent)}


def _kept(links: Sequence[Link]) -> list[tuple[int, int, float]]:
    """Of each group all rows but the first: row, the first, and the largest overlap with one of the group."""
    groups = _groups(links)
    best: dict[int, float] = {}
    for a, b, share in links:
        for row in (a, b):
            best[row] = max(best.get(row, 0.0), share)
    return [(row, first, best[row]) for row, first in groups.items() if row != first]
