"""What a file of a team is (rules, questions and answers, a log, tests), and the environment it becomes."""

import csv
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vertigym.core.errors import ConfigError, DataError
from vertigym.core.files import read_text, write_text
from vertigym.core.types import SPLITS, Split
from vertigym.decisions.formats import FORMATS, guess
from vertigym.decisions.spreadsheets.header_words import POLICIES, is_numbering
from vertigym.decisions.spreadsheets.sheet_pages import read_pages
from vertigym.envs.code.pytest_files import find_tests
from vertigym.envs.code.pytest_import import import_tests
from vertigym.envs.decision.importer import import_decision
from vertigym.envs.logged.source import at
from vertigym.envs.rows import QUESTION
from vertigym.projects.answer_kinds import Answered, final_answers, kind_of, write_environment
from vertigym.projects.questions import ANSWER, read_questions
from vertigym.traces.config import ImportConfig
from vertigym.traces.importer import import_traces
from vertigym.traces.preferences import verdict
from vertigym.traces.reading import SUFFIXES, rows
from vertigym.traces.records import read_traces
from vertigym.traces.table_rows import is_saved, on_hub

ENVIRONMENT = "environment"
_TRUTH = ("feedback.edit", "label")


@dataclass(frozen=True, slots=True)
class Choice:
    """One thing that was decided for the user, and why."""

    what: str
    chosen: str
    why: str


@dataclass(frozen=True, slots=True)
class Source:
    """What became of a file: choices, notes, and the metric that says how good an answer is."""

    metric: str
    choices: Sequence[Choice]
    notes: Sequence[str] = ()


def read_source(
    file: Path,
    id: str,  # noqa: A002
    project: Path,
    seed: int,
    columns: Mapping[str, str] | None = None,
) -> Source:
    """Make the environment of a file, in the folder `environment` of the project. `columns`: of questions and
    answers, our name -> theirs.

    Raises:
        InputError: there is no such file, it is none of what can be read, or says too little.
    """
    if on_hub(file) or is_saved(file) or (columns and file.is_file()):
        why = f"the columns were named: {', '.join(columns)}" if columns else "it is a data set with splits"
        return _of_questions(file, why, id, project, seed, columns)
    if file.is_dir():
        return _of_tests(file, id, project)
    if not file.is_file():
        raise DataError(f"{file}: no such file")
    if why := _questions_by(file):
        return _of_questions(file, why, id, project, seed)
    if _is_rules(file):
        _refuse_sentences(file)
        return _of_rules(file, id, project, seed)
    return _of_log(file, id, project)


def _suffix(file: Path) -> str:
    return (file.with_suffix("") if file.suffix == ".gz" else file).suffix.lower()


def _questions_by(file: Path) -> str:
    """The columns of questions and answers, where the file has both.

    Raises:
        DataError: it has them, but they are not separated as its name says.
    """
    suffix = _suffix(file)
    if suffix not in SUFFIXES or (suffix == ".json" and _is_rules(file)):
        return ""
    mark = {".csv": ",", ".tsv": "\t"}.get(suffix, "")
    for separator in (mark, *";\t,|") if mark and file.suffix != ".gz" else ("",):
        names = _header(file, separator) if separator else _keys(file)
        question = next((name for name in QUESTION if name in names), "")
        if question and ANSWER in names:
            if separator != mark:
                raise DataError(
                    f"{file}: its columns are separated by {separator!r}: separate them by {mark!r}"
                )
            return f"it has the columns {question} and {ANSWER}"
    return ""


def _refuse_sentences(file: Path) -> None:
    """Raise ConfigError for a table of two columns that may be rules, or questions under other names."""
    if guess(file) not in ("csv", "xlsx"):
        return
    rows = [row for row in read_pages(file)[0].grid if any(cell.text for cell in row)]
    columns = [column for column in zip(*rows, strict=False) if any(cell.text for cell in column)]
    if columns and columns[0][0].text not in POLICIES and is_numbering(columns[0][1:]):
        columns = columns[1:]
    if len(columns) != 2 or any("->" in column[0].text for column in columns):
        return
    question, answer = (column[0].text for column in columns)
    asked = [cell.text for cell in columns[0][1:]]
    sentences = sum(len(text.split()) > 2 and not re.search(r"[<>=\[\]\"]|\.\.", text) for text in asked)
    if 2 * sentences > len(asked):
        csv_first = "" if _suffix(file) in SUFFIXES else "save it as .csv and "
        raise ConfigError(
            f"{file}: questions and answers, or rules? For the first {csv_first}add --column "
            f"'question={question}' --column 'answer={answer}'; for the second mark what is decided: "
            f"-> {answer}"
        )


def _header(file: Path, separator: str) -> Sequence[str]:
    """The first line of a table."""
    return next(csv.reader([read_text(file).partition("\n")[0]], delimiter=separator), [])


def _keys(file: Path) -> Collection[str]:
    """The columns of the first row."""
    return next((row.keys() for _, row, _ in rows(file) if isinstance(row, dict)), ())


def _is_rules(file: Path) -> bool:
    """Whether it is a decision model, by its name; `.json` also holds logs, so by its nodes."""
    suffix = _suffix(file)
    return "nodes" in _keys(file) if suffix == ".json" else suffix in FORMATS or suffix not in SUFFIXES


def _of_rules(file: Path, id: str, project: Path, seed: int) -> Source:  # noqa: A002
    found = import_decision(file, id, project / ENVIRONMENT, rules="hidden", seed=seed)
    hit = f"{found.rules - len(found.not_hit)} of its {found.rules} rules are hit by a case"
    counts = ", ".join(f"{count} {split}" for split, count in found.counts.items())
    choices = [
        Choice(
            "read as", "a decision model", hit if found.rules else "its expressions decide, it has no rules"
        ),
        Choice("given", ", ".join(found.given), "what its conditions read"),
        Choice("asked for", ", ".join(found.outputs), "what it computes"),
        Choice("tasks", counts, f"cases drawn over {found.patterns} patterns of rules, answered by the engine"),
        Choice("rules", "hidden", "the model is to know them, so that prompts stay short"),
    ]
    notes = [*found.warnings, *(f"rule {f.rule} ({f.text}): {f.kind}, {f.reason}" for f in found.findings)]
    notes += [f"no case was found for rule {rule} ({text})" for rule, text in found.not_proven]
    return Source("exact", choices, notes)


def _of_tests(folder: Path, id: str, project: Path) -> Source:  # noqa: A002
    found = find_tests(folder)
    if found is None:
        raise DataError(
            f"{folder}: is a folder without pytest tests (test_*.py); give those, or one file: rules, "
            "questions and answers, or a log of calls"
        )
    report = import_tests(found[0], id, project / ENVIRONMENT, package=found[1])
    counts = ", ".join(f"{count} {split}" for split, count in report.counts.items())
    choices = [
        Choice("read as", "pytest tests", f"{found[0]} tests {found[1]}"),
        Choice(
            "tasks",
            counts,
            f"a function without its body each; {report.used} of {report.tests} tests judge them",
        ),
        Choice("tests", "hidden", "they run in a sandbox of their own, which no answer can reach"),
    ]
    refused = [f"{count} functions give no task: {reason}" for reason, count in report.reasons.items()]
    return Source("score", choices, refused)


def _of_questions(
    file: Path,
    why: str,
    id: str,  # noqa: A002
    project: Path,
    seed: int,
    columns: Mapping[str, str] | None = None,
) -> Source:
    splits, left = read_questions(file, seed, columns)
    return _of_answers("questions and answers", why, id, project, splits, left)


def _of_log(file: Path, id: str, project: Path) -> Source:  # noqa: A002
    """A log is cleaned, and judged by the labels or the edits in it, or by what people accepted."""
    report = import_traces([file], project / "traces", ImportConfig())
    lost = {f"{step.name}: {step.said}": step.rows_in - step.rows_out for step in report.steps}
    cleaned = {reason: count for reason, count in lost.items() if count}
    splits: dict[Split, list[Answered]] = {split: [] for split in SPLITS}
    said = told = 0
    for split in SPLITS:
        for trace in read_traces(project / "traces" / f"{split}.jsonl"):
            said += verdict(trace) is not None
            told += at(trace, _TRUTH) is not None
            truth = str(at(trace, (*_TRUTH, "accepted")) or "").strip()
            if truth:
                cluster = trace.cluster or trace.customer
                splits[split].append(Answered(trace.id, trace.messages, truth, cluster))
    if told and all(splits.values()):  # what was accepted is right where people also say what is right
        why = "calls have labels or edits, or people accepted the answer"
        return _of_answers("a log", why, id, project, splits, cleaned)
    if not said:
        raise ConfigError(
            f"{file}: nothing in it says what is right: a log of calls takes labels, edits, thumbs or "
            "outcomes (docs/traces.md); a table of questions and answers has columns of these names"
        )
    write_text(project / ENVIRONMENT / "env.toml", f'id = "{id}"\nkind = "outcome"\ntraces = "../traces"\n')
    why = f"people accepted, or sent back, the answers of {said} calls"
    return Source("score", [Choice("read as", "a log", why)], _left(cleaned))


def _of_answers(
    what: str,
    why: str,
    id: str,  # noqa: A002
    project: Path,
    splits: dict[Split, list[Answered]],
    left: Mapping[str, int],
) -> Source:
    finals = final_answers(splits)
    splits = finals or splits
    kind = kind_of([row.answer for part in splits.values() for row in part], worked=finals is not None)
    write_environment(project / ENVIRONMENT, id, kind, splits)
    counts = ", ".join(f"{len(splits[split])} {split}" for split in SPLITS)
    choices = [
        Choice("read as", what, why),
        Choice("answers", f"{kind.name}s", ("what stands after ####: " if finals else "") + kind.why),
        Choice("tasks", counts, "equal questions are one; what belongs together is on one side"),
    ]
    return Source(kind.metric, choices, [*_left(left), *([kind.note] if kind.note else [])])


def _left(counts: Mapping[str, int]) -> list[str]:
    return [f"{count} rows left out: {reason}" for reason, count in counts.items()]
