"""The verifier of accepted outcomes: is the reply what people accepted for this input, not what they sent back?

`info["accepted"]` maps replies to the share of their uses that were accepted, `info["rejected"]` lists what was
sent back. The reply most often accepted earns 1, another one its share of that. A reply that is right for
other inputs is penalised (`rewards.chance`): the stock reply, always given, earns nothing.
"""

from collections.abc import Mapping
from typing import Any, Literal

from vertigym.core.types import Score, Task
from vertigym.rewards.answers import normalised
from vertigym.rewards.calling import RewardFunction, bounded
from vertigym.rewards.chance import ChanceCorrection
from vertigym.rewards.words import numbers, overlap, words

_LONGEST = 20_000  # characters of a reply that are compared


def accepted(
    *, match: Literal["same", "near"] = "same", correction: ChanceCorrection | None = None
) -> RewardFunction:
    """1 for the reply that was accepted.

    match: `same` but for case, punctuation and articles; `near` pays for shared words, too: nothing up to half
    of them (every reply of one trade shares some), in a line to 1, less what it is nearer to a rejected reply,
    and nothing unless the numbers are the same.
    correction: of the replies as `accepted_rewards` names them; without it a wrong stock reply costs nothing.
    """
    chance = correction or ChanceCorrection()

    @bounded
    def accepted(completion: str, info: dict[str, Any], task: Task) -> Score:
        shares = info["accepted"]
        if not shares:
            return Score.unscored("no reply to this input was accepted")
        best = max(shares.values())
        text = completion[:_LONGEST]
        plain = normalised(text)
        same = accepted_rewards(shares).get(plain, 0.0)
        value = same or -chance.penalty(plain, task)
        if match == "near" and not same:
            near = max(_near(text, reply) * share / best for reply, share in shares.items())
            near -= max((_near(text, reply) for reply in info.get("rejected", ())), default=0.0)
            value = max(value, near) if near > 0 else value
        return Score(value, {"same": float(same > 0)})

    return accepted


def accepted_rewards(shares: Mapping[str, float]) -> dict[str, float]:
    """What each accepted reply earns, by its normalised text."""
    best, found = max(shares.values()), dict[str, float]()
    for reply, share in shares.items():
        plain = normalised(reply)
        if plain:
            found[plain] = max(found.get(plain, 0.0), share / best)
    return found


def _near(text: str, reply: str) -> float:
    """0 up to half the words shared, then in a line to 1; 0 when the numbers differ."""
    if numbers(text) != numbers(reply):
        return 0.0
    return max(0.0, 2 * overlap(words(text), words(reply)) - 1)
