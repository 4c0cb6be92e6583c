"""Questions and answers in a table or in JSON lines: read, cleaned, split.

Columns: `question` (or `prompt`: text or chat messages) and `answer`; a column `split` (train, eval, test) is
kept where every row has one. The one idea: a question is one task. Equal questions are one row; where their
answers differ, none of them says what is right, and all are left out. What is left out is counted.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vertigym.core.errors import ConfigError, DataError
from vertigym.core.files import dumps
from vertigym.core.seeds import generator
from vertigym.core.types import SPLITS, Message, Split
from vertigym.envs.rows import QUESTION
from vertigym.projects.answer_kinds import Answered
from vertigym.traces.table_rows import TornRow, read_rows_or_why

ANSWER = "answer"
_OURS = ("question", "answer", "id", "split")
_HELD_OUT = 0.2  # for evals, and again for the release


def pairs(given: Sequence[str]) -> dict[str, str]:
    """`question=problem` as {"question": "problem"}.

    Raises:
        ConfigError: another form, or a column that nobody asks for.
    """
    found = dict[str, str]()
    for text in given:
        ours, equals, theirs = text.partition("=")
        if not (equals and theirs.strip()) or ours.strip() not in _OURS:
            raise ConfigError(f"column {text!r}: the form is OURS=THEIRS, and ours are {', '.join(_OURS)}")
        found[ours.strip()] = theirs.strip()
    return found


def read_questions(
    file: Path, seed: int, columns: Mapping[str, str] | None = None
) -> tuple[dict[Split, list[Answered]], Counter[str]]:
    """The rows by split, and how many were left out, by reason. `columns`: our name of a column -> theirs.

    Raises:
        DataError: fewer rows are left than three splits need.
    """
    left: Counter[str] = Counter()
    found: dict[str, tuple[Answered, str]] = {}
    wrong: set[str] = set()
    ids: set[str] = set()  # of tasks, which are unique; a column `id` may be a customer's
    for number, row in enumerate(read_rows_or_why(file, columns=columns), 1):
        if isinstance(row, TornRow):
            left[row.reason] += 1
            continue
        read = _answered(row.cells, number)
        if isinstance(read, str):
            left[read] += 1
            continue
        key = dumps([dict(message) for message in read.messages])
        if key in found:
            same = found[key][0].answer == read.answer
            left["the same question again" if same else "the same question with another answer"] += 1
            wrong |= set() if same else {key}
        else:
            own = read if read.id not in ids else replace(read, id=f"{read.id}, row {number}")
            found[key] = own, str(row.cells.get("split") or "")
            ids.add(own.id)
    for key in wrong:
        del found[key]
        left["the same question with another answer"] += 1
    splits = _split(list(found.values()), seed)
    if not all(splits.values()):
        counts = ", ".join(f"{len(part)} {split}" for split, part in splits.items())
        why = "".join(f"; {count} left out: {reason}" for reason, count in left.items())
        raise DataError(f"{file}: {counts} rows: training, evals and the release need some each{why}")
    return splits, left


def _answered(row: Mapping[str, Any], number: int) -> Answered | str:
    """A row's question and answer, or why it has none."""
    question = next((row[name] for name in QUESTION if row.get(name)), None)
    answer = row.get(ANSWER)
    messages = _messages(question)
    if not messages:
        return "no question"
    text = answer.strip() if isinstance(answer, str) else "" if answer is None else dumps(answer)
    if not text:
        return "no answer"
    return Answered(str(row.get("id") or number), messages, text)


def _messages(question: Any) -> Sequence[Message]:
    """The chat that a question is; none where it is nothing that a model can be asked."""
    if isinstance(question, str) and question.strip():
        return [{"role": "user", "content": question}]
    if isinstance(question, list) and all(
        isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str)
        for m in question
    ):
        return [{"role": m["role"], "content": m["content"]} for m in question]
    return []


def _split(found: Sequence[tuple[Answered, str]], seed: int) -> dict[Split, list[Answered]]:
    """By their own column where all have one, else drawn; so is a split that the column lacks, out of train."""
    own = bool(found) and all(split in SPLITS for _, split in found)
    parts: dict[Split, list[Answered]] = {
        split: [row for row, theirs in found if own and theirs == split] for split in SPLITS
    }
    left = parts["train"] if own else [row for row, _ in found]
    drawn = [left[i] for i in generator(seed, "project splits").permutation(len(left))]
    for split in ("test", "eval"):
        if not parts[split]:
            end = len(drawn) - round(len(left) * _HELD_OUT)
            parts[split], drawn = drawn[end:], drawn[:end]
    whole = own and sum(map(len, parts.values())) == len(found)  # nothing was drawn
    return parts | ({} if whole else {"train": drawn})
