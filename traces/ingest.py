"""Reading logs into the store: every call searched for held-out tasks, masked, kept; the rest set aside."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from vertigym.core.files import dumps, read_text
from vertigym.traces.batches import SPENT, HalfLine, join_halves
from vertigym.traces.config import ImportConfig
from vertigym.traces.contamination import Benchmarks, TasksOf, only_files, read_items
from vertigym.traces.formats import known_formats, read_row
from vertigym.traces.import_report import EXAMPLES, excerpt
from vertigym.traces.log_format import Found
from vertigym.traces.pii.masker import Masker
from vertigym.traces.reading import rows
from vertigym.traces.records import LateFeedback, NotACall, Trace, Unreadable
from vertigym.traces.store import Store

_BATCH = 512
Progress = Callable[[int, int, int], None]  # calls so far, bytes read, bytes in all
Located = tuple[Trace, int, int]  # a call, its file, its number there


class Reader:
    """Streams files into a store, and counts. `rejects` takes one line for everything set aside."""

    def __init__(
        self, store: Store, rejects: TextIO, config: ImportConfig, tasks_of: TasksOf = only_files
    ) -> None:
        self._store, self._rejects, self._config = store, rejects, config
        names = read_text(Path(config.pii.names)).splitlines() if config.pii.names else ()
        key = Path(config.pii.key) if config.pii.key else None
        self.masker = Masker(config.pii.mask, names, regions=config.pii.regions, key=key)
        self._benchmarks = Benchmarks(read_items(config.decontaminate.against, tasks_of), config.decontaminate)
        self.rejected: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.contaminated: Counter[str] = Counter()
        self.masked_rows = 0
        self.feedback = 0
        self.examples: dict[str, list[str]] = {"rejected": [], "contaminated": [], "masked": []}
        self.counts: defaultdict[str, Counter[str]] = defaultdict(Counter)  # file -> rows, calls, rejected, …
        self.forms: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._waiting: dict[str, list[tuple[Any, ...]]] = {"later": [], "halves": []}
        self._files: Sequence[Path] = ()

    def read(self, files: Sequence[Path], on_progress: Progress) -> None:
        """Stream all files into the store, then join the feedback that came on lines of its own."""
        self._files = files
        known_formats(self._config)  # a form that nobody knows is said before anything is read
        sizes = [file.stat().st_size for file in files]
        for number, file in enumerate(files):
            place = [0]  # bytes read of this file
            found = self._found(file, number, place)
            while batch := list(islice(found, _BATCH)):
                self._take(batch)
                on_progress(self._store.rows, sum(sizes[:number]) + place[0], sum(sizes))
            on_progress(self._store.rows, sum(sizes[: number + 1]), sum(sizes))
        halves = self._joined()
        while batch := list(islice(halves, _BATCH)):
            self._take(batch)
        self._join_feedback()

    def _count(self, file: int, **more: int) -> None:
        self.counts[str(self._files[file])].update(more)

    def _found(self, file: Path, index: int, place: list[int]) -> Iterator[Located]:
        """The calls of a file; all else is counted and set aside on the way."""
        for number, row, start in rows(file, lambda at: place.__setitem__(0, at)):
            self._count(index, rows=1)
            name = f"{file.name.partition('.')[0]}-{number}"
            if isinstance(row, Unreadable):
                self._reject(index, number, row.reason, start)
                continue
            yield from self._read(row, name, index, number, start)
        for table, waiting in self._waiting.items():
            self._store.insert(table, waiting)
            waiting.clear()

    def _read(self, row: Any, name: str, file: int, number: int, start: bytes) -> Iterator[Located]:
        for form, item in read_row(row, name, self._config):
            self.forms[str(self._files[file])][form] += not isinstance(item, Unreadable)
            if (trace := self._sorted(item, file, number, start)) is not None:
                yield trace, file, number

    def _sorted(self, item: Found, file: int, number: int, start: bytes) -> Trace | None:
        """A call; all else goes where it belongs."""
        if isinstance(item, Trace):
            self._count(file, calls=1)
            return item
        if isinstance(item, Unreadable):
            self._reject(file, number, item.reason, start)
        elif isinstance(item, NotACall):
            self._count(file, skipped=1)
            self.skipped[item.what] += 1
        elif isinstance(item, LateFeedback):
            self._count(file, feedback=1)
            self._wait("later", (item.id, file, number, dumps(self.masker.mask_all(item.changes))))
        else:
            self._wait("halves", (item.key, item.side, file, number, dumps(item.body)))
        return None

    def _wait(self, table: str, row: tuple[Any, ...]) -> None:
        waiting = self._waiting[table]
        waiting.append(row)
        if len(waiting) >= _BATCH:
            self._store.insert(table, waiting)
            waiting.clear()

    def _joined(self) -> Iterator[Located]:
        """The calls of batches."""

        def refuse(line: HalfLine, reason: str) -> None:
            start = line.body[:400].encode("utf-8", "replace")
            self._reject(line.file, line.number, f"half of a call of a batch: {reason} ({line.key})", start)

        def spend(line: HalfLine) -> None:
            self._sorted(NotACall(SPENT), line.file, line.number, b"")

        for row, line in join_halves(self._store, refuse, spend):
            yield from self._read(
                row, line.key, line.file, line.number, line.body[:400].encode("utf-8", "replace")
            )

    def _reject(self, file: int, number: int, reason: str, start: bytes) -> None:
        path, reason = self._files[file], self.masker.mask(reason)
        self._count(file, rejected=1)
        self.rejected[reason.partition(" (")[0].partition("; ")[0][:80]] += 1
        text = self.masker.mask(start.decode("utf-8", "replace"))[:200]
        self._rejects.write(dumps({"file": str(path), "number": number, "reason": reason, "text": text}) + "\n")
        self._example("rejected", f"{path.name}:{number}: {excerpt(reason)}")

    def _take(self, batch: Sequence[Located]) -> None:
        """Search, mask and store a batch."""
        held = self._benchmarks.search([[*(m["content"] for m in t.messages), t.completion] for t, *_ in batch])
        clean = [(self._mask(trace), file, number) for trace, file, number in batch]
        numbers = self._store.add(clean)
        tainted = []
        for row, (trace, *_), found in zip(numbers, clean, held, strict=True):
            if found:
                item, share = found
                tainted.append((row, "contaminated", row, share))
                self.contaminated[item.source] += 1
                self._example("contaminated", f"{trace.id} holds {share:.0%} of {item.source}:{item.number}")
        self._store.insert("fate", tainted)

    def _mask(self, trace: Trace) -> Trace:
        before = self.masker.replaced.total()
        masked = self.masker.mask_all(trace.model_dump(exclude_defaults=True), row=True)
        if self.masker.replaced.total() == before:
            return trace
        self.masked_rows += 1
        clean = Trace.model_validate(masked)
        text = f"{clean.question} {clean.completion}"
        self._example("masked", excerpt(text[max(0, text.find("[") - 25) :]))
        return clean

    def _example(self, kind: str, text: str) -> None:
        if len(self.examples[kind]) < EXAMPLES:
            self.examples[kind].append(text)

    def _join_feedback(self) -> None:
        """Put feedback to the calls it names; the newest word counts. What names no call is set aside."""
        sql = (
            "SELECT row, place, any_value(calls.file), any_value(calls.number), "
            "list(changes ORDER BY later.file, later.number) "
            "FROM later JOIN calls USING (id) GROUP BY row, place ORDER BY row"
        )
        for batch in self._store.select(sql, _BATCH):
            self.feedback += len(batch)
            self._store.replace(
                (row, _changed(self._store.read(place), changes), file, number)
                for row, place, file, number, changes in batch
            )
        for batch in self._store.select(
            "SELECT id, file, number, changes FROM later ANTI JOIN calls USING (id) ORDER BY file, number"
        ):
            for name, file, number, changes in batch:
                start = dumps({"id": name, **json.loads(changes)}).encode("utf-8", "replace")
                self._count(file, feedback=-1)
                self._reject(file, number, "feedback for a call that is not here", start)


def _changed(trace: Trace, changes: Sequence[str]) -> Trace:
    """The call with later feedback merged into its own."""
    fields = trace.model_dump(exclude_defaults=True)
    for text in changes:
        new = json.loads(text)
        fields |= {**new, "feedback": {**fields.get("feedback", {}), **new["feedback"]}}
    return Trace.model_validate(fields)
