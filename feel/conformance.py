"""Whether a value is of a type, and the three conversions that FEEL makes by itself where a type is asked for.

Source: OMG Decision Model and Notation 1.5, chapters 10.3.2.9.2 to 10.3.2.9.4.
"""

from collections.abc import Mapping

from vertigym.feel.feel_types import ANY, DEFINED, FeelType
from vertigym.feel.temporal import Date, DateTime, Time
from vertigym.feel.values import Function, NoValue, Range, Value, kind_of, shown

Types = Mapping[str, FeelType]
_MOST_ALIASES = 20


def conforms(value: Value, kind: FeelType, types: Types | None = None) -> bool:
    """Whether `value instance of kind`. Null is of type Null only; inside lists and contexts of every type."""
    kind = resolved(kind, types)
    if value is None:
        return kind.name == "Null"
    if kind.name == "Any":
        return True
    return kind_of(value) == kind.name and _inside(value, kind, types)


def coerced(value: Value, kind: FeelType, types: Types | None = None) -> Value:
    """The value as one of that type: itself, a list's only item, a list of it, or a date's midnight in UTC.

    Raises:
        NoValue: it cannot be had. Null stays null.
    """
    kind = resolved(kind, types)
    if value is None or conforms(value, kind, types):
        return value
    if isinstance(value, list):
        if len(value) == 1 and kind.name != "list":
            return coerced(value[0], kind, types)
    elif kind.name == "list" and (not kind.inner or conforms(value, kind.inner[0], types)):
        return [value]
    elif kind.name == "date and time" and isinstance(value, Date):
        return DateTime(value, Time(0, 0, 0, 0, 0))
    raise NoValue(f"{shown(value)} is no {kind}")


def resolved(kind: FeelType, types: Types | None) -> FeelType:
    """What a name of the caller's stands for; a name that nobody defines is Any."""
    for _ in range(_MOST_ALIASES):
        if kind.name in DEFINED:
            return kind
        if not types or kind.name not in types:
            return ANY
        kind = types[kind.name]
    return ANY


def _inside(value: Value, kind: FeelType, types: Types | None) -> bool:
    match value, kind:
        case list(), FeelType("list", (item,)):
            return all(part is None or conforms(part, item, types) for part in value)
        case dict(), FeelType("context"):
            return all(
                name in value and (value[name] is None or conforms(value[name], field, types))
                for name, field in kind.fields
            )
        case Range(), FeelType("range", (item,)):
            return all(end is None or conforms(end, item, types) for end in (value.low, value.high))
        case Function(), FeelType("function", (*parameters, result)):
            own = value.types or (ANY,) * len(value.parameters)
            return (
                len(own) == len(parameters)
                and all(fits(asked, mine, types) for asked, mine in zip(parameters, own, strict=True))
                and (value.result == ANY or fits(value.result, result, types))
            )
    return True


def fits(narrow: FeelType, wide: FeelType, types: Types | None = None) -> bool:
    """Whether every value of one type is of the other."""
    narrow, wide = resolved(narrow, types), resolved(wide, types)
    if wide.name == "Any" or narrow.name == "Null":
        return True
    if narrow.name != wide.name:
        return False
    fields = dict(narrow.fields)
    if any(name not in fields or not fits(fields[name], field, types) for name, field in wide.fields):
        return False
    if not wide.inner:
        return True
    if len(narrow.inner) != len(wide.inner):
        return False
    pairs = list(zip(narrow.inner, wide.inner, strict=True))
    if wide.name == "function":
        return all(fits(w, n, types) for n, w in pairs[:-1]) and fits(*pairs[-1], types)
    return all(fits(n, w, types) for n, w in pairs)
