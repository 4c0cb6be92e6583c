"""What an import did: one row a step, the masked values, the labels, the splits; `report.json`."""

from pathlib import Path
from typing import Any

from pydantic import Field

from vertigym.core.config import Config
from vertigym.core.files import read_json
from vertigym.traces.benchmark_card import BenchmarkCard

EXAMPLES = 3  # kept of each step


class Step(Config):
    """One step: rows in, rows out, what happened, and examples."""

    name: str
    rows_in: int
    rows_out: int
    said: str = ""
    examples: tuple[str, ...] = ()


class SplitReport(Config):
    """One file of rows. `first` and `last` are the times of its calls, seconds since 1970."""

    rows: int
    customers: int
    first: float | None
    last: float | None


class SourceReport(Config):
    """One file that was read: `rows` (lines, or objects of a document) hold calls, or what was rejected,
    skipped, or feedback; a row of several calls counts once. `forms` says as what they were read, and how
    many."""

    sha256: str
    rows: int = 0
    calls: int = 0
    rejected: int = 0
    skipped: int = 0
    feedback: int = 0
    forms: dict[str, int] = Field(default_factory=dict)


class Masked(Config):
    """Personal data of one kind: different values, and how often they were replaced."""

    values: int
    replaced: int


class Topic(Config):
    """A group of what users ask: the words that name it, and its calls by split."""

    words: str
    rows: dict[str, int]


class TraceImportReport(Config):
    """`report.json`. `rejected` counts reasons, `skipped` what was no call and needed no reason."""

    version: str
    files: dict[str, SourceReport]
    said: dict[str, int] = Field(description="field (customer, session, …) -> calls written that have it")
    steps: tuple[Step, ...]
    rejected: dict[str, int]
    skipped: dict[str, int]
    masked: dict[str, Masked]
    conflicts: int
    splits: dict[str, SplitReport]
    labels: dict[str, dict[str, int]] = Field(description="label -> split -> rows, the most frequent first")
    topics: tuple[Topic, ...] = Field((), description="the largest first")
    card: BenchmarkCard
    notes: tuple[str, ...] = ()

    @classmethod
    def load(cls, folder: Path) -> "TraceImportReport":
        """The report of an imported folder."""
        return cls.model_validate(read_json(folder / "report.json"))

    def table(self) -> list[tuple[str, ...]]:
        """The steps for people: name, rows in, rows out, what happened."""
        return [(step.name, f"{step.rows_in:,}", f"{step.rows_out:,}", step.said) for step in self.steps]

    def examples(self) -> list[tuple[str, str]]:
        """An example of each step that has one."""
        return [(step.name, step.examples[0]) for step in self.steps if step.examples]

    def step(self, name: str) -> Step:
        """A step by its name."""
        return next(step for step in self.steps if step.name == name)

    def file_rows(self, most: int = 12) -> list[tuple[str, ...]]:
        """The files, as what they were read, and their counts."""
        rows: list[tuple[str, ...]] = []
        for name, one in list(self.files.items())[:most]:
            counts = (f"{count:,}" for count in (one.rows, one.calls, one.rejected))
            rows.append((Path(name).name, ", ".join(one.forms) or "-", *counts))
        more = len(self.files) - len(rows)
        return [*rows, (f"… and {more} more", "", "", "", "")] if more > 0 else rows

    def said_line(self) -> str:
        """How many of the calls written say who and what."""
        told = ", ".join(f"{count:,} have {field}" for field, count in self.said.items() if count)
        without = ", ".join(field for field, count in self.said.items() if not count)
        return "; ".join(filter(None, (told, f"none has {without}" if without else "")))

    def topic_rows(self, most: int = 12) -> list[tuple[str, ...]]:
        """The largest topics, their calls by split."""
        return [
            (topic.words, *(str(topic.rows.get(s, 0)) for s in self.splits)) for topic in self.topics[:most]
        ]

    def label_rows(self, most: int = 12) -> list[tuple[str, ...]]:
        """The most frequent labels, their calls by split."""
        rows = [
            (label, *(str(n.get(s, 0)) for s in self.splits)) for label, n in list(self.labels.items())[:most]
        ]
        more = len(self.labels) - len(rows)
        return [*rows, (f"… and {more} more", *("" for _ in self.splits))] if more > 0 else rows


def excerpt(text: Any, length: int = 60) -> str:
    """A text on one line, cut."""
    line = " ".join(str(text).split())
    return line if len(line) <= length else line[: length - 1] + "…"
