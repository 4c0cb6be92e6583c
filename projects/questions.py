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

from vertigym.core.errors import DataError
from vertigym.core.files import dumps
from vertigym.core.seeds import generator
from vertigym.core.types import SPLITS, Message, Split
from vertigym.projects.answer_kinds import Answered
from vertigym.traces.reading import rows
from vertigym.traces.records import Unreadable

QUESTION, ANSWER = ("question", "prompt"), "answer"
_SHARES: Mapping[Split, float] = {"train": 0.6, "eval": 0.2, "test": 0.2}


def read_questions(file: Path, seed: int) -> tuple[dict[Split, list[Answered]], Counter[str]]:
    """The rows by split, and how many were left out, by reason.

    Raises:
        DataError: fewer rows are left than three splits need.
    """
    left: Counter[str] = Counter()
    found: dict[str, tuple[Answered, str]] = {}
    wrong: set[str] = set()
    ids: set[str] = set()  # of tasks, which are unique; a column `id` may be a customer's
    for number, row, _ in rows(file):
        read = _answered(row, number)
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
            found[key] = own, str(row.get("split") or "")
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


def _answered(row: Any, number: int) -> Answered | str:
    """A row's question and answer, or why it has none."""
    if isinstance(row, Unreadable):
        return row.reason
    if not isinstance(row, dict):
        return "not an object with columns"
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
    """By their own column where all have one, else drawn."""
    if found and all(split in SPLITS for _, split in found):
        return {split: [row for row, own in found if own == split] for split in SPLITS}
    drawn = [found[i][0] for i in generator(seed, "project splits").permutation(len(found))]
    ends = [round(len(drawn) * share) for share in (_SHARES["train"], _SHARES["train"] + _SHARES["eval"])]
    parts = (drawn[: ends[0]], drawn[ends[0] : ends[1]], drawn[ends[1] :])
    return dict(zip(SPLITS, parts, strict=True))
