"""How one field of a JSON answer is compared: exactly, as a number, a set, a date, or a text that shares words.

fields(schema, rules={"total": "number", "tags": "set", "due": {"as": "date", "formats": ["%d.%m.%Y"]},
                      "summary": {"as": "text", "least": 0.8}})
"""

import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any, Literal

from pydantic import Field, ValidationError

from vertigym.core.config import Config
from vertigym.core.errors import ConfigError
from vertigym.rewards.decision import DecisionVerifier
from vertigym.rewards.text import close, number
from vertigym.rewards.words import overlap, words

_IN_WORDS = ("%d %B %Y", "%B %d %Y", "%d %b %Y", "%b %d %Y", "%Y/%m/%d")  # of one reading each
_ORDINAL = re.compile(r"(?<=\d)(?:st|nd|rd|th)\b|,")
Equal = Callable[[Any, Any], bool]


class FieldRule(Config):
    """`as`: how. `relative`, `absolute`: tolerances of `number`, which also reads `"1,250.50"` and `"$7"`.
    `formats`: of `date` (strptime's), tried in turn after ISO 8601 and English words (`5 March
    2024`). `least`: the F1 of shared words (Rajpurkar et al. 2016) that `text` asks for."""

    how: Literal["exact", "number", "set", "date", "text"] = Field(alias="as")
    relative: float = Field(1e-6, ge=0)
    absolute: float = Field(0.0, ge=0)
    formats: list[str] = Field(default_factory=list)
    least: float = Field(0.8, gt=0, le=1)


def field_rule(name: str, given: str | Mapping[str, Any]) -> Equal:
    """What compares (the reply's value, the reference's) of the field `name`.

    Raises:
        ConfigError: no such rule, or a setting that does not fit.
    """
    try:
        rule = FieldRule.model_validate({"as": given} if isinstance(given, str) else dict(given))
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise ConfigError(f"rules.{name}.{'.'.join(map(str, fault['loc']))}: {fault['msg']}") from None
    exactly = DecisionVerifier(tolerance=0.0).equal
    if rule.how == "set":
        return lambda found, wanted: _same_set(found, wanted, exactly)
    compare: dict[str, Equal] = {
        "exact": exactly,
        "number": lambda found, wanted: _same_number(found, wanted, rule),
        "date": lambda found, wanted: (day := _day(wanted, rule)) is not None and _day(found, rule) == day,
        "text": lambda found, wanted: overlap(words(str(found)), words(str(wanted))) >= rule.least,
    }
    return compare[rule.how]


def _same_set(found: Any, wanted: Any, equal: Equal) -> bool:
    """Lists with the same members, each as often, in any order."""
    if not isinstance(found, list) or not isinstance(wanted, list) or len(found) != len(wanted):
        return False
    left = list(found)
    for item in wanted:
        at = next((i for i, one in enumerate(left) if equal(one, item)), None)
        if at is None:
            return False
        del left[at]
    return True


def _same_number(found: Any, wanted: Any, rule: FieldRule) -> bool:
    if isinstance(found, bool) or isinstance(wanted, bool):
        return False
    first, second = number(str(found)), number(str(wanted))
    if first is None or second is None:
        return False
    return close(first, second, rule.relative, rule.absolute)


def _day(value: Any, rule: FieldRule) -> date | None:
    text = str(value).strip()
    for form in ("", *_IN_WORDS, *rule.formats):
        try:
            if not form:
                return datetime.fromisoformat(text).date()
            return datetime.strptime(_ORDINAL.sub("", text) if form in _IN_WORDS else text, form).date()
        except ValueError:
            continue
    return None
