"""Numbers and dates as people write them, with every reading they have.

    1.234,5     1234.5 with a decimal comma         5 %, 1'000.- CHF     with a unit
    1,500       1500 with a point, 1.5 with a comma   31.12.2024          one day
    1,5         1.5 with a comma only               01/02/2024          two days: day or month first

Nothing is chosen here. `sheet_columns` sees all cells and chooses, or refuses. (babel's `parse_decimal` needs
to be told the locale, reads 1,5 as 15 in English and does not know the Swiss apostrophe.)
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import lru_cache

_MOST_KEPT = 4096  # readings
MOST_DIGITS = 15  # more than a float holds: a card's or an account's number

_SPACES = "\u0020\u00a0\u202f\u2009"
_APOSTROPHES = "'\u2019"
_SIGN = r"(?P<sign>[+\-\u2212]?)"
_WHOLE = r"(?:0|[1-9]\d*)"


def _form(decimal: str, groups: str, more: str = "") -> re.Pattern[str]:
    grouped = "|".join(rf"[1-9]\d{{0,2}}(?:[{g}]\d{{3}})+" for g in (re.escape(groups), _APOSTROPHES, _SPACES))
    return re.compile(
        rf"(?P<whole>{grouped}{more}|{_WHOLE}|(?={re.escape(decimal)}))(?:{re.escape(decimal)}(?P<rest>\d+))?"
    )


_POINT = _form(".", ",", r"|[1-9]\d?(?:,\d\d)*,\d{3}")  # and lakh: 12,34,567
_COMMA = _form(",", ".")
_CURRENCIES = {
    "€": "EUR", "£": "GBP", "₹": "INR", "Rs": "INR", "Rs.": "INR", "$": "USD", "US$": "USD", "¥": "JPY",
    "Fr.": "CHF", "kr": "kr", "zł": "PLN", "Kč": "CZK", "₽": "RUB", "₺": "TRY", "₩": "KRW", "₪": "ILS",
    "R$": "BRL",
}  # fmt: skip
_CODES = [
    "EUR", "USD", "GBP", "CHF", "INR", "JPY", "CNY", "SEK", "NOK", "DKK", "PLN", "CZK", "HUF", "RON", "AUD",
    "CAD", "NZD", "ZAR", "BRL", "MXN", "SGD", "HKD", "KRW", "TRY", "ILS", "THB", "AED",
]  # fmt: skip
_UNIT = "|".join(map(re.escape, sorted([*_CURRENCIES, *_CODES, "%"], key=len, reverse=True)))
_DRESSED = re.compile(
    rf""
    rf"{_SIGN}(?P<before>{_UNIT})?[{_SPACES}]*(?P<inner>[+\-\u2212]?[\d.,].*?)(?P<none>[.,][-\u2013\u2014]{{1,2}})?"
    rf"[{_SPACES}]*(?P<after>{_UNIT})?"
)


@dataclass(frozen=True, slots=True)
class Number:
    """A number by decimal mark, and its unit: "", "%" or a currency. None: not a number with that mark.

    `plain`: digits and one mark at most, so with a comma it might be two values.
    """

    point: Decimal | None
    comma: Decimal | None
    unit: str = ""
    plain: bool = False

    def value(self, mark: str) -> Decimal | None:
        """The value with "." or "," as the decimal mark, 5% as 0.05."""
        found = self.comma if mark == "," else self.point
        return found / 100 if self.unit == "%" and found is not None else found


@lru_cache(_MOST_KEPT)
def number(text: str) -> Number | None:
    """Every reading as a number; None where there is none.

    Raises:
        ValueError: it has more digits than a number keeps.
    """
    dressed = _DRESSED.fullmatch(text) if re.search(r"\d", text) else None
    if not dressed:
        return None
    inner, sign = dressed["inner"], dressed["sign"]
    if inner[0] in "+-\u2212":
        if sign:
            return None
        sign, inner = inner[0], inner[1:]
    units = {_CURRENCIES.get(u, u) for u in (dressed["before"], dressed["after"]) if u}
    point, comma = (_value(form, inner) for form in (_POINT, _COMMA))
    if len(units) > 1 or (point is None and comma is None):
        return None
    if sum(map(str.isdigit, inner)) > MOST_DIGITS:
        raise ValueError(f"more than {MOST_DIGITS} digits: a number does not keep them; write a text in quotes")
    if sign in ("-", "\u2212"):
        point, comma = (None if v is None else -v for v in (point, comma))
    plain = not units and not dressed["none"] and re.fullmatch(r"\d+[.,]?\d*", inner) is not None
    return Number(point, comma, next(iter(units), ""), plain)


def _value(form: re.Pattern[str], text: str) -> Decimal | None:
    found = form.fullmatch(text)
    if not found:
        return None
    whole = re.sub(r"\D", "", found["whole"])
    return Decimal(f"{whole or 0}.{found['rest'] or 0}")


def plain_number(value: Decimal) -> str:
    """The value as the engine and JSON spell it."""
    text = f"{value:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


_DAY = re.compile(r"(\d{1,2})([./-])(\d{1,2})\2(\d{4})")
_YEAR_FIRST = re.compile(r"(\d{4})([./-])(\d{1,2})\2(\d{1,2})")
_SHORT_YEAR = re.compile(r"\d{1,2}([./-])\d{1,2}\1\d{2}|\d{1,2}\.\d{1,2}\.")
_NAMED = re.compile(
    r"(?P<d>\d{1,2})(?:st|nd|rd|th|\.)?[ \-]+(?P<m>[^\W\d_]+)\.?,?[ \-]+(?P<y>\d{4})"
    r"|(?P<m2>[^\W\d_]+)\.? +(?P<d2>\d{1,2})(?:st|nd|rd|th)?,? +(?P<y2>\d{4})"
)
_TIME = re.compile(
    r"(?:.*[ T])?\d{1,2}:\d\d(?::\d\d)?(?: ?[ap]\.?m\.?| Uhr)?(?:Z|[+-]\d\d:\d\d)?", re.IGNORECASE
)
_MONTH_NAMES = [
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october",
    "november", "december",
]  # fmt: skip
_MONTHS = {name[:length]: place for place, name in enumerate(_MONTH_NAMES, 1) for length in (3, len(name))} | {
    "sept": 9
}
_WRITE = "write it as 2024-01-31, or in quotes where it is a text"


@lru_cache(_MOST_KEPT)
def days(text: str) -> Mapping[str, date]:
    """The days it may mean by order ("dmy", "mdy"; both where they do not differ); empty where it is no date.

    Raises:
        ValueError: a date that is not read: two digits for a year, a month's name that is not English, no such
            day, a time of day.
    """
    if found := _YEAR_FIRST.fullmatch(text):
        return dict.fromkeys(("dmy", "mdy"), _date(found[1], found[3], found[4]))
    if found := _DAY.fullmatch(text):
        first, second, year = found[1], found[3], found[4]
        if found[2] == ".":
            return dict.fromkeys(("dmy", "mdy"), _date(year, second, first))
        orders = {"dmy": (second, first), "mdy": (first, second)}
        both = {order: _date(year, *pair) for order, pair in orders.items() if int(pair[0]) <= 12}
        return both or {"": _date(year, second, first)}  # which raises
    if _SHORT_YEAR.fullmatch(text):
        raise ValueError(f"a date needs a year of four digits; {_WRITE}")
    if found := _NAMED.fullmatch(text):
        month = _MONTHS.get((found["m"] or found["m2"]).lower())
        if month is None:
            raise ValueError(f"not an English month; {_WRITE}")
        one = _date(found["y"] or found["y2"], str(month), found["d"] or found["d2"])
        return dict.fromkeys(("dmy", "mdy"), one)
    if _TIME.fullmatch(text):
        raise ValueError("times of day are not supported; put it in quotes where it is a text")
    return {}


def _date(year: str, month: str, day: str) -> date:
    try:
        return date(int(year), int(month), int(day))
    except ValueError:
        raise ValueError(f"there is no such day; {_WRITE}") from None
