"""What a decision model says of one case, rule by rule: which rules it hit, and why each other one was not."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vertigym.decisions.conditions import get
from vertigym.decisions.model import Case, Evaluation, Node, Rule
from vertigym.decisions.protocols import Language, RuleModel


@dataclass(frozen=True, slots=True)
class RuleLine:
    """One rule in one case; `reason` says why it was not hit, empty where it was."""

    rule: str
    text: str
    hit: bool
    reason: str = ""


def explain(model: RuleModel, case: Case) -> tuple[Evaluation, list[RuleLine]]:
    """The answer for a case, and a line for each rule of the model.

    Raises:
        CaseError: there is no answer.
    """
    evaluation = model.evaluate(case)
    lines = []
    for node in model.nodes:
        for rule in node.rules:
            hit = rule.id in evaluation.rules
            reason = "" if hit else _reason(model.language, node, rule, evaluation)
            lines.append(RuleLine(rule.id, rule.text, hit, reason))
    return evaluation, lines


def _reason(language: Language, node: Node, rule: Rule, evaluation: Evaluation) -> str:
    if node.id not in evaluation.contexts:
        return "its table was not reached"
    if "[]" in node.scope:
        return f"it matches none of {node.scope.removesuffix('[]')}"
    context = evaluation.contexts[node.id]
    if node.scope and isinstance(context, Mapping):
        context = get(dict(context), tuple(node.scope.split(".")))
    failing = [pair for pair in rule.cells if pair[1].strip() and not language.holds(*pair, context)]
    if failing:
        return "; ".join(_failing(column, cell, context) for column, cell in failing)
    hits = [other.id for other in node.rules if other.id in evaluation.rules]
    if not hits:
        return "its conditions hold, but its outcome gives nothing"
    return f"its conditions hold, but {', '.join(hits)} {'was' if len(hits) == 1 else 'were'} taken"


def _failing(column: str, cell: str, context: Any) -> str:
    value = get(context, tuple(column.split("."))) if column and isinstance(context, Mapping) else None
    given = f"{column} is {_shown(value)}: " if value is not None else f"{column}: " if column else ""
    return f"{given}{cell.strip()!r} does not hold"


def _shown(value: Any) -> str:
    """A value as JSON; numbers, moments and durations of FEEL as they are written."""
    plain = isinstance(value, str | bool | int | float | list | dict)
    return (json.dumps(value, ensure_ascii=False, default=str) if plain else str(value))[:60]
