"""Verifiers of short texts: exact, normalised, choice, regular expression, number within a tolerance.

Each is a factory that returns a reward function for a `Rubric`. `where` says where the answer stands in the
reply (`vertigym.rewards.answers`); a reply without an answer there scores 0.
"""

import math
import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import regex

from vertigym.core.errors import ConfigError
from vertigym.core.types import Score
from vertigym.rewards.answers import Extractor, extractor, normalised
from vertigym.rewards.calling import RewardFunction, bounded

_LONGEST_NUMBER = 400  # characters
_NUMBER = re.compile(r"[+-]?(\d{1,3}(,\d{3})+|\d+)?(\.\d*)?([eE][+-]?\d{1,4})?")


def exact(*, where: str | Extractor = "whole") -> RewardFunction:
    """1 when the answer is the reference, character by character (space around it aside)."""
    find = extractor(where)

    @bounded
    def exact(completion: str, answer: Any) -> Score:
        found = find(completion)
        return Score(float(found is not None and found == str(answer).strip()), {}, {"read": found})

    return exact


def normalised_text(*, where: str | Extractor = "whole") -> RewardFunction:
    """1 when the answer is the reference, or one of a list of them, but for case, punctuation and articles.

    Not for answers whose case or punctuation matters (codes, formulas, negative numbers)."""
    find = extractor(where)

    @bounded
    def normalised_text(completion: str, answer: Any) -> Score:
        found = find(completion)
        wanted = answer if isinstance(answer, list | tuple) else [answer]
        hit = found is not None and normalised(found) in {normalised(str(one)) for one in wanted} - {""}
        return Score(float(hit), {}, {"read": found})

    return normalised_text


def choice(options: Sequence[str] = (), *, where: str | Extractor = "last line") -> RewardFunction:
    """1 when the answer is the reference option and nothing else: `B`, `(B)`, `B.`, `Answer: B`.

    `options`: the allowed ones, else the task's `info["options"]`. Naming several options names none.
    """
    find = extractor(where)

    @bounded
    def choice(completion: str, answer: Any, info: dict[str, Any]) -> Score:
        allowed = options or info.get("options", ())
        if str(answer) not in [str(one) for one in allowed]:
            return Score.unscored(f"the reference {answer!r} is not one of the options {list(allowed)}")
        found = find(completion)
        named = named_option(found or "", [str(one) for one in allowed])
        return Score(float(named == str(answer)), {}, {"read": found, "option": named})

    return choice


_LEAD = re.compile(r"^(the )?((final|correct|right|best) )?(answer|option|choice)( is)?\s*:?\s*", re.IGNORECASE)


def named_option(text: str, options: Sequence[str]) -> str | None:
    """The one of `options` that `text` names and nothing else; None where it names none or several."""
    bare = _LEAD.sub("", text.strip().strip("*")).strip().strip("*.:()[]").strip().casefold()
    return next((one for one in options if one.strip().strip("*.:()[]").casefold() == bare), None)


def matches(pattern: str = "", *, where: str | Extractor = "whole", limit_s: float = 1.0) -> RewardFunction:
    """1 when all of the answer matches the regular expression: `pattern`, or the task's reference when that is
    empty. A match that takes longer than `limit_s` is not scored.

    Raises:
        ConfigError: `pattern` is not a regular expression.
    """
    find = extractor(where)
    try:
        fixed = regex.compile(pattern)
    except regex.error as error:
        raise ConfigError(f"pattern {pattern!r}: {error}") from None

    @bounded
    def matches(completion: str, answer: Any) -> Score:
        found = find(completion)
        rule = fixed if pattern else regex.compile(str(answer))
        hit = found is not None and rule.fullmatch(found, timeout=limit_s) is not None
        return Score(float(hit), {}, {"read": found})

    return matches


def number(text: str) -> Decimal | None:
    """The number `text` is, or None: `-3`, `1,234.50`, `$7`, `3/4`, `1e5`, `12%` (the sign `%` is dropped)."""
    bare = text.strip().strip("$€£%").rstrip(".").replace("\u2212", "-").strip()
    if len(bare) > _LONGEST_NUMBER:
        return None
    top, slash, bottom = bare.partition("/")
    if slash:
        numerator, denominator = number(top), number(bottom)
        return numerator / denominator if numerator is not None and denominator else None
    if not _NUMBER.fullmatch(bare):
        return None
    try:
        return Decimal(bare.replace(",", ""))
    except InvalidOperation:
        return None


def numeric(
    *, relative: float = 1e-6, absolute: float = 0.0, where: str | Extractor = "#### or last line"
) -> RewardFunction:
    """1 when the answer is a number within the tolerance: |x - y| <= max(absolute, relative * |y|)."""
    find = extractor(where)

    @bounded
    def numeric(completion: str, answer: Any) -> Score:
        wanted = number(str(answer))
        if wanted is None:
            return Score.unscored(f"the reference {answer!r} is not a number")
        found = find(completion)
        value = number(found) if found is not None else None
        return Score(float(value is not None and close(value, wanted, relative, absolute)), {}, {"read": found})

    return numeric


def close(value: Decimal, wanted: Decimal, relative: float, absolute: float) -> bool:
    """Whether |value - wanted| <= max(absolute, relative * |wanted|)."""
    if value == wanted:
        return True
    left, right = float(value), float(wanted)
    if not (math.isfinite(left) and math.isfinite(right)):
        return False
    return abs(left - right) <= max(absolute, relative * abs(right))
