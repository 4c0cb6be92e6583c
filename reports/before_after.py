"""Before and after: what a run started from beside what ships, in all and rule by rule; and wrong answers
beside the right ones. The metrics are those that the suite names, which its gates are on.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from vertigym.evals.gate import compare_rows
from vertigym.evals.report import Report
from vertigym.evals.statistics import Estimate
from vertigym.reports.run_summary import gated_metrics, per_rule

Json = dict[str, Any]
_DEEP = 3  # levels of an answer whose fields are set side by side


def gain_text(before: Report, after: Report) -> str:
    """`exact 0.463 → 0.910: +0.447 [+0.381, +0.510] on 300 tasks`, a metric after the other."""
    found = []
    for metric in gated_metrics(after):
        difference, now, was = compare_rows(
            after.rows,
            before.rows,
            metric,
            confidence=after.confidence,
            price=after.price,
            other_price=before.price,
            limits=after.limits(metric),
        )
        if was is None or now is None or difference.mean is None:
            continue
        known = difference.low is not None and difference.high is not None
        interval = f" [{difference.low:+z.3f}, {difference.high:+z.3f}]" if known else ""
        change = f"{difference.mean:+z.3f}{interval} on {difference.tasks} tasks"
        found.append(f"{metric} {was:.3f} → {now:.3f}: {change}")
    return "; ".join(found)


def rule_table(before: Report | None, after: Report, texts: Mapping[str, str]) -> Json | None:
    """Every rule in words with its tasks, before and after, the worst first; those without tasks at the end.
    None where there are no rules."""
    metric = next(iter(gated_metrics(after)))
    now = per_rule(after, metric)
    was = per_rule(before, metric) if before else {}
    if not (now or texts):
        return None
    known = sorted(now, key=lambda rule: _mean(now[rule]))
    rows = [[texts.get(r, r), str(now[r].tasks), _cell(was.get(r)), _cell(now[r])] for r in known]
    rows += [[text, "no task", "", ""] for rule, text in texts.items() if rule not in now]
    head = ["rule", "tasks", "before", "after"]
    return {"title": f"Rules: {metric} · {after.suite}", "head": head, "rows": rows}


def answer_fields(wrote: str, right: str) -> list[Json]:
    """A model's answer and the right one, field by field where both are JSON objects; a field that one lacks is
    None. Numbers are the same where they are equal, 2 and 2.0."""
    ours, theirs = _fields(wrote), _fields(right)
    if ours is None or theirs is None:
        return [{"name": "answer", "wrote": wrote, "right": right, "same": wrote.strip() == right.strip()}]
    return [
        {
            "name": name,
            "wrote": _written(ours[name]) if name in ours else None,
            "right": _written(theirs[name]) if name in theirs else None,
            "same": name in ours and name in theirs and ours[name] == theirs[name],
        }
        for name in dict.fromkeys([*theirs, *ours])
    ]


def answer_classes(wrote: str, right: str, score: float | None) -> list[Json]:
    """The same to count classes by: a wholly right answer has the right ones, one that is no JSON where
    JSON is asked for has none."""
    if score is not None and score >= 1:
        wrote = right
    return answer_fields("{}" if _fields(wrote) is None and _fields(right) is not None else wrote, right)


def _fields(text: str) -> Json | None:
    """Of the whole text, else of what lies between its braces."""
    for part in (text, text[text.find("{") : text.rfind("}") + 1]):
        try:
            found = json.loads(part)
        except (ValueError, RecursionError):
            continue
        return _flat(found, "", _DEEP) if isinstance(found, dict) else None
    return None


def _flat(record: Json, under: str, depth: int) -> Json:
    fields: Json = {}
    for name, value in record.items():
        inside = _flat(value, f"{under}{name}.", depth - 1) if isinstance(value, dict) and depth > 1 else {}
        fields |= inside or {f"{under}{name}": value}
    return fields


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cell(found: Estimate | None) -> float | str:
    return "" if found is None or found.mean is None else found.mean


def _mean(found: Estimate) -> float:
    return -1.0 if found.mean is None else found.mean


def grouped(rows: Sequence[Json]) -> list[Json]:
    """Rollouts that say the same in the same task, once, with their `count`."""
    found: dict[str, Json] = {}
    for row in rows:
        said = [(message["role"], message["text"]) for message in row["messages"]]
        key = json.dumps([row["env"], row["task"], row["step"], row["score"], row["reason"], said])
        found.setdefault(key, row | {"count": 0})["count"] += 1
    return list(found.values())
