"""DMN's types: what a `typeRef` means, whether a value conforms to it, and the conversions the standard allows.

    to a list of one, from a list of one, a date to a date and time (midnight, UTC)

Any other value that does not conform is no value (null, with a reason). Source: OMG DMN 1.5, 7.3.2 (item
definitions) and 10.3.2.9.4 (type conversions).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache, cached_property
from typing import Any, TypeVar

from vertigym.core.errors import DataError
from vertigym.decisions.dmn.elements import Element, child, children, inner_text, text_of
from vertigym.decisions.model import DecisionError
from vertigym.feel import (
    Date,
    DateTime,
    Expr,
    FeelType,
    NoValue,
    Time,
    UnaryTests,
    Value,
    conforms,
    evaluate,
    parse,
    parse_unary_tests,
    satisfies,
)
from vertigym.feel.feel_types import ANY

_NAMES = {
    "number": "number", "string": "string", "boolean": "boolean", "date": "date", "time": "time",
    "dateandtime": "date and time", "datetime": "date and time", "any": "Any", "": "Any",
    "daysandtimeduration": "days and time duration", "daytimeduration": "days and time duration",
    "yearsandmonthsduration": "years and months duration", "yearmonthduration": "years and months duration",
    "context": "context", "list": "list", "collection": "list", "function": "function", "null": "Null",
    "integer": "number", "int": "number", "long": "number", "short": "number",
    "double": "number", "float": "number", "decimal": "number",
}  # fmt: skip
_PYTHON = {"number": Decimal, "string": str, "boolean": bool}  # known without a closer look
_WHOLE = {"integer", "int", "long", "short"}
T = TypeVar("T")


@cache
def _reader(name: str) -> Expr | None:
    """What makes a value of a temporal type of an ISO text, None for other types."""
    if name.endswith("duration"):
        return parse("duration(from)", ["from"])
    return parse(f"{name}(from)", ["from"]) if name in ("date", "time", "date and time") else None


@dataclass(slots=True)
class ItemType:
    """A type: `base` where it is FEEL's own, `parts` of a context, `item` of a list. `limits` hold for a value,
    of a list without `item` for each item; `whole` numbers come from the tools' integer and long;
    `converts`: a tool's, whose engine makes texts of numbers and numbers of texts."""

    name: str = "Any"
    base: FeelType = ANY
    parts: dict[str, "ItemType"] = field(default_factory=dict)
    item: "ItemType | None" = None
    limits: tuple[UnaryTests, ...] = ()
    limit_texts: tuple[str, ...] = ()
    whole: bool = False
    converts: bool = False

    @property
    def feel(self) -> FeelType:
        """The type as FEEL has it, for `instance of`."""
        if self.item:
            return FeelType("list", (self.item.feel,))
        if self.parts:
            return FeelType("context", fields=tuple((name, part.feel) for name, part in self.parts.items()))
        return self.base

    def holds(self, value: Value) -> bool:
        """Whether a value conforms; null does to every type."""
        if value is None or (
            _PYTHON.get(self.base.name) is value.__class__ and not (self.limits or self.whole)
        ):
            return True
        if self.item:
            fits = isinstance(value, list) and all(map(self.item.holds, value))
        elif self.parts:
            fits = isinstance(value, dict) and all(
                name in value and part.holds(value[name]) for name, part in self.parts.items()
            )
        else:
            fits = self.base.name == "Any" or conforms(value, self.base)
            fits = fits and not (self.whole and value != int(value))  # type: ignore[arg-type]
        items = value if self.base.name == "list" and not self.item and isinstance(value, list) else [value]
        return fits and all(satisfies(tests, item, {}) is True for tests in self.limits for item in items)

    def coerced(self, value: Value) -> Value:
        """The value as this type has it.

        Raises:
            NoValue: it does not conform, and no conversion makes it.
        """
        if self.holds(value):
            return value
        made: Any = _converted(value, self.base.name) if self.converts else value
        if isinstance(value, Date) and self.base.name == "date and time":
            made = DateTime(value, Time(0, 0, 0, zone=0))
        elif isinstance(value, list) and len(value) == 1 and not self.item:
            made = value[0]
        elif self.item and not isinstance(value, list):
            made = [value]
        if made is value or not self.holds(made):
            raise NoValue(f"{_shown(value)} is not of type {self.name}")
        fitting: Value = made
        return fitting

    def read(self, value: Value) -> Value:
        """A value from JSON as this type has it: ISO texts become dates, times and durations.

        Raises:
            NoValue: a text is not what its type says.
        """
        if isinstance(value, list) and self.item:
            return [self.item.read(each) for each in value]
        if isinstance(value, dict) and self.parts:
            found = {name: part.read(value[name]) for name, part in self.parts.items() if name in value}
            return {**dict.fromkeys(self.parts), **value, **found}
        tree = _reader(self.base.name)
        if tree is None or not isinstance(value, str):
            return value
        if (made := evaluate(tree, {"from": value})) is None or not conforms(made, self.base):
            raise NoValue(f"{value!r} is not a {self.base.name}")
        return made


def _converted(value: Value, kind: str) -> Value:
    """A number or truth value as text, a text as a number or truth value; anything else as it is."""
    if (kind == "string" and isinstance(value, Decimal | bool)) or (
        kind == "number" and isinstance(value, str)
    ):
        made = evaluate(_conversion(kind), {"from": value})
        return value if made is None else made
    return (
        {"true": True, "false": False}.get(value, value)
        if kind == "boolean" and isinstance(value, str)
        else value
    )


@cache
def _conversion(kind: str) -> Expr:
    return parse(f"{kind}(from)", ["from"])


def _shown(value: Value) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


class TypeTable:
    """The item definitions of one file, resolved when first asked for. `imported` holds the tables of imports
    by name."""

    def __init__(self, root: Element, where: str, *, converts: bool = False) -> None:
        self._converts = converts
        self._items = {" ".join((e.get("name") or "").split()): e for e in children(root, "itemDefinition")}
        self.imported: dict[str, TypeTable] = {}
        self._where = where
        self._known: dict[str, ItemType] = {}

    @cached_property
    def feel_types(self) -> dict[str, FeelType]:
        """The types as FEEL has them, by name; those that cannot be read are left out."""
        found = {}
        for prefix, table in (("", self), *((f"{name}.", table) for name, table in self.imported.items())):
            for name in table._items:
                try:
                    found[f"{prefix}{name}"] = table.named(name).feel
                except DataError:
                    continue
        return found

    def of(self, element: Element | None, attribute: str = "typeRef") -> ItemType:
        """The type that an element states; Any where it states none.

        Raises:
            DecisionError: an unknown type, or one that is defined by itself.
        """
        if element is None:
            return ItemType()
        return self.named(element.get(attribute) or text_of(child(element, attribute)))

    def named(self, text: str, seen: tuple[str, ...] = ()) -> ItemType:
        """The type of a name, as `of` does."""
        name = " ".join(text.split())
        prefix, _, rest = name.partition(":")
        for known in (name, rest or name):
            if known in seen:
                raise DecisionError(f"{self._where}: type {known!r} is defined by itself")
            if known in self._known:
                return self._known[known]
            if known in self._items:
                self._known[known] = self._item(self._items[known], known, (*seen, known))
                return self._known[known]
            if (base := _NAMES.get(known.replace(" ", "").lower())) is not None:
                whole = known.lower() in _WHOLE
                return ItemType(known or "Any", FeelType(base), whole=whole, converts=self._converts)
        for name_of_import, table in self.imported.items():
            if name.startswith(f"{name_of_import}.") or prefix == name_of_import:
                return table.named(name.removeprefix(f"{name_of_import}.").removeprefix(f"{prefix}:"))
        raise DecisionError(f"{self._where}: type {name!r} is not defined")

    def _item(self, element: Element, name: str, seen: tuple[str, ...]) -> ItemType:
        parts = {
            " ".join((e.get("name") or "").split()): self._item(e, e.get("name") or "", seen)
            for e in children(element, "itemComponent")
        }
        if parts:
            made = ItemType(name, FeelType("context"), parts)
        elif child(element, "functionItem") is not None:
            made = ItemType(name, FeelType("function"))
        else:
            known = self.named(element.get("typeRef") or text_of(child(element, "typeRef")), seen)
            made = ItemType(
                name, known.base, known.parts, known.item, known.limits, known.limit_texts, known.whole
            )
        allowed, constraint = (child(element, tag) for tag in ("allowedValues", "typeConstraint"))
        made = self._limited(made, allowed, name)
        if element.get("isCollection") == "true":
            made = ItemType(name, FeelType("list"), item=made)
        return self._limited(made, constraint, name)

    def _limited(self, made: ItemType, element: Element | None, name: str) -> ItemType:
        if not (text := inner_text(element)):
            return made
        made.limits += (self.tests(text, f"type {name!r}"),)
        made.limit_texts += (text,)
        return made

    def tests(self, text: str, what: str) -> UnaryTests:
        """Unary tests that stand for the limits of a value.

        Raises:
            DecisionError: it is not FEEL.
        """
        return located(lambda: parse_unary_tests(text), f"{self._where}: {what}: {text!r}")


def located(read: Callable[[], T], where: str) -> T:
    """What `read` gives; where a text is not FEEL, `where` stands before the error.

    Raises:
        DecisionError: the text is not FEEL.
    """
    try:
        return read()
    except DataError as error:
        raise DecisionError(f"{where}: {error}") from None
