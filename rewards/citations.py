"""The verifier of a grounded answer: every claim cites passages that exist and say it, and the answer is right.

A claim is a sentence, and its citations stand in square brackets at its end: `The fee is 25 euros [p3].` Each
passage it cites must support it by itself: one sentence of the passage holds the claim's words in runs (so
citing everything supports nothing), all its numbers, and no negation more or less just there. The answer must
stand in a supported claim. A reply longer than `max_words`, or than half of the passages, is a copy and earns
nothing. Where the passages do not answer, only the refusal earns; elsewhere it is penalised
(`rewards.chance`), so that always refusing earns nothing.

What this does not see: paraphrase (claims must stay near the passages' words) and claims whose numbers stand in
the right sentence but belong to something else there.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from vertigym.core.types import Score, Task
from vertigym.rewards.answers import normalised
from vertigym.rewards.calling import RewardFunction, bounded
from vertigym.rewards.chance import ChanceCorrection
from vertigym.rewards.words import sentences, turns_around, words

_CITED = re.compile(r"\[([^\[\]\n]{1,80})\]")
_CLAIM_ENDS = re.compile(r"((?:[.!?]+(?=[\s\[]|$)(?:[ \t]*\[[^\[\]\n]{1,80}\])*)|\n+)")
REFUSAL = "The documents do not say."


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence of a reply, as words, and the ids it cites."""

    words: Sequence[str]
    cited: Sequence[str]


def claims(reply: str) -> list[Claim]:
    """The claims of a reply; what has no word is none."""
    pieces = _CLAIM_ENDS.split(reply)
    texts = ["".join(pieces[i : i + 2]) for i in range(0, len(pieces), 2)]
    listed = [Claim(words(_CITED.sub(" ", text)), _ids(text)) for text in texts]
    return [claim for claim in listed if claim.words]


def _ids(text: str) -> list[str]:
    return [name.strip() for group in _CITED.findall(text) for name in group.split(",")]


def supports(passage: str, claim: Sequence[str], share: float = 0.7) -> bool:
    """Whether one sentence of `passage` says the claim: at least `share` of the claim's words stand in it in
    runs of two or more, every number and negation of the claim among them, and no negation stands just
    before."""
    return any(_says(words(sentence), claim, share) for sentence in sentences(passage))


def _says(sentence: list[str], claim: Sequence[str], share: float) -> bool:
    shortest = min(2, len(claim))
    matcher = SequenceMatcher(None, sentence, list(claim), autojunk=False)
    runs = [run for run in matcher.get_matching_blocks() if run.size >= shortest]
    inside = {at for run in runs for at in range(run.b, run.b + run.size)}
    if not runs or len(inside) < share * len(claim):
        return False
    needed = {at for at, word in enumerate(claim) if word[0].isdigit() or turns_around(word)}
    if needed - inside:
        return False
    denied = any(turns_around(word) for run in runs for word in sentence[max(0, run.a - 2) : run.a])
    return not denied or any(turns_around(word) for word in claim)


def cited_answer(
    *,
    refusal: str = REFUSAL,
    max_words: int = 40,
    share: float = 0.7,
    correction: ChanceCorrection | None = None,
) -> RewardFunction:
    """1 for the right answer with every claim supported by each passage it cites.

    Reads `info["passages"]` (id to text) and `info["answers"]` (any of them will do; none: the refusal is
    right). The value is the share of claims that are supported, 0 unless one of these holds an answer. Parts:
    `answer`, `supported`, `cited` (claims with a citation that exists), `refused`. `correction` of the refusal;
    without it a refusal in the wrong place costs nothing.
    """
    chance = correction or ChanceCorrection()

    @bounded
    def cited_answer(completion: str, info: dict[str, Any], task: Task) -> Score:
        passages, answers = info["passages"], info["answers"]
        refused = normalised(completion[:1000]) == normalised(refusal)
        if refused or not answers:
            earned = 1.0 if not answers else -chance.penalty(refusal, task)
            return _score(earned if refused else 0.0, 0.0, 0.0, refused)
        most = min(max_words, sum(len(words(text)) for text in passages.values()) // 2)
        if len(completion) > 40 * max_words or len(words(_CITED.sub(" ", completion))) > most:
            return _score(0.0, 0.0, 0.0, False, f"more than {most} words")
        made = claims(completion)
        real = [claim for claim in made if claim.cited and all(name in passages for name in claim.cited)]
        backed = [
            claim for claim in real if all(supports(passages[name], claim.words, share) for name in claim.cited)
        ]
        right = any(_holds(claim.words, words(answer)) for claim in backed for answer in answers)
        supported = len(backed) / len(made) if made else 0.0
        return _score(right * supported, supported, len(real) / len(made) if made else 0.0, False, right=right)

    return cited_answer


def reference(passages: Mapping[str, str], answers: Sequence[str], refusal: str = REFUSAL) -> str | None:
    """The shortest right reply: the first answer that a passage says, with that passage; the refusal where
    there is no answer; None where no passage says any."""
    if not answers:
        return refusal
    pairs = (
        (answer, name) for answer in answers for name, text in passages.items() if supports(text, words(answer))
    )
    return next((f"{answer.strip().rstrip('.')} [{name}]." for answer, name in pairs), None)


def _holds(claim: Sequence[str], answer: Sequence[str]) -> bool:
    size = len(answer)
    return size > 0 and any(list(claim[i : i + size]) == list(answer) for i in range(len(claim) - size + 1))


def _score(
    value: float, supported: float, cited: float, refused: bool, reason: str = "", *, right: bool = False
) -> Score:
    parts = {"answer": float(right), "supported": supported, "cited": cited, "refused": float(refused)}
    return Score(value, parts, {"reason": reason} if reason else {})
