"""What the analysis and the sampling of rules need of a decision model, whatever engine decides.

A model gives typed nodes, the answer for a case, and the language that its texts are in. Nothing else of an
engine is seen by `symbolic.py`, `sampler.py`, `conditions.py` and what is built on them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from vertigym.decisions.expressions import Atom
from vertigym.decisions.model import Case, Evaluation, Node, Rule


class Language(Protocol):
    """What the texts of a model's rules mean. A cell is a condition on its column's value."""

    skips_failing_rules: bool  # whether a rule whose outcome cannot be computed is passed over

    def atoms(self, text: str) -> Sequence[Atom]:
        """The names in a text and the literals beside them, cut at `and`, `or` and their like."""

    def names(self, text: str) -> list[str]:
        """The fields that a text names (dotted paths), each once."""

    def is_name(self, text: str) -> bool:
        """Whether a text is one name and nothing else."""

    def parts(self, text: str) -> list[str]:
        """A condition's parts that must all hold."""

    def is_simple(self, cell: str, column: str = "") -> bool:
        """Whether a cell compares its column's value with literals and does nothing else."""

    def simple_name(self, text: str) -> str:
        """The one name that an expression compares with literals; empty where it does anything else."""

    def axis(self, cell: str) -> str:
        """The kind of moment or duration that a simple cell compares as a number; empty for plain values."""

    def literals(self, condition: str) -> tuple[set[float], set[str]]:
        """The numbers and the texts in a simple condition."""

    def condition(self, condition: str, name: str) -> Callable[[Any], bool]:
        """Whether a simple condition holds for a value: a cell's, or, given a `name`, an expression's about
        it."""

    def example(self, value: Any, axis: str) -> Any:
        """A value of `boxes.Classes` as people write it."""

    def depends_on_more(self, text: str, names: Sequence[str]) -> bool:
        """Whether a text's value depends on more than its names: the clock, chance."""

    def computed(self, text: str, values: Mapping[str, Any]) -> tuple[Any] | None:
        """The value of an expression over known names, None where it has none or depends on more."""

    def matches(self, cell: str, value: Any, values: Mapping[str, Any]) -> bool | None:
        """Whether a cell matches a known value, None where that depends on more."""

    def holds(self, column: str, cell: str, context: Any) -> bool:
        """Whether a cell's condition holds in a context that its node saw, or in a case."""

    def number(self, column: str, context: Any) -> float | None:
        """A column's value in a context where it is a number."""


class RuleModel(Protocol):
    """A decision model."""

    source: str
    nodes: list[Node]
    rules: dict[str, Rule]
    edges: tuple[tuple[str, str, str], ...]
    schema: dict[str, Any]
    tests: list[tuple[Case, Any]]

    @property
    def language(self) -> Language:
        """What the texts of its rules mean."""

    @property
    def files(self) -> Mapping[str, str]:
        """The model's files by name, as an environment's folder keeps them; the first is the model."""

    @property
    def notes(self) -> list[str]:
        """What was lost, left out or taken for granted when the file was read."""

    def evaluate(self, case: Case) -> Evaluation:
        """The answer for a case and the rules it hit.

        Raises:
            CaseError: there is no answer.
        """

    def cell_faults(self) -> list[tuple[str, str, str]]:
        """Rules' ids, cells and what is wrong with them, seen without any case."""

    def in_order(self) -> list[Node]:
        """The nodes, each after all that lead to it."""

    def alternatives(self) -> list[list[str]]:
        """Decisions, by name, that can be asked for instead of those that are."""

    def clock_readers(self) -> list[str]:
        """Names of the nodes that read the clock."""

    def impure(self) -> list[str]:
        """Names of the nodes that draw random numbers."""

    def at(self, now: str) -> "RuleModel":
        """The same model with its clock stopped at `now` (ISO 8601)."""
