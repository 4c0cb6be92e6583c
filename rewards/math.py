r"""The math verifier: is the answer in the reply mathematically the reference?

The same text and plain numbers are compared here; everything else goes to worker processes
(`vertigym.rewards.math_worker`, with `math-verify` as its engine), so that one pathological expression costs
its own time limit and nothing else.
"""

from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple

from vertigym.core.errors import MissingDependencyError
from vertigym.core.types import Score
from vertigym.rewards.answers import Extractor, extractor
from vertigym.rewards.calling import RewardFunction, bounded
from vertigym.rewards.math_text import depth, plain, stripped_lead, tidy
from vertigym.rewards.process_pool import shared_pool
from vertigym.rewards.quantities import same_number

LONGEST_ANSWER = 4000  # characters; what is longer is not an answer
DEEPEST_ANSWER = 30  # brackets; the parser takes exponential time

Verdict = Literal["right", "wrong", "no answer", "unscored"]


class MathVerdict(NamedTuple):
    """`no answer`: nothing in the reply can be read as one. `unscored`: the reference cannot be, or the machine
    failed."""

    verdict: Verdict
    why: str


def math_equal(
    *,
    where: str | Extractor = "boxed or last line",
    limit_s: float = 1.0,
    worked_out: bool = True,
    decimal_mark: Literal[".", ","] = ".",
) -> RewardFunction:
    r"""1 when the answer is mathematically the reference (LaTeX or plain).

    `where`: the place of the answer (`vertigym.rewards.answers`). `limit_s`: seconds of processor time for one
    comparison; past it the sample is not scored. `worked_out`: where the reference is a plain number, a sum, a
    product or a power that is still to be computed does not count (repeating `12 + 30` is no answer of 42).
    `decimal_mark`: how the data write 1.5; with `,` a point parts thousands.

    The part `answered` is 0 where nothing in the reply can be read as an answer.

    Raises:
        MissingDependencyError: `math-verify` is not installed. ValueError: no such decimal mark.
    """
    if find_spec("math_verify") is None:
        raise MissingDependencyError("math-verify", "math", "comparing mathematical answers")
    if decimal_mark not in (".", ","):
        raise ValueError(f"decimal_mark = {decimal_mark!r}: it is '.' or ','")
    find = extractor(where)

    @bounded  # by the workers' own limit
    def math_equal(completion: str, answer: Any) -> Score:
        found = find(completion)
        if found is None:
            return _score(MathVerdict("no answer", "no answer where it should be"), None)
        return _score(equivalent(str(answer), found, limit_s, worked_out, decimal_mark), found)

    return math_equal


def _score(compared: MathVerdict, found: str | None) -> Score:
    verdict, why = compared
    if verdict == "unscored":
        return Score.unscored(why, read=found)
    evidence = {"read": found, "verdict": verdict} | ({"why": why} if why else {})
    return Score(float(verdict == "right"), {"answered": float(verdict != "no answer")}, evidence)


@lru_cache(maxsize=1 << 16)
def equivalent(
    reference: str, reply: str, limit_s: float = 1.0, worked_out: bool = True, decimal_mark: str = "."
) -> MathVerdict:
    """How `reply` compares with `reference`, and why it is no answer or not scored.

    Raises:
        TimeoutError: the comparison was killed at its limit. InfrastructureError: the worker was lost.
    """
    if len(reply) > LONGEST_ANSWER and reply != reference:
        return MathVerdict("no answer", f"an answer of more than {LONGEST_ANSWER} characters")
    gold, answer = (stripped_lead(tidy(text)) for text in (reference, reply))
    if gold and plain(gold) == plain(answer):
        return MathVerdict("right", "")
    same = same_number(gold, answer) if decimal_mark == "." else None
    if same is not None and "," not in gold + answer:
        return MathVerdict("right" if same else "wrong", "")
    if depth(reply) > DEEPEST_ANSWER:
        return MathVerdict("no answer", f"brackets nested more than {DEEPEST_ANSWER} deep")
    request = [reference, reply, worked_out, decimal_mark == ","]
    return MathVerdict(*shared_pool("vertigym.rewards.math_worker").ask(request, limit_s=limit_s))
