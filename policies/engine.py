"""What engines with a tokenizer share: prompts to token ids, room in the context, tokens to completions.

The one idea: an engine proper only continues token ids. Everything around them is done here, once, so two
engines write the same tokens but for rounding.
"""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from vertigym.core.types import Completion, Decoding, Policy, Prompt, Sampling, StopReason, TokenLogprob
from vertigym.policies.chat import ChatRenderer
from vertigym.policies.model_folder import unreadable_ids

Weights = Callable[[], Mapping[str, Tensor]]  # the state of a whole model, by its Hugging Face names


class Engine(Policy, Protocol):
    """A Policy that follows a model in training."""

    tokenizer: PreTrainedTokenizerBase
    renderer: ChatRenderer
    has_copy: bool  # of the weights: it can sample while the model is being trained

    @property
    def version(self) -> int:
        """The policy version of its weights."""
        ...

    def refresh(self, version: int) -> None:
        """Take over the model's current weights, as policy version `version`.

        Raises:
            EngineError: the engine did not take them over.
        """
        ...

    def close(self) -> None:
        """Release what the engine holds."""
        ...


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One sequence to generate: everything an engine is told about it."""

    prompt: Sequence[int]
    max_tokens: int
    seed: int
    temperature: float
    top_p: float
    stop: Sequence[int]
    banned: Sequence[int] = ()
    cancelled: Callable[[], bool] | None = None
    decoding: Decoding = field(default_factory=Decoding)
    on_text: Callable[[str], None] | None = None


@dataclass(frozen=True, slots=True)
class GenerationResult:
    """The generated tokens (the end-of-turn token included) and their log-probs, or why there are none;
    `alternatives` are likely tokens and their log-probs, where they were asked for."""

    token_ids: Sequence[int] = ()
    logprobs: Sequence[float] = ()
    error: str = ""
    alternatives: Sequence[Sequence[tuple[int, float]]] = ()


class TokenEngine(ABC):
    """A Policy that continues token ids.

    Args:
        stop: the tokens that end a turn by the model's config; those of the chat template are added.
        context: the most tokens of a prompt and its completion together.
        vocabulary: how many tokens the model predicts. Those unknown to the tokenizer are never sampled.
        rows: how many tokens it reads; `vocabulary` where not given.

    Raises:
        InputError: there is no chat template, or nothing ends a turn.
    """

    honours: frozenset[str] = frozenset({"logprobs"})  # of what `Decoding` may ask, beside stop strings

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        stop: Sequence[int],
        context: int,
        vocabulary: int | None = None,
        rows: int | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.renderer = ChatRenderer(tokenizer, stop=stop, rows=rows or vocabulary)
        self.version = 0
        self.context = context
        self._stop = sorted(self.renderer.stop)
        self.banned = unreadable_ids(tokenizer, vocabulary or 0)
        self.weights_lock = threading.RLock()  # weights change between batches, whoever asks for either
        self.wanted = 0  # how many wait to change them

    @abstractmethod
    def run(self, requests: Sequence[GenerationRequest]) -> list[GenerationResult]:
        """One result a request, in order, all by the present weights.

        Raises:
            EngineError: the engine failed as a whole.
        """

    @contextmanager
    def changing_weights(self) -> Iterator[None]:
        """Wait until nothing is decoded; nothing is until the end."""
        self.wanted += 1
        with self.weights_lock:
            self.wanted -= 1
            yield

    def batches(self, requests: Sequence[GenerationRequest]) -> Iterable[list[int]]:
        """The requests, by index, that are run together."""
        return [list(range(len(requests)))]

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """One completion a prompt, in order. A prompt that leaves no room in the context comes back empty
        with stop reason `length`.

        Raises:
            EngineError: as in `run`.
        """
        requests = [self.request(prompt, sampling) for prompt in prompts]
        fit = [request for request in requests if request.max_tokens > 0]
        done: dict[int, Completion] = {}
        for batch in self.batches(fit) if fit else ():
            with self.weights_lock:
                began, version = time.perf_counter(), self.version
                results = self.run([fit[i] for i in batch])
                elapsed = time.perf_counter() - began
            for i, result in zip(batch, results, strict=True):
                done[id(fit[i])] = self.completion(fit[i], result, version, elapsed)
        empty = GenerationResult()
        return [done.get(id(one)) or self.completion(one, empty, self.version, 0.0) for one in requests]

    def request(self, prompt: Prompt, sampling: Sampling) -> GenerationRequest:
        """What is asked of the engine proper.

        Raises:
            InputError: the prompt cannot be rendered.
        """
        ids = list(prompt.token_ids or self.renderer.prompt(prompt.messages, prompt.tools))
        room = min(prompt.most_tokens(sampling), self.context - len(ids))
        return GenerationRequest(
            ids,
            room,
            prompt.seed,
            sampling.temperature,
            sampling.top_p,
            self._stop,
            self.banned,
            prompt.cancelled,
            prompt.decoding,
            prompt.on_text,
        )

    def completion(
        self, request: GenerationRequest, result: GenerationResult, version: int, elapsed: float
    ) -> Completion:
        """The end of the turn belongs to the completion, but not to its text."""
        if result.error:
            return Completion("", StopReason.ERROR, error=result.error[:300])
        tokens, text = list(result.token_ids), self.reply_text(result.token_ids)
        stopped = self.renderer.reply_length(tokens) < len(tokens)
        if end := request.decoding.find_end(text):
            while request.decoding.find_end(self.reply_text(tokens[:-1])):  # an engine may have written on
                tokens.pop()
            text, stopped = text[: end[0]], True
        return Completion(
            text=text,
            stop_reason=StopReason.STOP if stopped else StopReason.LENGTH,
            token_ids=tokens,
            logprobs=list(result.logprobs[: len(tokens)]),
            prompt_ids=list(request.prompt),
            policy_version=version,
            prompt_tokens=len(request.prompt),
            completion_tokens=len(tokens),
            latency_s=elapsed,
            stop_text=end[1] if end else "",
            tokens=self._told(tokens, result) if request.decoding.alternatives is not None else (),
        )

    def reply_text(self, tokens: Sequence[int]) -> str:
        """The text of sampled tokens, without the end of the turn."""
        length = self.renderer.reply_length(tokens)
        text = self.tokenizer.decode(list(tokens[:length]), skip_special_tokens=False)
        assert isinstance(text, str)
        return text

    def text_so_far(self, tokens: Sequence[int]) -> str:
        """The text of the first sampled tokens, whole characters only, without what may begin the end of the
        turn."""
        end, tokens = self.renderer.end_of_turn, list(tokens)
        begun = next((n for n in range(len(end) - 1, 0, -1) if tokens[-n:] == end[:n]), 0)
        return self.reply_text(tokens[: len(tokens) - begun]).rstrip("\ufffd")

    def _told(self, tokens: Sequence[int], result: GenerationResult) -> list[TokenLogprob]:
        """The tokens of the text, each with its log-prob and its alternatives."""
        likely = [*result.alternatives, *[()] * len(tokens)]
        return [
            TokenLogprob(self.reply_text([token]), logp, [(self.reply_text([t]), p) for t, p in others])
            for token, logp, others in zip(
                tokens[: self.renderer.reply_length(tokens)], result.logprobs, likely, strict=False
            )
        ]


def stop_ids(generation_config: Any) -> list[int]:
    """The tokens that end a turn by a model's config."""
    named = getattr(generation_config, "eos_token_id", None)
    return [int(i) for i in (named if isinstance(named, list) else [named]) if i is not None]
