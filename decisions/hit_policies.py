"""What becomes of a table's hit policy.

The engine knows two: the first rule that matches, or all of them as a list. The others are made of these, or
refused where the answer could be wrong:

    UNIQUE       first, where the rules are proven to exclude each other; else all, and a case that two rules
                 match is refused by the engine (it has no answer, so it never becomes a task)
    ANY          first, where rules that can match together are proven to agree; else all, and they must agree
    FIRST        first
    RULE ORDER, COLLECT    all, as a list; or its sum, least, greatest, number

Where no rule matches, the result is null, the empty list, or the count 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vertigym.decisions.findings import compatible
from vertigym.decisions.jdm import ExpressionSpec, ModelSpec, TableRow, TableSpec
from vertigym.decisions.model import DecisionError, DecisionModel

_AGGREGATES = {"SUM": "sum", "MIN": "min", "MAX": "max", "COUNT": "len"}
_LISTS = ("RULE ORDER", "COLLECT")


@dataclass(slots=True)
class PolicyTable:
    """A table in the engine's words with the hit policy of its author.

    `target` is where a list or an aggregate goes; `outputs` are the names of the outputs, `fields` where each
    goes when one rule decides. `schema` is that of a case.
    """

    name: str
    target: str
    columns: tuple[str, ...]
    outputs: tuple[str, ...]
    fields: tuple[str, ...]
    rows: list[TableRow]
    policy: str
    aggregate: str = ""
    schema: dict[str, Any] = field(default_factory=dict)
    where: str = ""

    def __post_init__(self) -> None:
        """Raise DecisionError where the aggregate does not fit."""
        if self.aggregate and len(self.outputs) > 1:
            raise DecisionError(f"{self.where}: {self.aggregate} needs a single output")
        if not self.rows:
            raise DecisionError(f"{self.where}: a table without a rule")

    @property
    def gives_list(self) -> bool:
        """Whether the result is a list, or an aggregate of one."""
        return self.policy in _LISTS

    def nodes(self) -> list[TableSpec | ExpressionSpec]:
        """The nodes it becomes."""
        if self.gives_list:
            return self._collected({self.target: self._list_value()})
        if self.policy in ("UNIQUE", "ANY") and not self._first_is_right():
            return self._collected(self._only_value())
        return [self._first()]

    def _first(self) -> TableSpec:
        """The table whose first matching rule decides."""
        return TableSpec(self.name, self.columns, self.fields, tuple(self.rows), self.policy)

    def _first_is_right(self) -> bool:
        """Whether the first matching rule says what the policy says: no two rules that violate it are able to
        match together."""
        spec = ModelSpec([self._first()], self.schema)
        model = DecisionModel(spec.text(), self.where)
        for one, other in compatible(model, model.nodes[1]):
            if self.policy == "UNIQUE" or self.rows[one].outcomes != self.rows[other].outcomes:
                return False
        return True

    def _collected(self, value: Mapping[str, str]) -> list[TableSpec | ExpressionSpec]:
        """All matching rules as a list beside the result, the result made of it, and the list dropped again."""
        rows = f"{self.target}__rows"
        table = TableSpec(
            self.name, self.columns, self.outputs, tuple(self.rows), self.policy, collect=True, target=rows
        )
        pairs = (*((key, text.replace("ROWS", rows)) for key, text in value.items()), (rows, "null"))
        return [table, ExpressionSpec(f"{self.name} result", pairs)]

    def _only_value(self) -> dict[str, str]:
        """The one result; where the policy is violated a type error, so that the engine refuses the case."""
        clash = "len(ROWS) > 1"
        if self.policy == "ANY":
            clash = " or ".join(f"some(ROWS, #.{o} != ROWS[0].{o})" for o in self.outputs)
        violated = f"'hit policy {self.policy} violated' + 1"
        return {
            key: f"({clash}) ? {violated} : (len(ROWS) == 0 ? null : ROWS[0].{output})"
            for key, output in zip(self.fields, self.outputs, strict=True)
        }

    def _list_value(self) -> str:
        """The list of results, or what it is aggregated to; of one output the bare values."""
        values = f"map(ROWS, #.{self.outputs[0]})" if len(self.outputs) == 1 else "ROWS"
        if not self.aggregate:
            return f"len(ROWS) == 0 ? [] : {values}"
        nothing = "0" if self.aggregate == "COUNT" else "null"
        return f"len(ROWS) == 0 ? {nothing} : {_AGGREGATES[self.aggregate]}({values})"
