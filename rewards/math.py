r"""The math verifier: is the answer in the reply equivalent to the reference?

Plain numbers are compared here; everything else goes to `math-verify` in worker processes
(`vertigym.rewards.process_pool`), so that one pathological expression costs its own time limit and nothing
else.
"""

import re
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from vertigym.core.errors import MissingDependencyError
from vertigym.core.types import Score
from vertigym.rewards.answers import Extractor, extractor
from vertigym.rewards.calling import RewardFunction, bounded
from vertigym.rewards.process_pool import shared_pool
from vertigym.rewards.text import number

LONGEST_ANSWER = 1000  # characters; what is longer is not an answer
DEEPEST_ANSWER = 30  # brackets; the parser takes exponential time


def math_equal(
    *, where: str | Extractor = "boxed or last line", limit_s: float = 1.0, worked_out: bool = True
) -> RewardFunction:
    r"""1 when the answer is mathematically the reference (LaTeX or plain).

    `where`: the place of the answer (`vertigym.rewards.answers`). `limit_s`: seconds of processor time for one
    comparison; past it the sample is not scored. `worked_out`: where the reference is a plain number, a sum, a
    product or a power that is still to be computed does not count (repeating `12 + 30` is no answer of 42).

    Raises:
        MissingDependencyError: `math-verify` is not installed.
    """
    if find_spec("math_verify") is None:
        raise MissingDependencyError("math-verify", "math", "comparing mathematical answers")
    find = extractor(where)

    @bounded  # by the workers' own limit
    def math_equal(completion: str, answer: Any) -> Score:
        found = find(completion)
        if found is None:
            return Score(0.0, {}, {"read": None, "why": "no answer where it should be"})
        if len(found) > LONGEST_ANSWER:
            return Score(0.0, {}, {"why": f"an answer of more than {LONGEST_ANSWER} characters"})
        verdict, why = equivalent(str(answer), found, limit_s, worked_out)
        if verdict is None:
            return Score.unscored(why, read=found)
        return Score(float(verdict), {}, {"read": found} | ({"why": why} if why else {}))

    return math_equal


@lru_cache(maxsize=1 << 16)
def equivalent(reference: str, reply: str, limit_s: float, worked_out: bool) -> tuple[bool | None, str]:
    """Whether `reply` equals `reference`, or None with the reason why that could not be found out.

    Raises:
        TimeoutError: the comparison was killed at its limit. InfrastructureError: the worker was lost.
    """
    wanted, found = number(_bare(reference)), number(_bare(reply))
    plain = "%" not in reference + reply and "/" not in reference + reply
    if wanted is not None and found is not None and plain and (wanted == found or _whole(reference, reply)):
        return wanted == found, ""
    if wanted is not None and worked_out and _TO_COMPUTE.search(_result(reply)):
        return False, "a number is asked for, not a calculation"
    if _depth(reply) > DEEPEST_ANSWER:
        return False, f"brackets nested more than {DEEPEST_ANSWER} deep"
    request = [_bare(reference), _bare(reply)]
    verdict, why = shared_pool("vertigym.rewards.math_worker").ask(request, limit_s=limit_s)
    return verdict, why


_TEXT = re.compile(r"\\(?:text|mathrm|mbox|textbf)\s*\{[^{}]*\}")
_TO_COMPUTE = re.compile(
    r"[\d)}\]]\s*[-+*!]"  # a sum, a product, a factorial
    r"|\d\s*(?:\\cdot|\\times|\u00d7)(?!\s*10\s*\^)"  # a product, but not 1.5 \times 10^3
    r"|(?<!10)(?<!10\s)\^(?!\s*\{?\s*\\circ)"  # a power, but not of ten, and not degrees
    r"|\\sqrt"
)


def _bare(text: str) -> str:
    """Without dollar signs, math delimiters and a closing full stop."""
    return text.strip().replace("\\$", "").strip("$").strip().rstrip(".").strip()


def _result(reply: str) -> str:
    r"""What stands after the last equals sign, without words in `\text{}`."""
    return _TEXT.sub(" ", _bare(reply).rpartition("=")[2])


def _depth(text: str) -> int:
    """How deep brackets are nested."""
    depth = deepest = 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        deepest = max(deepest, depth)
    return deepest


def _whole(reference: str, reply: str) -> bool:
    """Both are whole numbers, so that no rounding is in play."""
    return not any(mark in reference + reply for mark in ".eE")
