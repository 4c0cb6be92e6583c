"""The verifier of accepted outcomes: is the reply what people accepted for this input, not what they sent back?

`info["accepted"]` maps replies to the share of their uses that were accepted, `info["rejected"]` lists what was
sent back. The reply most often accepted earns 1, another one its share of that.
"""

from typing import Any, Literal

from vertigym.core.types import Score
from vertigym.rewards.answers import normalised
from vertigym.rewards.calling import RewardFunction, bounded
from vertigym.rewards.words import numbers, overlap, words

_LONGEST = 20_000  # characters of a reply that are compared


def accepted(*, match: Literal["same", "near"] = "same") -> RewardFunction:
    """1 for the reply that was accepted.

    match: `same` but for case, punctuation and articles; `near` pays for shared words, too: nothing up to half
    of them (every reply of one trade shares some), in a line to 1, less what it is nearer to a rejected reply,
    and nothing unless the numbers are the same.
    """

    @bounded
    def accepted(completion: str, info: dict[str, Any]) -> Score:
        shares = info["accepted"]
        if not shares:
            return Score.unscored("no reply to this input was accepted")
        best = max(shares.values())
        text = completion[:_LONGEST]
        same = max(
            (s for reply, s in shares.items() if normalised(reply) == normalised(text) != ""), default=0.0
        )
        value = same / best
        if match == "near" and not same:
            near = max(_near(text, reply) * share / best for reply, share in shares.items())
            value = max(
                0.0, near - max((_near(text, reply) for reply in info.get("rejected", ())), default=0.0)
            )
        return Score(value, {"same": float(same > 0)})

    return accepted


def _near(text: str, reply: str) -> float:
    """0 up to half the words shared, then in a line to 1; 0 when the numbers differ."""
    if numbers(text) != numbers(reply):
        return 0.0
    return max(0.0, 2 * overlap(words(text), words(reply)) - 1)
