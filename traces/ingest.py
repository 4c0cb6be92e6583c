"""Reading logs into the store: every call searched for held-out tasks, masked, kept; the rest set aside."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from vertigym.core.files import dumps, read_text
from vertigym.traces.batches import SPENT, HalfLine, join_halves
from vertigym.traces.config import ImportConfig
from vertigym.traces.contamination import Benchmarks, TasksOf, only_files, read_items
from vertigym.traces.formats import known_formats, read_row
from vertigym.traces.import_report import EXAMPLES, excerpt
from vertigym.traces.log_format import Found
from vertigym.traces.pii.entities import entities
from vertigym.traces.pii.masker import Masker
from vertigym.traces.reading import Line, rows
from vertigym.traces.records import LateFeedback, NotACall, Trace, Unreadable
from vertigym.traces.resuming import ReadingState, Tally, identity
from vertigym.traces.store import Store

_BATCH = 512
_SAVED = 20  # batches, about 10,000 calls, from one point to go on from to the next
Progress = Callable[[int, int, int], None]  # calls so far, bytes read, bytes in all
Located = tuple[Trace, int, int]  # a call, its file, its number there


class Reader:
    """Streams files into a store, and counts. What is set aside goes to `rejects`, in the store's folder.

    Raises:
        MissingDependencyError: what finds personal data is not installed.
    """

    def __init__(
        self, files: Sequence[Path], store: Store, config: ImportConfig, tasks_of: TasksOf = only_files
    ) -> None:
        self._files, self._store, self._config = files, store, config
        known_formats(config)  # a form that nobody knows is said before anything is read
        names = read_text(Path(config.pii.names)).splitlines() if config.pii.names else ()
        ner = entities(config.pii.ner, config.pii.ner_labels) if config.pii.ner else None
        self.masker = Masker(config.pii.mask, names, regions=config.pii.regions, ner=ner)
        self._benchmarks = Benchmarks(read_items(config.decontaminate.against, tasks_of), config.decontaminate)
        self._state = ReadingState(of=identity(files, config, names, self._benchmarks.items))
        self.rejects = store.folder / "rejected.jsonl"
        self._since = 0  # batches since the last point to go on from
        self._waiting: dict[str, list[tuple[Any, ...]]] = {"later": [], "halves": []}

    @property
    def tally(self) -> Tally:
        """What was counted."""
        return self._state.tally

    def read(self, on_progress: Progress) -> None:
        """Stream all files into the store, then join the feedback that came on lines of its own. What the store
        holds already of the same import is not read again."""
        self._resume()
        with self.rejects.open("ab") as self._set_aside:
            self._set_aside.truncate(self._state.rejects)
            if self._state.joined:
                return
            if self._state.file < len(self._files):
                self._store.begin()
                self._read_files(on_progress)
            self._take_all(self._joined())
            self._join_feedback()
            self._state.joined = True
            self._store.begin()
            self._save()

    def _resume(self) -> None:
        """Take up the state in the store; another import's is dropped."""
        text = self._store.state()
        saved = ReadingState.model_validate_json(text) if text else None
        if saved is None or saved.of != self._state.of:
            self._store.clear()
            self.rejects.write_bytes(b"")
            return
        self._state = saved
        self._store.rewind()
        given = self._store.select("SELECT kind, digest FROM placeholders ORDER BY kind, number")
        self.masker.restore((pair for batch in given for pair in batch), saved.tally.replaced)

    def _read_files(self, on_progress: Progress) -> None:
        sizes = [file.stat().st_size for file in self._files]
        state = self._state
        for file in range(state.file, len(self._files)):

            def progress(at: int, before: int = sum(sizes[:file])) -> None:
                on_progress(self._store.rows, before + at, sum(sizes))

            place = list[int]()  # the last one: bytes read of this file
            calls = list[Located]()
            found = rows(self._files[file], partial(_put, place))
            for done, line in enumerate(islice(found, state.done, None), state.done + 1):
                for call in self._calls(line, file):
                    calls.append(call)
                    if len(calls) == _BATCH:
                        self._take(calls)
                        progress(place[-1])
                        calls.clear()
                if self._since >= _SAVED:
                    self._take(calls)
                    calls.clear()
                    state.done = done
                    self._save()
                    self._store.begin()
            self._take(calls)
            state.file, state.done = file + 1, 0
            progress(sizes[file])
        self._save()

    def _take_all(self, calls: Iterator[Located]) -> None:
        while batch := list(islice(calls, _BATCH)):
            self._take(batch)

    def _save(self) -> None:
        """All that was read until now is kept."""
        for table, waiting in self._waiting.items():
            self._store.insert(table, waiting)
            waiting.clear()
        secret = not self._config.pii.key
        given = [(*new[:3], "" if secret else new[3]) for new in self.masker.fresh()]
        self._store.insert("placeholders", given)
        self._set_aside.flush()
        self._state.rejects = self._set_aside.tell()
        self.tally.replaced = Counter(self.masker.replaced)
        self._store.save(self._state.model_dump_json())
        self._since = 0

    def _count(self, file: int, **more: int) -> None:
        self.tally.counts.setdefault(str(self._files[file]), Counter()).update(more)

    def _calls(self, line: Line, file: int) -> Iterator[Located]:
        """The calls in a row of a file; all else is counted and set aside on the way."""
        number, row, start = line
        self._count(file, rows=1)
        if isinstance(row, Unreadable):
            self._reject(file, number, row.reason, start)
        else:
            name = f"{self._files[file].name.partition('.')[0]}-{number}"
            yield from self._read(row, name, file, number, start)

    def _read(self, row: Any, name: str, file: int, number: int, start: bytes) -> Iterator[Located]:
        forms = self.tally.forms.setdefault(str(self._files[file]), Counter())
        for form, item in read_row(row, name, self._config):
            forms[form] += not isinstance(item, Unreadable)
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
            self.tally.skipped[item.what] += 1
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
        self.tally.rejected[reason.partition(" (")[0].partition("; ")[0][:80]] += 1
        text = self.masker.mask(start.decode("utf-8", "replace"))[:200]
        line = dumps({"file": str(path), "number": number, "reason": reason, "text": text})
        self._set_aside.write(f"{line}\n".encode())
        self._example("rejected", f"{path.name}:{number}: {excerpt(reason)}")

    def _take(self, batch: Sequence[Located]) -> None:
        """Search, mask and store a batch."""
        self._since += 1
        held = self._benchmarks.search([[*(m["content"] for m in t.messages), t.completion] for t, *_ in batch])
        clean = [(self._mask(trace), file, number) for trace, file, number in batch]
        numbers = self._store.add(clean)
        tainted = []
        for row, (trace, *_), found in zip(numbers, clean, held, strict=True):
            if found:
                item, share = found
                tainted.append((row, "contaminated", row, share))
                self.tally.contaminated[item.source] += 1
                self._example("contaminated", f"{trace.id} holds {share:.0%} of {item.source}:{item.number}")
        self._store.insert("fate", tainted)

    def _mask(self, trace: Trace) -> Trace:
        before = self.masker.replaced.total()
        masked = self.masker.mask_all(trace.model_dump(exclude_defaults=True), row=True)
        if self.masker.replaced.total() == before:
            return trace
        self.tally.masked_rows += 1
        clean = Trace.model_validate(masked)
        text = f"{clean.question} {clean.completion}"
        self._example("masked", excerpt(text[max(0, text.find("[") - 25) :]))
        return clean

    def _example(self, kind: str, text: str) -> None:
        if len(self.tally.examples[kind]) < EXAMPLES:
            self.tally.examples[kind].append(text)

    def _join_feedback(self) -> None:
        """Put feedback to the calls it names; the newest word counts. What names no call is set aside."""
        sql = (
            "SELECT row, place, any_value(calls.file), any_value(calls.number), "
            "list(changes ORDER BY later.file, later.number) "
            "FROM later JOIN calls USING (id) GROUP BY row, place ORDER BY row"
        )
        for batch in self._store.select(sql, _BATCH):
            self.tally.feedback += len(batch)
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


def _put(place: list[int], at: int) -> None:
    place[:] = [at]


def _changed(trace: Trace, changes: Sequence[str]) -> Trace:
    """The call with later feedback merged into its own."""
    fields = trace.model_dump(exclude_defaults=True)
    for text in changes:
        new = json.loads(text)
        fields |= {**new, "feedback": {**fields.get("feedback", {}), **new["feedback"]}}
    return Trace.model_validate(fields)
