"""What becomes of a table's hit policy.

The engine knows two: the first rule that matches, or all of them as a list. The others are made of these, or
refused where the answer could be wrong:

    UNIQUE       first, where the rules are proven to exclude each other; else all, and a case that two rules
                 match is refused by the engine (it has no answer, so it never becomes a task)
    ANY          first, where rules that can match together are proven to agree; else all, and they must agree
    PRIORITY     first, over the rules in the order of their outputs' priority
    FIRST        first
    RULE ORDER, OUTPUT ORDER, COLLECT    all, as a list; or its sum, least, greatest, number

Where no rule matches, the result is the default; without one it is null, the empty list, or the count 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vertigym.decisions.findings import compatible
from vertigym.decisions.jdm import ExpressionSpec, ModelSpec, TableRow, TableSpec
from vertigym.decisions.model import DecisionError, DecisionModel
from vertigym.decisions.sfeel import Term, compared

_AGGREGATES = {"SUM": "sum", "MIN": "min", "MAX": "max", "COUNT": "len"}
_LISTS = ("RULE ORDER", "OUTPUT ORDER", "COLLECT")
_POLICIES = ("UNIQUE", "ANY", "PRIORITY", "FIRST", *_LISTS)


@dataclass(slots=True)
class PolicyTable:
    """A table in the engine's words with the hit policy of its author.

    `target` is where a list or an aggregate goes; `outputs` are the names of the outputs, `fields` where each
    goes when one rule decides. `priorities` lists an output's values in order (empty for none), `defaults` its
    default ("" for none). `schema` is that of a case.
    """

    name: str
    target: str
    columns: Sequence[Term]
    outputs: tuple[str, ...]
    fields: tuple[str, ...]
    rows: list[TableRow]
    policy: str
    aggregate: str = ""
    priorities: Sequence[Sequence[str]] = ()
    defaults: tuple[str, ...] = ()
    schema: dict[str, Any] = field(default_factory=dict)
    where: str = ""

    def __post_init__(self) -> None:
        """Raise DecisionError where the policy does not exist or does not fit."""
        if self.policy not in _POLICIES or (self.aggregate and self.aggregate not in _AGGREGATES):
            known = ", ".join(_POLICIES)
            raise DecisionError(
                f"{self.where}: hit policy {self.policy!r} {self.aggregate} is not one of {known}"
            )
        if self.aggregate and (len(self.outputs) > 1 or self.policy != "COLLECT"):
            raise DecisionError(f"{self.where}: {self.aggregate} needs hit policy COLLECT and a single output")
        if not self.rows:
            raise DecisionError(f"{self.where}: a table without a rule")
        self.defaults = self.defaults or ("",) * len(self.outputs)
        if self.gives_list and any(self.defaults) and len(self.outputs) > 1:
            raise DecisionError(f"{self.where}: defaults for a list of several outputs are not supported")

    @property
    def gives_list(self) -> bool:
        """Whether the result is a list, or an aggregate of one."""
        return self.policy in _LISTS

    def nodes(self) -> list[TableSpec | ExpressionSpec]:
        """The nodes it becomes.

        Raises:
            DecisionError: the priorities are not given.
        """
        if self.policy in ("PRIORITY", "OUTPUT ORDER"):
            self.rows = sorted(self.rows, key=self._rank)
        if self.gives_list:
            return self._collected({self.target: self._list_value()})
        if self.policy in ("UNIQUE", "ANY") and not self._first_is_right():
            return self._collected(self._only_value())
        return [self._first()]

    def _first(self, *, default: bool = True) -> TableSpec:
        """The table whose first matching rule decides; the default as a last rule."""
        rows = list(self.rows)
        if default and any(self.defaults):
            outcome = tuple(given or "null" for given in self.defaults)
            rows.append(TableRow(("",) * len(self.columns), outcome, len(rows) + 1))
        return TableSpec(self.name, self._columns(), self.fields, tuple(rows), self.policy)

    def _columns(self) -> tuple[str, ...]:
        return tuple(compared(column) for column in self.columns)

    def _first_is_right(self) -> bool:
        """Whether the first matching rule says what the policy says: no two rules that violate it are able to
        match together."""
        spec = ModelSpec([self._first(default=False)], self.schema)
        model = DecisionModel(spec.text(), self.where)
        for one, other in compatible(model, model.nodes[1]):
            if self.policy == "UNIQUE" or self.rows[one].outcomes != self.rows[other].outcomes:
                return False
        return True

    def _collected(self, value: Mapping[str, str]) -> list[TableSpec | ExpressionSpec]:
        """All matching rules as a list beside the result, the result made of it, and the list dropped again."""
        rows = f"{self.target}__rows"
        table = TableSpec(
            self.name, self._columns(), self.outputs, tuple(self.rows), self.policy, collect=True, target=rows
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
            key: f"({clash}) ? {violated} : (len(ROWS) == 0 ? {given or 'null'} : ROWS[0].{output})"
            for key, output, given in zip(self.fields, self.outputs, self.defaults, strict=True)
        }

    def _list_value(self) -> str:
        """The list of results, or what it is aggregated to; of one output the bare values."""
        values = f"map(ROWS, #.{self.outputs[0]})" if len(self.outputs) == 1 else "ROWS"
        default = self.defaults[0]
        if not self.aggregate:
            return f"len(ROWS) == 0 ? {f'[{default}]' if default else '[]'} : {values}"
        default = default or ("0" if self.aggregate == "COUNT" else "null")
        return f"len(ROWS) == 0 ? {default} : {_AGGREGATES[self.aggregate]}({values})"

    def _rank(self, row: TableRow) -> list[int]:
        """A row's place by its outputs' priority.

        Raises:
            DecisionError: no priorities are given, or one of its outputs is not among them.
        """
        if not any(self.priorities):
            raise DecisionError(
                f"{self.where}: hit policy {self.policy} needs output values in order of priority"
            )
        places = []
        for outcome, order in zip(row.outcomes, self.priorities, strict=True):
            plain = outcome[1:-1] if outcome[:1] in ("'", '"') else outcome
            if order and plain not in order:
                raise DecisionError(
                    f"{self.where}: rule {row.number}: {outcome} is not among the output values "
                    f"{', '.join(order)}, so it has no priority"
                )
            places.append(list(order).index(plain) if order else 0)
        return places
