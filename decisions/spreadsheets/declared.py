"""What a sheet, or who imports it, declares of a column: its role, its type, how its values are written.

    condition number 1,5        outcome text        date d/m/y        annotation        boolean

Such words stand in a row of their own under the headers, or in `columns` (header -> words).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vertigym.core.config import Config, load
from vertigym.core.errors import ConfigError
from vertigym.decisions.spreadsheets.sheet_tests import Kind

Role = Literal["", "condition", "outcome", "annotation"]
Columns = Mapping[str, str]

_ROLES: Mapping[str, Role] = {
    "condition": "condition", "input": "condition", "if": "condition", "when": "condition",
    "outcome": "outcome", "output": "outcome", "then": "outcome",
    "annotation": "annotation", "note": "annotation", "ignore": "annotation",
}  # fmt: skip
_KINDS: Mapping[str, Kind] = {
    "number": "number", "decimal": "number", "integer": "number", "boolean": "boolean", "date": "date",
    "text": "string", "string": "string", "code": "string",
}  # fmt: skip
_MARKS = {"1,5": ",", "1.5": "."}
_ORDERS = {"d/m/y": "dmy", "m/d/y": "mdy"}
WORDS = "condition, outcome, annotation; number, text, boolean, date; 1,5 or 1.5; d/m/y or m/d/y"


class _ColumnsFile(Config):
    columns: dict[str, str]


@dataclass(frozen=True, slots=True)
class Declared:
    """What is declared of a column; "" where nothing is."""

    role: Role = ""
    kind: Kind | Literal[""] = ""
    mark: str = ""
    order: str = ""

    def over(self, other: "Declared") -> "Declared":
        """This, and what only the other says."""
        return Declared(
            self.role or other.role, self.kind or other.kind, self.mark or other.mark, self.order or other.order
        )


def declared(text: str) -> Declared | None:
    """What the words declare; None where one of them is another word."""
    role: Role = ""
    kind: Kind | Literal[""] = ""
    mark = order = ""
    words = text.lower().split()
    for word in words:
        if word in _ROLES and not role:
            role = _ROLES[word]
        elif word in _KINDS and not kind:
            kind = _KINDS[word]
        elif word in _MARKS and not mark:
            mark = _MARKS[word]
        elif word in _ORDERS and not order:
            order = _ORDERS[word]
        else:
            return None
    kind = kind or ("number" if mark else "date" if order else "")
    return Declared(role, kind, mark, order) if words else None


def parse_columns(options: Iterable[str]) -> Columns:
    """Options of the form `HEADER=WORDS`, or a TOML file with a table `[columns]`, as columns.

    Raises:
        ConfigError: neither, or words that declare nothing. DataError: there is no such file.
    """
    found: dict[str, str] = {}
    for option in options:
        name, equals, words = option.rpartition("=")
        if not equals and option.endswith(".toml"):
            found |= load(_ColumnsFile, Path(option)).columns
        else:
            found[name.strip()] = words
    for name, words in found.items():
        if not name or declared(words) is None:
            raise ConfigError(
                f"column {name!r}: {words!r} declares nothing; HEADER=WORDS has the words {WORDS}"
            )
    return found
