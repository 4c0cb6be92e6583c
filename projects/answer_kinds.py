"""What kind of answers a team's data has, and the environment that judges them.

    label     short texts that come again and again    kind = "classify"
    record    JSON objects                             kind = "extract"
    number    numbers, fractions, percents             kind = "rows", compared as mathematics
    text      anything else                            kind = "rows", judged word for word

The one idea: the answers themselves say it, by how often each stands there and what it can be read as.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any

import tomli_w

from vertigym.core.files import write_json, write_jsonl, write_text
from vertigym.core.types import Message, Split
from vertigym.envs.agent.config import schema_of
from vertigym.rewards.answers import hashes
from vertigym.rewards.replies import json_in

_MOST_LABELS = 50
_ROWS_A_LABEL = 8  # on average, at least
_LABEL_WORDS = 6  # at most
_MATH = find_spec("math_verify") is not None
_WORK_OUT = "Work it out, and write the final answer on the last line, after ####."
_LONG_WORDS = 12  # of an answer on average: few are then written word for word
_NUMBER = re.compile(r"[+-]?[$€£]? ?(\d[\d,]*(\.\d+)?|\.\d+)( ?/ ?\d+)? ?%?|\$?[+-]?\\d?frac\{\d+\}\{\d+\}\$?")


@dataclass(frozen=True, slots=True)
class Answered:
    """A chat that went in, and the right answer. `cluster`: what it shares with others, a customer say."""

    id: str
    messages: Sequence[Message]
    answer: str
    cluster: str = ""


@dataclass(frozen=True, slots=True)
class AnswerKind:
    """How answers are judged: the metric that a gate is on, what is told to the user, and why."""

    name: str
    metric: str
    why: str
    note: str = ""
    worked: bool = False  # a reply works it out first


def final_answers(splits: Mapping[Split, Sequence[Answered]]) -> dict[Split, list[Answered]] | None:
    """What stands after `####`, where it stands in every answer (GSM8K's form); else None."""
    found = {split: [(row, hashes(row.answer)) for row in rows] for split, rows in splits.items()}
    if not all(final for rows in found.values() for _, final in rows):
        return None
    return {split: [replace(row, answer=final or "") for row, final in rows] for split, rows in found.items()}


def kind_of(answers: Sequence[str], *, worked: bool = False) -> AnswerKind:
    """The kind of these answers; `worked`: they are what stood after `####` below a worked solution."""
    counts = Counter(answers)
    if all(_is_record(answer) for answer in counts):
        return AnswerKind("record", "score", "every answer is a JSON object")
    few = 2 <= len(counts) <= min(_MOST_LABELS, len(answers) // _ROWS_A_LABEL)
    if few and max(len(answer.split()) for answer in counts) <= _LABEL_WORDS:
        return AnswerKind("label", "right", f"{len(counts)} short answers stand for all {len(answers)} rows")
    if all(_NUMBER.fullmatch(answer) for answer in counts):
        how = "mathematics" if _MATH else "plain numbers (as mathematics with vertigym[math])"
        return AnswerKind("number", "score", f"every answer is a number; compared as {how}", worked=worked)
    words = fmean(len(answer.split()) for answer in answers)
    note = (
        f"answers of {words:.0f} words on average are judged word for word, which few models meet: shorter "
        "ones, or thumbs and edits in a log, say better what is right"
        if words > _LONG_WORDS
        else ""
    )
    return AnswerKind("text", "score", f"{len(counts)} different answers, {words:.0f} words on average", note)


def write_environment(
    folder: Path,
    id: str,  # noqa: A002
    kind: AnswerKind,
    splits: Mapping[Split, Sequence[Answered]],
) -> None:
    """An environment's folder: its rows, by split, and an `env.toml` that judges answers of this kind."""
    answers = [row.answer for rows in splits.values() for row in rows]
    for split, rows in splits.items():
        write_jsonl(folder / f"{split}.jsonl", [_row(row, kind) for row in rows])
    table: dict[str, Any] = {"id": id, "kind": "rows", "files": {split: f"{split}.jsonl" for split in splits}}
    if kind.name == "label":
        table = {"id": id, "kind": "classify", "label": "label", "labels": sorted(set(answers))}
    elif kind.name == "record":
        table = {"id": id, "kind": "extract", "answer": "label"}
        write_json(folder / "schema.json", schema_of(json_in(answer) for answer in answers))
    elif kind.name == "number":
        place = "#### or last line" if kind.worked else "last line"
        table |= {"instruction": _WORK_OUT if kind.worked else "Answer with the number alone."}
        table |= {"reward": {"name": "math" if _MATH else "numeric", "where": place}}
    else:
        table |= {"reward": {"name": "normalised_text"}}
    write_text(folder / "env.toml", tomli_w.dumps(table))


def _row(row: Answered, kind: AnswerKind) -> dict[str, Any]:
    shared = {"id": row.id, "cluster": row.cluster}
    if kind.name in ("label", "record"):
        return shared | {"messages": row.messages, "completion": row.answer, "label": row.answer}
    return shared | {"prompt": row.messages, "answer": row.answer}


def _is_record(answer: str) -> bool:
    try:
        return isinstance(json_in(answer), dict)
    except ValueError:
        return False
