"""Types as FEEL writes them: after `instance of`, and for the parameters of functions.

Source: OMG Decision Model and Notation 1.5, chapter 10.3.2.9 and grammar rule 52.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FeelType:
    """A type: its name; for `list<T>` and `range<T>` T, for `function<A, B> -> R` A, B and R in `inner`;
    for `context<a: T>` the fields. A name that FEEL does not define is the caller's."""

    name: str
    inner: tuple["FeelType", ...] = ()
    fields: tuple[tuple[str, "FeelType"], ...] = ()

    def __str__(self) -> str:
        match self:
            case FeelType("function", (*parameters, result)):
                return f"function<{', '.join(map(str, parameters))}> -> {result}"
            case FeelType("context", fields=fields) if fields:
                return f"context<{', '.join(f'{name}: {kind}' for name, kind in fields)}>"
        return f"{self.name}<{self.inner[0]}>" if self.inner else self.name


ANY = FeelType("Any")
NULL = FeelType("Null")
NUMBER = FeelType("number")
STRING = FeelType("string")
BOOLEAN = FeelType("boolean")
DATE = FeelType("date")
TIME = FeelType("time")
DATE_AND_TIME = FeelType("date and time")
DAYS_AND_TIME = FeelType("days and time duration")
YEARS_AND_MONTHS = FeelType("years and months duration")
DEFINED = frozenset(
    {"Any", "Null", "number", "string", "boolean", "date", "time", "list", "context", "range", "function"}
    | {"date and time", "days and time duration", "years and months duration"}
)
