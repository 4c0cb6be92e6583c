"""What rows of a batch ask for while they are decoded: a grammar, likely tokens, stop strings, a listener.

The one idea: a row that asks for nothing costs nothing, and one that does changes no other row.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vertigym.core.types import Decoding, Sampling
from vertigym.policies.engine import GenerationRequest
from vertigym.policies.grammars import GrammarMatcher
from vertigym.policies.sampling import distribution

Alternatives = list[Sequence[tuple[int, float]]]


class WatchedRows:
    """The rows of a batch that ask for something.

    Args:
        text: of sampled tokens, the end of the turn left out.
        matcher: for a grammar.
    """

    def __init__(
        self,
        text: Callable[[Sequence[int]], str],
        matcher: Callable[[str], GrammarMatcher],
        sampling: Sampling,
    ) -> None:
        self._text, self._matcher, self._sampling = text, matcher, sampling
        self.rows: dict[int, _WatchedRow] = {}

    def watch(self, i: int, request: GenerationRequest) -> None:
        """Take a request that begins, under a number of the caller's, in place of one that has ended.

        Raises:
            InputError: its grammar cannot be followed.
        """
        self.rows.pop(i, None)
        decoding = request.decoding
        if request.cancelled or request.on_text or decoding != Decoding(decoding.max_tokens):
            matcher = self._matcher(decoding.grammar) if decoding.grammar else None
            self.rows[i] = _WatchedRow(request, self._text, matcher)

    def places(self, rows: Tensor, live: Tensor) -> list[tuple[int, int]]:
        """Pairs: a row of the batch, and whose request it is, of those that are watched and live."""
        if not self.rows:
            return []
        found = enumerate(zip(rows.tolist(), live.tolist(), strict=True))
        return [(place, i) for place, (i, lives) in found if lives and i in self.rows]

    def constrain(self, logits_BV: Tensor, places: Sequence[tuple[int, int]]) -> Tensor:
        """The logits without the tokens that grammars refuse; `places` are pairs (row, request)."""
        bound = [(place, self.rows[i]) for place, i in places if self.rows[i].matcher]
        if not bound:
            return logits_BV
        logits_BV = logits_BV.clone()
        for place, row in bound:
            logits_BV[place, row.refused().to(logits_BV.device)] = -math.inf
        return logits_BV

    def note(self, logits_BV: Tensor, tokens_B: Tensor, places: Sequence[tuple[int, int]]) -> list[int]:
        """Tell each row its token; the places of those that end by it."""
        ended = []
        for place, i in places:
            row = self.rows[i]
            if (count := row.request.decoding.alternatives) is not None:
                row.alternatives.append(self._likely(logits_BV[place], count))
            if row.add(int(tokens_B[place])):
                ended.append(place)
        return ended

    def _likely(self, logits_V: Tensor, count: int) -> list[tuple[int, float]]:
        if not count:
            return []
        logps, tokens = distribution(logits_V[None], self._sampling)[0].log().topk(min(count, len(logits_V)))
        pairs = zip(tokens.tolist(), logps.tolist(), strict=True)
        return [(token, logp) for token, logp in pairs if logp > -math.inf]

    def alternatives(self, i: int) -> Alternatives:
        """The likely tokens beside each of a request's."""
        return self.rows[i].alternatives if i in self.rows else []

    def fault(self, i: int) -> str:
        """What is wrong with a request's completion; empty where nothing is."""
        return self.rows[i].fault if i in self.rows else ""


class _WatchedRow:
    def __init__(
        self,
        request: GenerationRequest,
        text: Callable[[Sequence[int]], str],
        matcher: GrammarMatcher | None,
    ) -> None:
        self.request, self.matcher = request, matcher
        self.alternatives: Alternatives = []
        self.fault = ""
        self._text = text
        self._tokens: list[int] = []

    def refused(self) -> Tensor:
        """Which tokens must not come next; none where the grammar has failed, which ends the row."""
        assert self.matcher
        refused_V = self.matcher.refused()
        if self.matcher.fault or refused_V.all():
            self.fault = f"the grammar cannot be followed: {self.matcher.fault or 'no token fits'}"
            return torch.zeros_like(refused_V)
        return refused_V

    def add(self, token: int) -> bool:
        """Take the next token; whether the row ends by it."""
        request = self.request
        self._tokens.append(token)
        if self.matcher and not self.fault:
            self.matcher.take(token)
        if self.fault or (request.cancelled and request.cancelled()):
            return True
        if not (request.on_text or request.decoding.stop or request.decoding.ends):
            return False
        text = self._text(self._tokens)
        if request.on_text:
            request.on_text(text)
        return request.decoding.find_end(text) is not None
