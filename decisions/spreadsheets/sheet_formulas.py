"""Outcomes that compute: `amount * 0.1`, `5 % * (amount - 100)`. Names are the conditions of the same table."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vertigym.core.bounds import MOST_LEVELS
from vertigym.decisions.spreadsheets.sheet_notation import Number, number, plain_number

_TOKEN = re.compile(r"\s*(?:(?P<number>\d[\d.,'’\u00a0\u202f]*\s*%?)|(?P<op>[-+*/()×·]))")  # noqa: RUF001
_SIGNS = {"×": "*", "·": "*"}  # noqa: RUF001


@dataclass(frozen=True, slots=True)
class Formula:
    """A computed outcome as written, in parts: a number, a sign, or the header of a condition."""

    text: str
    where: str
    parts: tuple[Number | str, ...]
    names: tuple[str, ...]

    def engine_text(self, fields: Mapping[str, str], mark: str) -> str:
        """In the engine's language; null where something it names is null.

        Raises:
            ValueError: a number has no reading with this decimal mark.
        """
        written = []
        for part in self.parts:
            value = part.value(mark) if isinstance(part, Number) else None
            if isinstance(part, Number) and value is None:
                raise ValueError(f"a number is not written with the decimal mark {mark!r}")
            written.append(plain_number(value) if value is not None else fields.get(str(part), str(part)))
        missing = " or ".join(f"{fields[name]} == null" for name in dict.fromkeys(self.names))
        return f"({missing}) ? null : ({' '.join(written)})"


def formula(text: str, where: str, names: Sequence[str]) -> Formula | None:
    """The formula that an outcome's text is; None where it is a text.

    Raises:
        ValueError: it may be one or the other.
    """
    found = sorted((n for n in names if n.lower() in text.lower()), key=len, reverse=True)
    if text.lower() in (name.lower() for name in found):
        raise ValueError("the name of a condition, or a text? Put the text in quotes")
    parts = _parts(text, found)
    used = tuple(part for part in parts or () if part in names)
    if parts and used and _is_well_formed(parts, names):
        return Formula(text, where, tuple(parts), tuple(map(str, used)))
    sign = r"\s*[-+*/×·]\s*|\s*%\s*of\s+"  # noqa: RUF001
    computes = any(
        re.search(
            rf"[\w%)]({sign}){re.escape(n)}(?!\w)|(?<!\w){re.escape(n)}({sign})[\w(]", text, re.IGNORECASE
        )
        for n in found
    )
    if computes or re.search(r"\w\s*[*×]\s*\w", text):  # noqa: RUF001
        raise ValueError(
            f"not a formula over the table's conditions ({', '.join(names)}); write the value, or a text in "
            "quotes"
        )
    return None


def _parts(text: str, names: Sequence[str]) -> list[Number | str] | None:
    parts: list[Number | str] = []
    at = 0
    while text[at:].strip():
        at += len(text[at:]) - len(text[at:].lstrip())
        name = next((n for n in names if _starts(text, at, n)), None)
        if name:
            parts.append(name)
            at += len(name)
            continue
        match = _TOKEN.match(text, at)
        if not match:
            return None
        if match["op"]:
            parts.append(_SIGNS.get(match["op"], match["op"]))
        elif value := number(match["number"].strip()):
            parts.append(value)
        else:
            return None
        at = match.end()
    return parts


def _starts(text: str, at: int, name: str) -> bool:
    after = text[at + len(name) : at + len(name) + 1]
    return text[at : at + len(name)].lower() == name.lower() and not (after.isalnum() or after == "_")


def _is_well_formed(parts: Sequence[Number | str], names: Sequence[str]) -> bool:
    """Whether values and signs take turns and brackets close; at least one sign."""
    depth, wants_value, signs = 0, True, 0
    for part in parts:
        if isinstance(part, Number) or part in names:
            if not wants_value:
                return False
            wants_value = False
        elif part == "(":
            if not wants_value:
                return False
            depth += 1
        elif part == ")":
            if wants_value or not depth:
                return False
            depth -= 1
        elif wants_value and part != "-":
            return False
        else:
            signs += 1
            wants_value = True
        if depth > MOST_LEVELS:
            return False
    return not depth and not wants_value and signs > 0
