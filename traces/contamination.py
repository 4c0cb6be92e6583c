"""Decontamination: calls that hold a task of a held-out set or of a public benchmark.

The runs of `words` words of each text of the list are kept, sorted; a call is searched for them. It holds a
text when `share` of that text's different runs stand in it, so that other spacing, other case, punctuation, a
wrapped prompt or a few changed words do not hide it, and one common phrase does not accuse. Words are numbered
by the list's own vocabulary: a run with any other word cannot be in it, which makes the search quick and its
memory that of the list. Source of the idea: Brown et al. 2020 (GPT-3), appendix C; the share is ours.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vertigym.core.errors import DataError
from vertigym.core.types import Task
from vertigym.traces.config import Decontaminate
from vertigym.traces.ngrams import I64, U64, among, windows, words
from vertigym.traces.reading import rows
from vertigym.traces.records import Unreadable

TasksOf = Callable[[str], Iterable[Task]]  # the held-out tasks of an environment, by its name

_TEMPLATE = 0.05  # a run in more than this share of a list's texts is a template's
_SHORTEST = 3  # words; "yes" is in no way a task's own
_NOT_TEXT = frozenset(
    {"id", "task_id", "example_id", "split", "cluster", "kind", "name", "entry_point", "role"}
)


@dataclass(frozen=True, slots=True)
class Item:
    """One text that must not be trained on: where it is from."""

    source: str
    number: int
    text: str


class Benchmarks:
    """The runs of words of all texts of a list, ready to be searched for."""

    def __init__(self, items: Iterable[Item], settings: Decontaminate) -> None:
        self.items = list(items)
        self._settings = settings
        self._vocabulary: dict[str, int] = {}
        split = [words(item.text) for item in self.items]
        for text in split:
            for word in text:
                self._vocabulary.setdefault(word, len(self._vocabulary) + 1)
        ids, sizes = self._ids(split)
        grams, offsets = windows(ids, sizes, settings.words)
        owners = np.repeat(np.arange(len(split)), np.diff(offsets))
        pairs = np.unique(np.stack([grams, owners.astype(np.uint64)], axis=1), axis=0)
        pairs = pairs[~self._template(pairs[:, 0], len(split))]
        self._grams, self._owners = pairs[:, 0].copy(), pairs[:, 1].astype(np.int64)
        self._sizes = np.bincount(self._owners, minlength=len(split))
        # Too short for a run, or all template: only a message that is just this.
        self._whole = {
            " ".join(text): i for i, text in enumerate(split) if len(text) >= _SHORTEST and not self._sizes[i]
        }

    def _template(self, grams_P: U64, texts: int) -> Any:
        _, inverse, counts = np.unique(grams_P, return_inverse=True, return_counts=True)
        return counts[inverse] > max(20, _TEMPLATE * texts)

    def _ids(self, texts: Sequence[Sequence[str]]) -> tuple[U64, I64]:
        """Word numbers, 0 for a word the list does not have, and the texts' lengths."""
        known = self._vocabulary.get
        flat = [known(word, 0) for text in texts for word in text]
        return np.array(flat, np.uint64), np.array([len(text) for text in texts], np.int64)

    def search(self, calls: Sequence[Sequence[str]]) -> list[tuple[Item, float] | None]:
        """For each call (its messages, then its completion): the text it holds and how much of it."""
        if not self.items:
            return [None] * len(calls)
        split = [[words(message) for message in call] for call in calls]
        found: list[tuple[Item, float] | None] = [self._exactly(call) for call in split]
        flat = [[word for message in call for word in message] for call in split]
        ids, sizes = self._ids(flat)
        n = self._settings.words
        grams, offsets = windows(ids, sizes, n)
        hits = np.flatnonzero(among(grams, self._grams))
        calls_of_hits = np.searchsorted(offsets, hits, side="right") - 1
        for call in np.unique(calls_of_hits):
            held = np.unique(grams[hits[calls_of_hits == call]])
            best = self._most_held(held)
            if best is not None:
                found[call] = best
        return found

    def _exactly(self, call: Sequence[Sequence[str]]) -> tuple[Item, float] | None:
        for message in call[:-1]:
            at = self._whole.get(" ".join(message)) if message else None
            if at is not None:
                return self.items[at], 1.0
        return None

    def _most_held(self, held: U64) -> tuple[Item, float] | None:
        first = np.searchsorted(self._grams, held, side="left")
        last = np.searchsorted(self._grams, held, side="right")
        counts: Counter[int] = Counter()
        for a, b in zip(first, last, strict=True):
            counts.update(self._owners[a:b].tolist())
        if not counts:
            return None
        best = max(counts, key=lambda i: (counts[i] / self._sizes[i], -i))
        share = counts[best] / int(self._sizes[best])
        return (self.items[best], share) if share >= self._settings.share else None


def read_items(against: Sequence[str], tasks_of: TasksOf) -> Iterator[Item]:
    """The texts of files (any table or JSON lines) and of the tasks that `tasks_of` finds under a name.

    Raises:
        DataError: a file with a broken row. InputError: neither a file nor a name that is known.
    """
    for name in against:
        path = Path(name)
        held_out = _file_rows(path) if path.is_file() else _task_rows(tasks_of(name))
        for number, row in held_out:
            for text in _texts(row):
                yield Item(name, number, text)


def _file_rows(path: Path) -> Iterator[tuple[int, Any]]:
    for number, row, _ in rows(path):
        if isinstance(row, Unreadable):
            raise DataError(f"{path}:{number}: {row.reason}")
        yield number, row


def only_files(name: str) -> Iterable[Task]:
    """Stands in where no environments are to be had.

    Raises:
        DataError: always.
    """
    raise DataError(f"decontaminate.against: {name}: no such file")


def _task_rows(tasks: Iterable[Task]) -> Iterator[tuple[int, Any]]:
    for number, task in enumerate(tasks, 1):
        yield number, {"prompt": task.messages(), "answer": task.answer}


def _texts(value: Any) -> Iterator[str]:
    """Every text in a row, but for ids and system messages, which a whole set shares."""
    if isinstance(value, str):
        if value.strip():
            yield value
    elif isinstance(value, Mapping):
        if value.get("role") != "system":
            for key, item in value.items():
                if key not in _NOT_TEXT:
                    yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
