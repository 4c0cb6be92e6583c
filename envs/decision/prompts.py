"""A decision model and its cases as text: rules as Markdown, a case as a prompt."""

from collections.abc import Sequence
from typing import Any

from vertigym.core.files import dumps
from vertigym.decisions.model import Case, Node
from vertigym.decisions.outputs import WHOLE
from vertigym.decisions.protocols import RuleModel

_POLICY = {
    "first": "The first row that matches decides.",
    "collect": "Every row that matches adds a result.",
}


def rules_text(model: RuleModel) -> str:
    """All nodes that decide something, in the order they run, as Markdown."""
    parts = [part for node in model.nodes if (part := _node_text(node))]
    return "\n\n".join(["Decide by these rules. They apply in order; an empty cell matches anything.", *parts])


def case_prompt(case: Case, fields: Sequence[str], *, optional: bool = False) -> str:
    """One case and what is asked about it. `optional`: some fields do not apply to every case."""
    return f"{dumps(case)}\n{_question(fields, optional)}"


def _question(fields: Sequence[str], optional: bool) -> str:
    if list(fields) == [WHOLE]:
        return "Answer with the decision as JSON."
    notes = " A dotted name is a field of a nested object." if any("." in name for name in fields) else ""
    notes += " Leave out what does not apply." if optional else ""
    return f"Answer with JSON: {', '.join(fields)}.{notes}"


def _node_text(node: Node) -> str:
    where = f" (for each of {node.scope[:-2]})" if node.scope.endswith("[]") else ""
    where = where or (f" (within {node.scope})" if node.scope else "")
    where += f" (results go to {node.target})" if node.target else ""
    match node.kind:
        case "table":
            policy = node.source or _POLICY.get(node.hit_policy, "")
            return f"### {node.name}{where}\n{policy}\n\n{_table(node)}"
        case "switch":
            lines = [f"- {rule.cells[0][1] or 'otherwise'}" for rule in node.rules]
            return f"### {node.name} (which rules apply next)\n" + "\n".join(lines)
        case "expression":
            lines = [f"- {key} = {' '.join(value.split())}" for key, value in node.expressions]
            return f"### {node.name}{where}\n" + "\n".join(lines)
        case "function":
            return f"### {node.name}\n```js\n{node.source.strip()}\n```"
        case "boxed":
            return f"### {node.name}\n{node.source}"
    return ""


def _table(node: Node) -> str:
    head = [column or "condition" for column in node.columns] + [f"→ {name}" for name in node.outputs]
    rows = [[cell for _, cell in (*rule.cells, *rule.outcome)] for rule in node.rules]
    return "\n".join(map(_row, [head, ["---"] * len(head), *rows]))


def _row(cells: Sequence[Any]) -> str:
    return "| " + " | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in cells) + " |"
