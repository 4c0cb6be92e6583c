"""What is wrong with wrong answers: kinds of mistakes to filter by, and which class was taken for which."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from vertigym.evals.report import Report

Json = dict[str, Any]
_CLASSES = 12  # values of an answer's field that are shown as classes, at most
_LONGEST = 60  # characters of a kind
_NO_JSON = re.compile(r"line \d+ column \d+")  # as json's errors end
NO_CLASS = "(none)"


def mistakes(score: float | None, evidence: Mapping[str, Any]) -> list[str]:
    """The kinds of mistakes in an answer that is not wholly right, as its verifier has said them."""
    if score is None or score >= 1:
        return []
    if isinstance(label := evidence.get("label"), list | tuple) and len(label) == 2:
        return [f"{label[0]} taken for {label[1] or NO_CLASS}"]
    if isinstance(wrong := evidence.get("wrong"), list | tuple) and wrong:
        return [f"wrong: {name}"[:_LONGEST] for name in wrong]
    if _NO_JSON.search(str(evidence.get("reason"))):
        return ["no JSON that can be read"]
    found = [f"state {name}" for name in ("missed", "damaged") if evidence.get(name)]
    return found or [str(evidence.get("reason") or evidence.get("verdict") or "wrong")[:_LONGEST]]


def class_confusions(report: Report) -> list[Json]:
    """A table of true against given labels for each environment of a report that classifies."""
    pairs: dict[str, Counter[tuple[str, str]]] = {}
    for row in report.rows:
        if row.labels:
            named = [(true, given or NO_CLASS) for true, given in row.labels]
            pairs.setdefault(row.env, Counter()).update(named)
    return [_table(f"{env} · {report.suite}", counts) for env, counts in pairs.items()]


def field_confusions(answers: Iterable[Iterable[Json]]) -> list[Json]:
    """The same for each field of answers (`answer_fields`) of two to a dozen right values, which recur."""
    pairs: dict[str, Counter[tuple[str, str]]] = {}
    for fields in answers:
        for field in fields:
            if field["right"] is not None:
                wrote = NO_CLASS if field["wrote"] is None else field["wrote"]
                pairs.setdefault(field["name"], Counter())[field["right"], wrote] += 1
    return [
        _table(name, counts)
        for name, counts in pairs.items()
        if 2 <= len(rights := {right for right, _ in counts}) <= _CLASSES and counts.total() > 2 * len(rights)
    ]


def _table(title: str, counts: Mapping[tuple[str, str], int]) -> Json:
    """Rows are the right classes; columns the same, then the rest that was given, most often first."""
    right = sorted({true for true, _ in counts})
    given = Counter[str]()
    for (_, name), count in counts.items():
        given[name] += count
    others = [name for name, _ in given.most_common() if name not in right]
    columns = [*right, *others[:_CLASSES]]
    rows = [[counts.get((true, name), 0) for name in columns] for true in right]
    if rest := others[_CLASSES:]:
        columns.append("(other)")
        for row, true in zip(rows, right, strict=True):
            row.append(sum(counts.get((true, name), 0) for name in rest))
    return {"title": title, "columns": columns, "right": right, "rows": rows}
