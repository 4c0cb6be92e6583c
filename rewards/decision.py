"""The decision verifier: is the JSON that the policy wrote the decision that the rules give?

Three parts, each 0 to 1:

- `parses`: the reply is a JSON value of the answer's shape: the same fields, each with a value of the right
  JSON type. `{}`, `[]`, a record of nulls, or JSON about something else earns nothing.
- `fields`: the share of fields that are right, over the answer's fields and whatever the reply adds to them.
- `exact`: all of it is right, and nothing is added.

Equality is strict. true is not 1, "1" is not 1, null equals only null, keys must match, lists match in order.
Two whole numbers are equal when they are the same; where either has a fraction or an exponent, when they differ
by at most `tolerance` (absolute; and by rounding of 1e-12, relative, for very large ones): 1 and 1.0 are equal.

The reply is bare or fenced strict JSON (`rewards.replies.json_in`). Any other reply scores 0, however hostile,
in time linear in its length; it never raises.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vertigym.core.types import Score
from vertigym.rewards.replies import json_in

_RELATIVE = 1e-12
_PLAIN = {bool, int, str, type(None)}
_KINDS: dict[type, str] = {
    bool: "boolean",
    int: "number",
    float: "number",
    str: "string",
    list: "list",
    dict: "object",
    type(None): "null",
}


@dataclass(frozen=True, slots=True)
class DecisionVerifier:
    """Scores replies against the engine's answer. The three weights sum to 1: the right answer scores 1.

    DecisionVerifier()(completion='{"fee": 5}', answer={"fee": 5}).value == 1.0
    """

    parses: float = 0.1
    fields: float = 0.3
    exact: float = 0.6
    tolerance: float = 1e-6

    def __call__(self, completion: str, answer: Any) -> Score:
        """The weighted sum, its parts, and as evidence the reason for a 0 or the names of the wrong fields."""
        try:
            reply = json_in(completion)
        except ValueError as error:
            return _nothing(str(error))
        if self.equal(reply, answer):
            return Score(
                round(self.parses + self.fields + self.exact, 9), {"parses": 1.0, "fields": 1.0, "exact": 1.0}
            )
        if isinstance(answer, dict) != isinstance(reply, dict):
            return _nothing(f"a JSON {_kind(answer)} is asked for, the reply is a {_kind(reply)}")
        right, total, wrong, shape = self._compare(reply, answer)
        parts = {"parses": float(shape), "fields": right / total, "exact": 0.0}
        return Score(self.parses * shape + self.fields * right / total, parts, {"wrong": wrong})

    def _compare(self, reply: Any, answer: Any) -> tuple[int, int, list[str], bool]:
        """Fields right, fields in all, names of the wrong ones, and whether the shape fits."""
        right, total, wrong, shape = 0, 0, list[str](), True
        for name, got, expected in _pairs(reply, answer):
            total += 1
            shape &= _kind(got) == _kind(expected) and (got == []) == (expected == [])
            if expected is not _MISSING and got is not _MISSING and self.equal(got, expected):
                right += 1
            elif len(wrong) < 20:
                wrong.append(name)
        return right, total, wrong, shape

    def equal(self, got: Any, expected: Any) -> bool:
        """Strict equality of two JSON values, numbers within the tolerance."""
        if type(got) is type(expected) and type(got) in _PLAIN:
            return bool(got == expected)
        if _kind(got) != _kind(expected):
            return False
        if isinstance(expected, dict):
            return got.keys() == expected.keys() and all(self.equal(got[k], v) for k, v in expected.items())
        if isinstance(expected, list):
            return len(got) == len(expected) and all(map(self.equal, got, expected))
        return math.isclose(got, expected, rel_tol=_RELATIVE, abs_tol=self.tolerance)


class _Missing:
    """Stands for a field that one side does not have."""


_MISSING = _Missing()


def _pairs(reply: Any, answer: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Field by field, (name, reply's value, answer's value). It descends only where the answer does, so a reply
    cannot make it deep; a field that only the reply has is named by its place, not by its text."""
    if not (isinstance(answer, dict) and answer and isinstance(reply, dict)):
        if isinstance(answer, dict) and answer:
            for key, value in answer.items():
                yield from _pairs(_MISSING, value, _dotted(name, key))
        else:
            yield name or "(all)", reply, answer
        return
    for key, value in answer.items():
        if isinstance(value, dict):
            yield from _pairs(reply.get(key, _MISSING), value, _dotted(name, key))
        else:
            yield _dotted(name, key), reply.get(key, _MISSING), value
    for _ in reply.keys() - answer.keys():
        yield _dotted(name, "(added)"), True, _MISSING


def _dotted(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _kind(value: Any) -> str:
    """The JSON type. A bool is not a number."""
    return _KINDS.get(type(value), "nothing")


def _nothing(reason: str) -> Score:
    return Score(0.0, {"parses": 0.0, "fields": 0.0, "exact": 0.0}, {"reason": reason[:200]})
