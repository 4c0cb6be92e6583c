"""`vertigym traces import`: logs in; clean rows by split out, and a report that adds up.

The files are streamed once: each call is read, searched for held-out tasks, masked, and put on disk. The steps
of `cleaning` say which rows leave. At last the rest is streamed into the splits. What is held in memory does
not grow with the rows, but for 20 bytes each, hashes of the values that were masked and the pairs of
near-duplicates.
"""

import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import tomli_w

from vertigym import __version__
from vertigym.core.errors import DataError, OutputError
from vertigym.core.files import dumps, sha256, write_json, write_jsonl, write_text
from vertigym.core.manifest import claim_folder, sealed_folder
from vertigym.core.types import SPLITS
from vertigym.traces import cleaning
from vertigym.traces.benchmark_card import benchmark_card
from vertigym.traces.config import ImportConfig
from vertigym.traces.contamination import TasksOf, only_files
from vertigym.traces.import_report import (
    EXAMPLES,
    Masked,
    SourceReport,
    SplitReport,
    Step,
    Topic,
    TraceImportReport,
    excerpt,
)
from vertigym.traces.ingest import Progress, Reader
from vertigym.traces.label_noise import LabelNoise, Suspect, label_noise
from vertigym.traces.near_duplicates import minhash
from vertigym.traces.pii.key_file import claim_key, write_key
from vertigym.traces.reading import log_files
from vertigym.traces.records import IMPORTED, Trace
from vertigym.traces.store import Store

_SAID = (
    "customer", "session", "time", "model", "version", "feedback", "outcome", "label", "cluster",
    "latency_s", "cost",
)  # fmt: skip


def import_traces(
    paths: Sequence[Path],
    out: Path,
    config: ImportConfig,
    on_progress: Progress = lambda *_: None,
    *,
    tasks_of: TasksOf = only_files,
    force: bool = False,
) -> TraceImportReport:
    """Import logs into the folder `out` (see `records.py` for what lies there), whole or not at all. What was
    read before a kill lies in a hidden folder beside it, and the same import goes on from there. `tasks_of`
    gives the held-out tasks of the environments that `decontaminate.against` names.

    Raises:
        DataError: a file is missing or no log, or nothing in them is a call.
        OutputError: `out` is no import, or one that was edited and `force` is not given.
        MissingDependencyError: the extra `traces` is not installed.
    """
    files = log_files(paths)
    if config.duplicates.near:
        minhash()  # what is missing is said before hours of reading, not after
    key = Path(config.pii.key) if config.pii.key else None
    if key and key.resolve().is_relative_to(out.resolve()):
        raise OutputError(f"{key}: the key lies apart from what it opens; name a file outside of {out}")
    if key:
        claim_key(key)
    claim_folder(out, IMPORTED, force=force)
    work = out.resolve().with_name(f".{out.resolve().name}.work")
    with Store(work, config.memory_mb) as store:
        reader = Reader(files, store, config, tasks_of)
        reader.read(on_progress)
        if not store.rows:
            reasons = "; ".join(f"{reason} ({n} times)" for reason, n in reader.tally.rejected.most_common(3))
            raise DataError(f"{files[0]}: no call in what was given: {reasons or 'it is empty'}")
        with sealed_folder(out, IMPORTED, force=force) as folder:
            report = _Import(store, folder, config, files, reader).run()
            if key:
                write_key(key, store.placeholders())
        return report


class _Import:
    """The steps after reading, and what is written."""

    def __init__(
        self, store: Store, folder: Path, config: ImportConfig, files: Sequence[Path], reader: Reader
    ) -> None:
        self._store, self._folder, self._config, self._files, self._reader = (
            store,
            folder,
            config,
            files,
            reader,
        )
        self._steps: list[Step] = []
        self._left = store.rows
        self._said: Counter[str] = Counter()

    def run(self) -> TraceImportReport:
        self._steps_of_reading()
        cleaning.drop_equal(self._store, self._config)
        for name in ("exact duplicates", "superseded"):
            self._step(name)
        conflicts = cleaning.settle_conflicts(self._store, self._config)
        listed = self._write_conflicts()
        self._step("label conflicts", f"{conflicts:,} inputs with several answers", listed)
        cleaning.drop_near(self._store, self._config)
        self._step("near-duplicates")
        topics = cleaning.find_groups(self._store, self._config)
        notes = cleaning.assign_splits(self._store, self._config)
        self._step("seen in an earlier split", f"split by {self._config.split.by}")
        cleaning.balance(self._store, self._config)
        self._step("balance")
        self._name()
        judged = label_noise(self._store)
        self._write_suspects(judged.suspects if judged else ())
        self._write_dropped()
        self._write_splits()
        shutil.copyfile(self._reader.rejects, self._folder / "rejected.jsonl")
        report = self._report(conflicts, notes, topics, judged)
        write_json(self._folder / "report.json", report.model_dump(mode="json"))
        spans = {split: (part.first, part.last) for split, part in report.splits.items()}
        write_text(self._folder / "card.md", report.card.markdown(spans))
        write_text(self._folder / "traces.toml", tomli_w.dumps(self._config.model_dump(mode="json")))
        return report

    def _steps_of_reading(self) -> None:
        tally, rows = self._reader.tally, self._store.rows
        rejected = tally.rejected.total()
        others = (tally.rejected + tally.skipped).most_common(3)
        reasons = "; ".join(f"{what}: {n:,}" for what, n in others)
        self._add("read", rows + rejected, rows, reasons, tally.examples["rejected"])
        if tally.feedback:
            self._add("feedback joined", rows, rows, f"{tally.feedback:,} calls")
        sources = ", ".join(f"{n:,} with {source}" for source, n in tally.contaminated.most_common(3))
        self._step("contaminated", sources, tally.examples["contaminated"])
        found = ", ".join(f"{n:,} {kind}" for kind, n in sorted(self._reader.masker.values.items()))
        said = f"{tally.masked_rows:,} calls; {found}" if found else ""
        self._add("masked", self._left, self._left, said, tally.examples["masked"])

    def _add(self, name: str, rows_in: int, rows_out: int, said: str, examples: Sequence[str] = ()) -> None:
        self._left = rows_out
        self._steps.append(
            Step(name=name, rows_in=rows_in, rows_out=rows_out, said=said, examples=tuple(examples))
        )

    def _step(self, name: str, said: str = "", examples: Sequence[str] = ()) -> None:
        """Report a step that dropped rows."""
        gone = self._store.count("fate", f"step = '{name}'")
        said = ", ".join(filter(None, (f"{gone:,} dropped" if gone else "", said)))
        self._add(name, self._left, self._left - gone, said, examples or self._examples(name))

    def _examples(self, step: str) -> list[str]:
        sql = f"SELECT row, kept, overlap FROM fate WHERE step = '{step}' ORDER BY row LIMIT {EXAMPLES}"
        found = self._store.db.execute(sql).fetchall()
        traces = self._store.of({row for pair in found for row in pair[:2] if row is not None})
        made = []
        for row, kept, share in found:
            text = f"{traces[row].id}: {excerpt(traces[row].question)}"
            if kept is not None:
                sign = "=" if share == 1 else f"~ {share:.2f}" if share else "after"
                text += f" {sign} {traces[kept].id}: {excerpt(traces[kept].question)}"
            made.append(text)
        return made

    # -- writing

    def _name(self) -> None:
        """Ids are unique in what is written: the second call named `x` becomes `x~2`."""
        self._store.db.execute("""
            CREATE OR REPLACE TABLE names AS
            SELECT row, CASE WHEN n = 1 THEN id ELSE id || '~' || n END AS name
            FROM (SELECT row, id, row_number() OVER (PARTITION BY id ORDER BY row) AS n FROM alive)
        """)

    def _write_conflicts(self) -> list[str]:
        """All inputs with several answers: how many calls gave which. Some of them in words."""
        examples: list[str] = []
        with (self._folder / "conflicts.jsonl").open("w", encoding="utf-8", newline="\n") as file:
            for answers in cleaning.conflicts(self._store):
                traces = self._store.of(row for row, _ in answers)
                told = [
                    {"answer": _answer(traces[row]), "calls": n, "first": traces[row].id} for row, n in answers
                ]
                asked = traces[answers[0][0]].question
                file.write(dumps({"input": asked, "answers": told}) + "\n")
                if len(examples) < EXAMPLES:
                    counts = ", ".join(f"{excerpt(a['answer'], 30)} ({a['calls']})" for a in told)
                    examples.append(f"{excerpt(asked)}: {counts}")
        return examples

    def _write_suspects(self, suspects: Sequence[Suspect]) -> None:
        """The calls whose labels others contradict, the clearest first."""
        traces = self._store.of(one.row for one in suspects)
        listed = ",".join(str(row) for row in traces) or "NULL"
        sql = f"SELECT row, name, split FROM names JOIN splits USING (row) WHERE row IN ({listed})"
        where = {
            row: {"id": name, "split": split} for row, name, split in self._store.db.execute(sql).fetchall()
        }
        write_jsonl(
            self._folder / "suspects.jsonl",
            (
                {**where[one.row], "label": one.label, "rather": one.rather, "margin": one.margin}
                | {"input": excerpt(traces[one.row].question, 200)}
                for one in suspects
            ),
        )

    def _write_dropped(self) -> None:
        """Every row that left: where it stood, which step, for which row that stayed."""
        sql = (
            "SELECT file, number, id, step, name, overlap FROM fate JOIN calls USING (row) "
            "LEFT JOIN names ON names.row = fate.kept ORDER BY fate.row"
        )
        with (self._folder / "dropped.jsonl").open("w", encoding="utf-8", newline="\n") as file:
            for batch in self._store.select(sql):
                for index, number, name, step, kept, overlap in batch:
                    row = {"file": str(self._files[index]), "number": number, "id": name, "step": step}
                    row |= {"for": kept} if kept is not None else {}
                    row |= {"overlap": round(overlap, 3)} if overlap is not None else {}
                    file.write(dumps(row) + "\n")

    def _write_splits(self) -> None:
        """The rows that stay, in the order read, each into the file of its split."""
        sql = """
            WITH copies AS (
                SELECT kept AS row, count(*) AS n FROM fate WHERE step = 'exact duplicates' GROUP BY kept
            )
            SELECT place, name, split, n
            FROM alive JOIN splits USING (row) JOIN names USING (row) LEFT JOIN copies USING (row) ORDER BY row
        """
        with ExitStack() as stack:
            files = {
                split: stack.enter_context(
                    (self._folder / f"{split}.jsonl").open("w", encoding="utf-8", newline="\n")
                )
                for split in SPLITS
            }
            for batch in self._store.select(sql):
                for place, name, split, copies in batch:
                    trace = _final(self._store.read(place), name, copies)
                    self._said.update(field for field in _SAID if getattr(trace, field) not in (None, ""))
                    files[split].write(trace.line())

    def _report(
        self, conflicts: int, notes: Sequence[str], topics: Sequence[str], judged: LabelNoise | None
    ) -> TraceImportReport:
        masker = self._reader.masker
        return TraceImportReport(
            version=__version__,
            files={str(file): self._source(file) for file in self._files},
            said={field: self._said[field] for field in _SAID},
            steps=tuple(self._steps),
            rejected=dict(self._reader.tally.rejected.most_common()),
            skipped=dict(self._reader.tally.skipped.most_common()),
            masked={k: Masked(values=n, replaced=masker.replaced[k]) for k, n in masker.values.items()},
            conflicts=conflicts,
            splits={split: self._split(split) for split in SPLITS},
            labels=self._labels(),
            topics=self._topics(topics),
            card=benchmark_card(self._store, self._config, judged),
            notes=tuple(notes),
        )

    def _source(self, file: Path) -> SourceReport:
        counts, forms = (
            of.get(str(file), Counter()) for of in (self._reader.tally.counts, self._reader.tally.forms)
        )
        return SourceReport(sha256=sha256(file), **counts, forms=dict((+forms).most_common()))

    def _split(self, split: str) -> SplitReport:
        sql = """
            SELECT count(*), count(DISTINCT customer) FILTER (WHERE customer <> ''), min(time), max(time)
            FROM alive JOIN splits USING (row) WHERE split = $1
        """
        n, customers, first, last = self._store.db.execute(sql, [split]).fetchone()
        return SplitReport(rows=n, customers=customers, first=first, last=last)

    def _topics(self, words: Sequence[str]) -> tuple[Topic, ...]:
        """The groups of what users ask, the largest first."""
        sql = """
            SELECT topic, split, count(*) FROM alive JOIN topics USING (row) JOIN splits USING (row)
            GROUP BY topic, split ORDER BY topic, split
        """
        rows: dict[int, dict[str, int]] = {}
        for topic, split, count in self._store.db.execute(sql).fetchall():
            rows.setdefault(topic, {})[split] = count
        made = [Topic(words=words[t] if t >= 0 else "(no topic)", rows=found) for t, found in rows.items()]
        return tuple(sorted(made, key=lambda topic: -sum(topic.rows.values())))

    def _labels(self, most: int = 200) -> dict[str, dict[str, int]]:
        """Labels by split; none where almost every short answer is another."""
        rows: list[tuple[Any, ...]] = self._store.db.execute(f"""
            SELECT label, split, n FROM (
                SELECT label, split, count(*) AS n, sum(count(*)) OVER (PARTITION BY label) AS total
                FROM alive JOIN splits USING (row) WHERE label IS NOT NULL GROUP BY label, split
            ) QUALIFY dense_rank() OVER (ORDER BY total DESC, label) <= {most} + 1
            ORDER BY total DESC, label, split
        """).fetchall()
        labels: dict[str, dict[str, int]] = {}
        for label, split, n in rows:
            labels.setdefault(label, {})[split] = n
        return labels if len(labels) <= most else {}


def _final(trace: Trace, name: str, copies: int | None) -> Trace:
    """The row as it is written: its unique name, and how often the very same call was logged."""
    if not copies and name == trace.id:
        return trace
    meta = {**trace.meta, "copies": copies + 1} if copies else trace.meta
    return trace.model_copy(update={"id": name, "meta": meta})


def _answer(trace: Trace) -> str:
    return trace.label if trace.label is not None else trace.completion
