"""Candidate values: from the literals found beside a field, and the values seen there, to a short list.

A field's type is that of the values seen in the file's own tests; where there are none it is guessed from the
literals. Literals of another type stay as wide candidates: a rule may ask for the wrong type on purpose.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from vertigym.core.bounds import matches_somewhere
from vertigym.decisions.cases import value_key
from vertigym.decisions.expressions import Atom, Wrapper
from vertigym.decisions.text_candidates import TextHints

_DAY = 86_400
_YEAR = 365.2425 * _DAY
_MOST_YEARS = 150
_ZONE = re.compile(r"(Z|[+-]\d\d:?\d\d)$")
_WEEKDAYS = {"Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"}
_ANCHORS = ("2024-01-01", "2000-06-15")  # dates to begin with where none is named
_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?")
OTHER = "other"
_WORDS = ("amber", "birch", "cedar", "dune", "ember")
_PLAIN_NUMBERS = (0, 1, 2, 3, 5, 8, 10, 15, 20, 50, 100)
_TURNS = 4  # lists of one length
_SCALES = (0.25, 0.5, 0.75, 1.25, 1.5, 2, 4)
_EPOCH = 100_000_000  # a number beside a date and above this is seconds since 1970
_SCRIPT_NAME = re.compile(r"\binput\??\.([A-Za-z_]\w*(?:\??\.[A-Za-z_]\w*)*)")


@dataclass(slots=True)
class Hints:
    """What the model's expressions say about a field, by kind. `offsets` are seconds between dates, `texts` is
    what stands inside a text or is made of it."""

    numbers: set[float] = field(default_factory=set)
    strings: set[str] = field(default_factory=set)
    dates: set[str] = field(default_factory=set)
    offsets: set[float] = field(default_factory=set)
    lengths: set[int] = field(default_factory=set)
    texts: TextHints = field(default_factory=TextHints)
    boolean: bool = False
    null: bool = False
    is_list: bool = False
    is_date: bool = False
    holds_text: bool = False

    @property
    def is_text(self) -> bool:
        """Whether something says that it is a text."""
        return bool(self.holds_text or self.strings or self.lengths or self.texts)

    def add(self, atom: Atom, wrapper: Wrapper = "") -> None:
        """The literals of an atom that stand beside this field, which is inside the call `wrapper`."""
        self.null |= atom.null
        self.is_list |= wrapper in ("member", "count")
        self.is_date |= wrapper == "date"
        self.holds_text |= wrapper in ("case", "pattern", "split")
        self.texts.add(atom, wrapper)
        self.offsets |= set(atom.offsets)
        if atom.scales and not (atom.compares or atom.dates):
            return
        if wrapper in ("len", "count"):
            self.lengths |= {int(n) for n in atom.numbers}
        elif wrapper == "date" or atom.dates:
            self.offsets |= {n for n in atom.numbers if n >= 3600}
        else:
            self.numbers |= set(atom.numbers)
        if wrapper == "date":
            self._add_parts_of_dates(atom)
        if wrapper not in ("len", "count", "split"):
            self.strings |= set(atom.strings)
        self.dates |= set(atom.dates)
        self.boolean |= atom.booleans

    def add_values(self, seen: Iterable[Any]) -> None:
        """Values of a field that this one is compared with."""
        for value in seen:
            if isinstance(value, bool):
                self.boolean = True
            elif isinstance(value, int | float):
                self.numbers.add(value)
            elif isinstance(value, str):
                (self.dates if _DATE.fullmatch(value) else self.strings).add(value)

    def _add_parts_of_dates(self, atom: Atom) -> None:
        """Years, months and days of the week that stand beside a date, and numbers of years."""
        for n in atom.numbers:
            if 1000 <= n <= 9999:
                self.dates.add(f"{n:.0f}-06-15")
            elif 1 <= n <= _MOST_YEARS:
                self.dates.add(f"2024-{(n - 1) % 12 + 1:02.0f}-15")
                self.offsets |= {n * _YEAR + days * _DAY for days in (-2, 0, 2)}
        if set(atom.strings) & _WEEKDAYS:
            self.dates |= {f"2024-01-0{day}" for day in range(1, 8)}

    def joined(self, other: "Hints") -> "Hints":
        """The plain literals of both."""
        booleans = self.boolean or other.boolean
        return Hints(
            self.numbers | other.numbers,
            self.strings | other.strings,
            self.dates | other.dates,
            lengths=self.lengths | other.lengths,
            boolean=booleans,
            is_list=True,
        )

    def longer(self) -> set[int]:
        """Lengths about those that are asked for, from 2."""
        return {n + shift for n in self.lengths for shift in (-1, 0, 1) if n + shift > 1}

    def add_literals(self, other: "Hints") -> None:
        """The values that a computed name beside this field can take."""
        self.numbers |= other.numbers
        self.dates |= other.dates
        self.boolean |= other.boolean


def candidates(hints: Hints, seen: Sequence[Any]) -> tuple[Any, ...]:
    """The values to try, those seen in tests first."""
    known = [value for value in seen if value is not None]
    sample = known[0] if known else None
    if isinstance(sample, bool) or (sample is None and hints.boolean):
        made: list[Any] = [True, False]
    elif isinstance(sample, list) or (sample is None and hints.is_list):
        made = _lists(hints, known)
    elif _is_date(sample, hints):
        made = _dates(hints, known)
    elif isinstance(sample, str) or (sample is None and hints.is_text):
        made = _strings(hints, known)
    elif isinstance(sample, dict):
        made = []
    else:
        made = _numbers(hints.numbers, [n for n in known if isinstance(n, int | float)])
    return distinct([*seen, *made, *([None] if hints.null else [])])


def wide_candidates(hints: Hints, passed_down: Hints, seen: Sequence[Any]) -> tuple[Any, ...]:
    """Further values: literals passed down from computed names, other scales, other types, null."""
    known = [value for value in seen if isinstance(value, int | float) and not isinstance(value, bool)]
    made: list[Any] = []
    if known or not seen:
        made += _numbers(passed_down.numbers | hints.numbers, known)
        made += [_round(n * scale, decimals(known)) for n in known for scale in (*_SCALES, 0, 10, -1)]
        made += [-1, *(_round(-n, 3) for n in sorted(hints.numbers, reverse=True) if n > 0)]
    made += sorted(hints.strings)
    made += hints.texts.wide(passed_down)
    made += [True, False] if hints.boolean else []
    return distinct([*made, None])


def distinct(found: Iterable[Any]) -> tuple[Any, ...]:
    """Each JSON value once, in order; 1 and true differ, 1 and 1.0 do not."""
    kept: dict[str, Any] = {}
    for value in found:
        kept.setdefault(value_key(value), value)
    return tuple(kept.values())


def allowed(found: Iterable[Any], schema: Mapping[str, Any]) -> tuple[Any, ...]:
    """The values that a field's JSON schema allows, as far as `type`, `enum`, `pattern` and the limits say."""
    types = schema.get("type", [])
    types = [types] if isinstance(types, str) else types
    low, high = schema.get("minimum"), schema.get("maximum")
    kept = []
    for value in distinct(found):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if (
            ("enum" in schema and value not in schema["enum"])
            or (types and not any(_is_type(value, name) for name in types))
            or (
                "pattern" in schema
                and isinstance(value, str)
                and not matches_somewhere(schema["pattern"], value)
            )
            or (isinstance(value, list) and len(allowed(value, schema.get("items", {}))) < len(distinct(value)))
            or (number and low is not None and value < low)
            or (number and high is not None and value > high)
        ):
            continue
        kept.append(value)
    return tuple(kept)


def _is_type(value: Any, name: str) -> bool:
    match name:
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
        case "string":
            return isinstance(value, str)
        case "array":
            return isinstance(value, list)
        case "object":
            return isinstance(value, dict)
        case "integer" | "number":
            if isinstance(value, bool) or not isinstance(value, int | float):
                return False
            return name == "number" or float(value).is_integer()
    return True


def free_text(draw: int) -> str:
    """A text that no rule names; each number gives one."""
    return f"{_WORDS[draw % len(_WORDS)]} {draw // len(_WORDS)}"


def script_names(source: str) -> list[str]:
    """Input fields that a function node's JavaScript names (`input.order.total`)."""
    return [name.replace("?", "") for name in _SCRIPT_NAME.findall(source)]


def _numbers(literals: Iterable[float], seen: Sequence[float]) -> list[Any]:
    """Each literal, one step below and above, the middles between literals, half the least, twice the most."""
    ordered = sorted(set(literals))
    digits = decimals([*ordered, *seen])
    if not ordered:
        scaled = [_round(n * scale, digits) for n in seen for scale in _SCALES]
        return scaled or list(_PLAIN_NUMBERS)
    step = 10.0**-digits
    middles = [(low + high) / 2 for low, high in pairwise(ordered)]
    made = [n + shift for n in ordered for shift in (-step, 0, step)]
    made += [*middles, ordered[0] / 2, ordered[-1] * 2]
    least = min([0, *ordered, *seen])
    return [_round(n, digits) for n in sorted(made) if n >= least]


def decimals(numbers: Iterable[float]) -> int:
    """Digits after the point of the finest number, at most 3."""
    digits = (f"{n:.3f}".rstrip("0").partition(".")[2] for n in numbers)
    return max((len(d) for d in digits), default=0)


def _round(number: float, decimals: int) -> int | float:
    rounded = round(float(number), decimals)
    return int(rounded) if rounded.is_integer() else rounded


def _strings(hints: Hints, seen: Sequence[Any]) -> list[Any]:
    """Every literal, one value that no rule names, and texts of the lengths asked for."""
    made: list[Any] = [*sorted(hints.strings), *hints.texts.near()]
    for length in sorted({n + shift for n in hints.lengths for shift in (-1, 0, 1) if n + shift >= 0}):
        text = str(seen[0]) if seen else OTHER
        made.append((text * (length // max(len(text), 1) + 1))[:length])
    return [*made, OTHER] if made else list(_WORDS)


def _lists(hints: Hints, seen: Sequence[Any]) -> list[Any]:
    """Empty, one member, neighbours, all members; lists of the lengths asked for."""
    members: list[Any] = [*sorted(hints.strings), *(_numbers(hints.numbers, ()) if hints.numbers else ())]
    made: list[Any] = [[], *([m] for m in members), *(list(p) for p in pairwise(members))]
    made += [members, [OTHER]]
    stock = [item for value in seen if isinstance(value, list) for item in value] or members or list(_WORDS)
    for length in sorted({n + shift for n in hints.lengths for shift in (-1, 0, 1, 2) if n + shift >= 0}):
        made += [[stock[(turn + i) % len(stock)] for i in range(length)] for turn in range(_TURNS)]
        made += [[item] * length for item in (OTHER, *stock[:_TURNS])]
    return made


def _is_date(sample: Any, hints: Hints) -> bool:
    if isinstance(sample, str):
        return bool(_DATE.fullmatch(sample))
    if isinstance(sample, int | float):
        return sample > _EPOCH and bool(hints.dates or hints.is_date)
    return sample is None and bool(hints.is_date or hints.dates)


def _dates(hints: Hints, seen: Sequence[Any]) -> list[Any]:
    """A day around each date named, the offsets named and some round numbers of days around each date seen,
    all in the form of the first value seen."""
    anchors = [t for t in map(_instant, [*sorted(hints.dates), *seen] or _ANCHORS) if t is not None]
    shifts = [0.0, _DAY, 30 * _DAY, 365 * _DAY]
    shifts += [offset + around for offset in sorted(hints.offsets) for around in (-3600, 0, 3600)]
    moments = [_moved(t, sign * s) for t in anchors for s in shifts for sign in (-1, 1)]
    form = seen[0] if seen else "2000-01-01"
    timed = [text for text in (*hints.dates, *seen) if isinstance(text, str) and "T" in text]
    zone = "Z" if not timed or any(_ZONE.search(text) for text in timed) else ""
    return [_formatted(moment, form, zone) for moment in moments if moment is not None]


def _moved(moment: datetime, seconds: float) -> datetime | None:
    """The moment moved; None where no calendar goes that far."""
    try:
        return moment + timedelta(seconds=seconds)
    except OverflowError:
        return None


def _instant(value: Any) -> datetime | None:
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError, OverflowError, OSError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _formatted(moment: datetime, form: Any, zone: str) -> str | int:
    if isinstance(form, int | float):
        return int(moment.timestamp())
    return moment.strftime(f"%Y-%m-%dT%H:%M:%S{zone}" if len(form) > 10 else "%Y-%m-%d")
