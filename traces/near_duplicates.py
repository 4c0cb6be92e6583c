"""Near-duplicates by MinHash (Broder 1997) and locality-sensitive hashing, on disk.

Each input is the set of its runs of five characters, without those inside of a template: text of forty
characters and more that stands in many calls ("Sort the message below into …"). Its signature (`rensa`, 120
hashes) is cut into 24 bands; inputs that share a band are candidates: at an overlap of 0.7 that happens with
probability 0.99, at 0.8 with 0.9999. In a band each row meets the first one and the one before it, so that a
crowd of n costs 2n pairs and not n². Of each signature one byte a hash lies on disk before the runs themselves:
candidates whose bytes agree too seldom (b-bit minwise hashing, Li & König 2010) are dismissed, all others are
measured exactly. Equal plain words always meet, however short.

Two tables come of it: `near` (row, kept, overlap) names the duplicates, of each group the first stays; `alike`
(row, group) says which inputs belong together whatever was answered: a split must not separate them.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from vertigym.core.errors import MissingDependencyError
from vertigym.traces.config import Duplicates
from vertigym.traces.ngrams import I64, U64, among, char_grams, distinct, mixed, overlap, plain
from vertigym.traces.records import Trace
from vertigym.traces.store import Store, answer_text, input_text

_GRAM = 5  # characters
_RUN = 40  # characters of a template; a multiple of _GRAM
_BANDS, _ROWS = 24, 5
_ERROR = 0.2  # of an overlap by 120 bytes: more than four standard deviations
_SAMPLE = 4000  # inputs that templates are looked for in
_FEWEST = 8  # own runs of characters; with fewer, only equal words are duplicates
_SHORT = 8  # words; a shorter answer must be equal, not alike

Link = tuple[int, int, float]
U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]


def find_near(store: Store, settings: Duplicates, seed: int) -> None:
    """Fill the tables `near` and `alike` from the rows alive.

    Raises:
        MissingDependencyError: rensa is not installed.
    """
    store.db.execute("CREATE OR REPLACE TABLE bands (hash UBIGINT, row UINTEGER)")
    store.db.execute("CREATE OR REPLACE TABLE near (row UINTEGER, kept UINTEGER, overlap DOUBLE)")
    store.db.execute("CREATE OR REPLACE TABLE alike (row UINTEGER, grp UINTEGER)")
    template = _template_runs(store, settings.common)
    same_input: list[Link] = []
    duplicates: list[Link] = []
    with _OwnRuns(store) as runs:
        for batch in store.calls():
            own = _own_grams([call.trace for call in batch], template)
            kept = [i for i, grams in enumerate(own) if len(grams) >= _FEWEST]
            if kept:
                rows, grams = [batch[i].row for i in kept], [own[i] for i in kept]
                signature_TH = _signatures(grams, seed)
                runs.add(rows, grams, signature_TH.astype(np.uint8))
                _add_bands(store, rows, signature_TH)
        store.db.execute("INSERT INTO bands SELECT question, row FROM alive")
        for a_P, b_P in _candidates(store):
            found = runs.alike(a_P, b_P, settings.near)
            same_input += found
            duplicates += _answered_alike(store, found, settings.near)
    store.insert("near", _kept(duplicates))
    store.insert("alike", [(row, group) for row, group in _groups(same_input).items()])
    store.db.execute("DROP TABLE bands; DROP TABLE pairs")


def _candidates(store: Store, piece: int = 65536) -> Iterator[tuple[U32, U32]]:
    """Pairs of rows that share a band, the earlier first, in order. Both steps are done in as many pieces as it
    takes for one to be small: neither a window nor a DISTINCT over all of them fits in a little memory."""
    store.db.execute("CREATE OR REPLACE TABLE pairs (a UINTEGER, b UINTEGER)")
    pieces = 1 + store.rows // piece
    for part in range(pieces):
        store.db.execute(f"""
            INSERT INTO pairs SELECT DISTINCT a, b FROM (
                SELECT unnest([min(row) OVER same, lag(row) OVER (same ORDER BY row)]) AS a, row AS b
                FROM bands WHERE hash % {pieces} = {part} WINDOW same AS (PARTITION BY hash)
            ) WHERE a < b
        """)
    for part in range(pieces):
        within = f"a >= {part * piece} AND a < {(part + 1) * piece}"
        sql = f"SELECT DISTINCT a, b FROM pairs WHERE {within} ORDER BY a, b"
        found = store.db.execute(sql).fetchnumpy()
        for at in range(0, len(found["a"]), 2000):
            yield found["a"][at : at + 2000], found["b"][at : at + 2000]


class _OwnRuns:
    """Each input's own runs of characters on disk, hashed once, behind a byte of each hash of its signature. In
    memory are 20 bytes a row: where its runs lie, how many, and the hash of its words. A context manager, which
    removes the file."""

    def __init__(self, store: Store) -> None:
        self._path = store.folder / "runs"
        self._file = self._path.open("wb+")
        self._end = 0
        self._place_R, self._n_R = np.zeros(store.rows, np.int64), np.zeros(store.rows, np.int32)
        known = store.db.execute("SELECT row, question FROM calls ORDER BY row").fetchnumpy()
        self._words_R = np.zeros(store.rows, np.uint64)
        self._words_R[known["row"]] = known["question"]

    def __enter__(self) -> "_OwnRuns":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._path.unlink()

    def add(self, rows: Sequence[int], grams: Sequence[U64], bytes_TH: U8) -> None:
        """Append the runs of these rows, each sorted."""
        for row, own, sketch in zip(rows, grams, bytes_TH, strict=True):
            self._place_R[row], self._n_R[row] = self._end, len(own)
            self._end += self._file.write(sketch.tobytes() + own.tobytes())
        self._file.flush()

    def alike(self, a_P: U32, b_P: U32, threshold: float) -> list[Link]:
        """Of the candidates those that overlap. Of rows that were not added only equal words do."""
        same_P = self._words_R[a_P] == self._words_R[b_P]
        found = [(int(a), int(b), 1.0) for a, b in zip(a_P[same_P], b_P[same_P], strict=True)]
        measured_P = ~same_P & (self._n_R[a_P] > 0) & (self._n_R[b_P] > 0)
        a_P, b_P = a_P[measured_P], b_P[measured_P]
        agree_P = (self._bytes(a_P) == self._bytes(b_P)).mean(axis=1)
        for near in np.flatnonzero(agree_P >= threshold - _ERROR):
            a, b = int(a_P[near]), int(b_P[near])
            share = overlap(self._runs(a), self._runs(b))
            found += [(a, b, share)] if share >= threshold else []
        return found

    def _bytes(self, row_P: U32) -> U8:
        read = b"".join(self._read(place, _BANDS * _ROWS) for place in self._place_R[row_P].tolist())
        return np.frombuffer(read, np.uint8).reshape(-1, _BANDS * _ROWS)

    def _runs(self, row: int) -> U64:
        place, n = int(self._place_R[row]), int(self._n_R[row])
        return np.frombuffer(self._read(place + _BANDS * _ROWS, 8 * n), np.uint64)

    def _read(self, place: int, size: int) -> bytes:
        return os.pread(self._file.fileno(), size, place)


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


def _signatures(grams: Sequence[U64], seed: int) -> U64:
    """MinHash signatures `[T, 120]`."""
    offsets = np.cumsum([0, *map(len, grams)]).astype(np.uint64)
    return np.array(minhash()(np.concatenate(grams), offsets, _BANDS * _ROWS, seed).to_rows(), np.uint64)


def _add_bands(store: Store, rows: Sequence[int], signature_TH: U64) -> None:
    signature_TBR = signature_TH.reshape(len(rows), _BANDS, _ROWS)
    hashes_TB = np.broadcast_to(np.arange(_BANDS, dtype=np.uint64), (len(rows), _BANDS)).copy()
    for r in range(_ROWS):
        hashes_TB = mixed(hashes_TB + signature_TBR[:, :, r])
    band = {"hash": hashes_TB.ravel(), "row": np.repeat(np.array(rows, np.uint32), _BANDS)}
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


def _answered_alike(store: Store, links: Sequence[Link], threshold: float) -> list[Link]:
    """Of the inputs that are nearly the same those whose answers are, too."""
    traces = store.of({row for a, b, _ in links for row in (a, b)})
    return [(a, b, share) for a, b, share in links if _same_answer(traces[a], traces[b], threshold)]


def _same_answer(a: Trace, b: Trace, threshold: float) -> bool:
    """What was answered, or nearly, and what people said of it."""
    if (a.label, a.outcome, a.feedback) != (b.label, b.outcome, b.feedback):
        return False
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
