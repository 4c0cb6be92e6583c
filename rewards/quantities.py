"""Numbers with units: lengths, times, money, angles, percent, times of day. A table, no library: what it lacks
is a word.

A unit is a factor and a dimension; `km/h` and `square metres` are products of powers. Factors to SI are exact
(BIPM 2019; NIST SP 811 for feet, pounds and the like).
"""

import re
from fractions import Fraction
from functools import cache
from typing import NamedTuple

Dimension = tuple[tuple[str, int], ...]

_PREFIXES = {"k": 3, "c": -2, "m": -3, "d": -1, "M": 6, "G": 9, "n": -9, "u": -6, "μ": -6, "h": 2}
_LONG_PREFIXES = {
    "kilo": 3,
    "centi": -2,
    "milli": -3,
    "deci": -1,
    "mega": 6,
    "giga": 9,
    "nano": -9,
    "micro": -6,
}
# symbol with SI prefixes, words with long ones, dimension, factor
_METRIC: list[tuple[str, str, str, Fraction]] = [
    ("m", "meter metre", "m", Fraction(1)),
    ("g", "gram gramme", "kg", Fraction(1, 1000)),
    ("L", "liter litre", "m^3", Fraction(1, 1000)),
    ("l", "", "m^3", Fraction(1, 1000)),
    ("s", "second", "s", Fraction(1)),
    ("W", "watt", "kg m^2 s^-3", Fraction(1)),
    ("J", "joule", "kg m^2 s^-2", Fraction(1)),
    ("N", "newton", "kg m s^-2", Fraction(1)),
    ("Pa", "pascal", "kg m^-1 s^-2", Fraction(1)),
    ("Hz", "hertz", "s^-1", Fraction(1)),
    ("V", "volt", "V", Fraction(1)),
    ("A", "ampere amp", "A", Fraction(1)),
]
_OTHER: dict[str, tuple[str, Fraction]] = {
    "sec secs": ("s", Fraction(1)),
    "min mins minute minutes": ("s", Fraction(60)),
    "h hr hrs hour hours": ("s", Fraction(3600)),
    "day days": ("s", Fraction(86400)),
    "week weeks": ("s", Fraction(604800)),
    "month months": ("month", Fraction(1)),
    "year years yr yrs": ("month", Fraction(12)),
    "in inch inches": ("m", Fraction(254, 10000)),
    "ft foot feet": ("m", Fraction(3048, 10000)),
    "yd yard yards": ("m", Fraction(9144, 10000)),
    "mi mile miles": ("m", Fraction(1609344, 1000)),
    "mph": ("m s^-1", Fraction(1609344, 3600000)),
    "lb lbs pound pounds": ("kg", Fraction(45359237, 100000000)),
    "oz ounce ounces": ("kg", Fraction(45359237, 1600000000)),
    "t ton tons tonne tonnes": ("kg", Fraction(1000)),
    "ha hectare hectares": ("m^2", Fraction(10000)),
    "$ usd dollar dollars": ("dollar", Fraction(1)),
    "cent cents ¢": ("dollar", Fraction(1, 100)),
    "€ eur euro euros": ("euro", Fraction(1)),
    "£ gbp": ("sterling", Fraction(1)),
    "^\\circ degree degrees deg": ("degree", Fraction(1)),
    "rad radian radians": ("radian", Fraction(1)),
    "% percent pct percentage": ("percent", Fraction(1)),
}
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}


class Quantity(NamedTuple):
    """`value` (text), times `factor`, of a dimension; `words` where the unit is none we know ("apples")."""

    value: str
    factor: Fraction
    dimension: Dimension
    words: str


def _dimension(text: str) -> dict[str, int]:
    return {name: int(power or 1) for name, power in re.findall(r"([a-zA-Z]+)(?:\^(-?\d+))?", text)}


@cache
def _units() -> dict[str, tuple[Fraction, str]]:
    found = dict[str, tuple[Fraction, str]]()
    for symbol, words, dimension, factor in _METRIC:
        forms = [(p + symbol, n) for p, n in [("", 0), *_PREFIXES.items()]]
        for word in words.split():
            forms += [(p + word + s, n) for p, n in [("", 0), *_LONG_PREFIXES.items()] for s in ("", "s")]
        found |= {form: (factor * Fraction(10) ** n, dimension) for form, n in forms}
    for names, (dimension, factor) in _OTHER.items():
        found |= dict.fromkeys(names.split(), (factor, dimension))
    return found


def unit(text: str) -> tuple[Fraction, Dimension] | None:
    """The factor to base units and the dimension of `km/h`, `square cm`, `m s^{-1}`; None for no unit we
    know."""
    text = re.sub(r"\b(square|sq\.?)\s+(\S+)", r"\2^2", re.sub(r"\b(cubic|cu\.?)\s+(\S+)", r"\2^3", text))
    text = re.sub(r"\s*(?:\bper\b|/)\s*", " / ", text.replace("^{", "^").replace("}", "").replace("{", ""))
    factor, powers, sign = Fraction(1), dict[str, int](), 1
    tokens = re.sub(r"\\cdot|\*", " ", text).split()
    for token in tokens:
        if token == "/":
            sign = -1
            continue
        name, _, exponent = (token, "", "") if token.startswith("^") else token.partition("^")
        known = _units().get(name) or _units().get(name.lower().rstrip("."))
        if known is None or not re.fullmatch(r"-?\d?", exponent) or exponent == "-":
            return None
        power, sign = sign * int(exponent or 1), 1
        factor *= known[0] ** power
        for base, degree in _dimension(known[1]).items():
            powers[base] = powers.get(base, 0) + degree * power
    return (
        (factor, tuple(sorted((b, p) for b, p in powers.items() if p))) if tokens and tokens != ["/"] else None
    )


_VALUE = r"[-+]?\s*(?:\d[\d,]*(?:\.\d+)?|\.\d+)"
_SIMPLE = re.compile(
    rf"({_VALUE}(?:\s*/\s*\d+|\s+\d+\s*/\s*\d+|\s*\\frac\s*\{{\d+\}}\s*\{{\d+\}})?)\s*(.*)", re.DOTALL
)
_TRAILING = re.compile(
    r"(.*?[\d)}\]A-Za-z])\s*"
    r"((?:\\?%|\^\s*\{?\s*\\circ\s*\}?)"
    r"|\s(?:[A-Za-z][A-Za-z .]*(?:\^\{?-?\d\}?)?(?:\s*/\s*[A-Za-z]+(?:\^\{?-?\d\}?)?)?))\s*",
    re.DOTALL,
)
_MONEY = re.compile(r"(-?)\s*(\$|€|£|USD|EUR|GBP)\s*(?=[-\d.])", re.IGNORECASE)
_COMPOUND = re.compile(rf"({_VALUE})\s*([A-Za-z]+)\s*(?:,|and)?\s*")
_DEGREES = re.compile(r"\^\s*\{?\s*\\circ\s*\}?")


def quantity(text: str) -> Quantity | None:
    """What `text` measures, or None where it has no unit and no word after its number."""
    text = _DEGREES.sub(r"^\\circ ", text).strip()
    if money := _MONEY.match(text):
        text = f"{money[1]}{text[money.end() :].strip()} {money[2]}"
    whole = _compound(text)
    if whole:
        return whole
    found = _SIMPLE.fullmatch(text) or _TRAILING.fullmatch(text)
    if not found or not found[2].strip():
        return None
    value, rest = found[1].strip(), found[2].strip()
    head, _, tail = rest.partition(" ")
    if head.lower() in _SCALES:
        scaled = quantity(f"{value} {tail}") if tail else None
        scale = Fraction(_SCALES[head.lower()])
        return scaled._replace(factor=scaled.factor * scale) if scaled else Quantity(value, scale, (), "")
    known = unit(rest)
    if known:
        return Quantity(value, *known, "")
    words = (
        re.fullmatch(r"(?!(?:and|or)\b)[A-Za-z][A-Za-z '\-,.]*", rest)
        and max(map(len, re.findall("[A-Za-z]+", rest))) > 2
    )
    return Quantity(value, Fraction(1), (), rest.lower()) if words and _SIMPLE.fullmatch(text) else None


def _compound(text: str) -> Quantity | None:
    """`3 h 20 min`: two or more numbers with units of one dimension."""
    pieces = _COMPOUND.findall(text)
    if len(pieces) < 2 or _COMPOUND.sub("", text).strip():
        return None
    units = [unit(name) for _, name in pieces]
    if any(u is None or u[1] != (units[0] or u)[1] for u in units):
        return None
    total = sum((exact(value) or 0) * u[0] for (value, _), u in zip(pieces, units, strict=True) if u)
    return Quantity(str(total), Fraction(1), units[0][1] if units[0] else (), "")


_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d{1,3}(?: \d{3})+(?:\.\d+)?")
_NUMBER = re.compile(r"[-+]?\s*(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,4})?")
_FRACTION = re.compile(
    r"(-?)\s*(?:\\frac\s*\{\s*(-?\d+)\s*\}\s*\{\s*(-?\d+)\s*\}|(-?\d+)\s*/\s*(-?\d+)|\\frac\s*(\d)\s*(\d))"
)
_MIXED = re.compile(r"(-?)\s*(\d+)\s*(?:\s(\d+)\s*/\s*(\d+)|\\frac\s*\{?(\d+?)\}?\s*\{?(\d+)\}?)")
_POWER = re.compile(
    r"(.+?)(?:\s*(?:\\times|\\cdot|\*|x)\s*)10\s*\^\s*\{?\s*(-?\d{1,4})\s*\}?|()10\s*\^\s*\{?\s*(-?\d{1,4})\s*\}?"
)
_REPEATING = re.compile(r"(-?)(\d*)\.(\d*)\\overline\s*\{?\s*(\d+)\s*\}?")


def exact(text: str) -> Fraction | None:
    r"""The number that `text` writes out: integer, decimal, fraction, mixed number, power of ten,
    `0.\overline{3}`, with thousands parted by commas or spaces; None for anything else."""
    text = text.strip()
    if len(text) > 400:
        return None
    sign, body = (-1, text[1:].strip()) if text.startswith("-") else (1, text.removeprefix("+").strip())
    if _THOUSANDS.fullmatch(body):
        body = body.replace(",", "").replace(" ", "")
    if _NUMBER.fullmatch(body):
        return sign * Fraction(body.replace(" ", ""))
    if found := _FRACTION.fullmatch(body):
        top, bottom = (int(n) for n in found.groups()[1:] if n)
        return sign * (-1 if found[1] else 1) * Fraction(top, bottom) if bottom else None
    if found := _MIXED.fullmatch(body):
        whole, top, bottom = (int(n) for n in found.groups()[1:] if n)
        return sign * (whole + Fraction(top, bottom)) if bottom else None
    if found := _POWER.fullmatch(body):
        front = exact(found[1]) if found[1] else Fraction(1)
        return sign * front * Fraction(10) ** int(found[2] or found[4]) if front is not None else None
    if found := _REPEATING.fullmatch(body):
        lead, cycle = found[3], found[4]
        tail = Fraction(int(cycle), (10 ** len(cycle) - 1) * 10 ** len(lead))
        return sign * (Fraction(f"{found[2] or 0}.{lead or 0}") + tail)
    return None


TOLERANCE = Fraction(1, 10**6)  # relative; of decimals only


def same_number(gold: str, answer: str) -> bool | None:
    """Whether two written-out numbers are the same: integers and fractions exactly, decimals to `TOLERANCE`."""
    wanted, found = exact(gold), exact(answer)
    if wanted is None or found is None:
        return None
    if wanted == found or wanted.denominator == 1 or "." not in gold + answer:
        return wanted == found
    return abs(wanted - found) <= TOLERANCE * abs(wanted)


_CLOCK = re.compile(r"(\d{1,2})[:.](\d{2})(?:[:.](\d{2}))?\s*(a\.?m\.?|p\.?m\.?)?", re.IGNORECASE)


def clock(text: str) -> tuple[int, bool] | None:
    """Seconds after midnight of `3:30 PM` or `15:30`, and whether the half of the day is said; None for no
    time."""
    found = _CLOCK.fullmatch(text.strip())
    if not found or ("." in text.split()[0] and not found[4]):
        return None
    hour, minute, second = int(found[1]), int(found[2]), int(found[3] or 0)
    half = (found[4] or "").lower().replace(".", "")
    if half:
        hour = hour % 12 + (12 if half == "pm" else 0)
    return hour * 3600 + minute * 60 + second, bool(half) or hour > 12
