"""One evaluation of a model: its inputs, what was decided so far, the rules hit, and why something is null."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from vertigym.decisions.dmn.item_types import ItemType
from vertigym.feel import Clock, Expr, FeelError, FeelType, Function, NoValue, Value, evaluate

Scope = dict[str, Value]
Body = Callable[[Scope, "Evaluator"], Value]  # a compiled boxed expression
_MOST_STEPS = 200_000  # boxed expressions in one evaluation
_MOST_REASONS = 100
_MOST_CALLS = 60  # invocations in each other


@dataclass(slots=True)
class Evaluator:
    """`inputs` are by key of the input data (`graph.py`); `values` holds what was decided; `seen` the scope of
    each decision that was evaluated; `faults` the tables whose hit policy was violated."""

    inputs: Mapping[str, Value]
    clock: Clock | None = None
    reasons: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    hits: list[str] = field(default_factory=list)
    seen: dict[str, Scope] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)
    steps: int = 0
    calls: int = 0

    def inside(self, inputs: Mapping[str, Value], values: dict[str, Value]) -> "Evaluator":
        """The same evaluation inside a decision service, which sees nothing but what it is given."""
        return Evaluator(
            inputs,
            self.clock,
            self.reasons,
            self.faults,
            self.hits,
            self.seen,
            values,
            {},
            self.steps,
            self.calls,
        )

    def value(self, tree: Expr, scope: Scope, types: Mapping[str, FeelType]) -> Value:
        """What a FEEL expression gives."""
        self.step()
        return evaluate(tree, scope, self.clock, reasons=self.reasons, types=types)

    def step(self) -> None:
        """Count one boxed expression.

        Raises:
            FeelError: there were too many.
        """
        self.steps += 1
        if self.steps > _MOST_STEPS:
            raise FeelError(f"more than {_MOST_STEPS:,} expressions in one evaluation")

    def coerced(self, value: Value, kind: ItemType, what: str) -> Value:
        """The value as its declared type has it, null with a reason where it has none."""
        try:
            return kind.coerced(value)
        except NoValue as error:
            return self.null(f"{what}: {error}")

    def null(self, reason: str) -> Value:
        """Null, its reason kept."""
        if len(self.reasons) < _MOST_REASONS:
            self.reasons.append(reason)
        return None

    def called(self, body: Body, scope: Scope) -> Value:
        """The value of an invoked body.

        Raises:
            FeelError: invocations lie in each other too deeply.
        """
        self.calls += 1
        try:
            if self.calls > _MOST_CALLS:
                raise FeelError(f"invocations lie in each other more than {_MOST_CALLS} deep")
            return body(scope, self)
        finally:
            self.calls -= 1
