"""The transformers engine: any Hugging Face causal model folder, CPU or GPU; tokens in, tokens out.

Every sample draws its uniform numbers from its own seed, so a completion depends on its prompt and seed, and
on the batch only through the rounding of matmuls.
"""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from vertigym.core.errors import EngineError
from vertigym.core.types import Sampling
from vertigym.policies.agreement import Way, check_causal, first_that_agrees
from vertigym.policies.decoder import Decoder, supports
from vertigym.policies.engine import GenerationRequest, GenerationResult, TokenEngine, Weights, stop_ids
from vertigym.policies.full_tensors import full_tensor, load_full_state
from vertigym.policies.grammars import GrammarMatcher, GrammarTokens, can_constrain
from vertigym.policies.model_folder import context_of, load_model
from vertigym.policies.registry import EngineKind, EngineSetup
from vertigym.policies.row_memory import rows_are_alike
from vertigym.policies.running_batch import RunningBatch
from vertigym.policies.sampling import sample_tokens, uniform_numbers
from vertigym.policies.steppers import CacheStepper, DecoderStepper, ForwardStepper, Stepper
from vertigym.policies.watched_rows import WatchedRows

DType = Literal["auto", "float32", "bfloat16"]
_log = logging.getLogger(__name__)
_PROBE = "Quick brown foxes jump over 12 lazy dogs; 345 (or more) of them bark: why?"
_OPENING = 6  # tokens: where no control token opens a text, 16 bits alone may be nats off (attention sinks)


class TransformersEngine(TokenEngine):
    """A Policy around a model and its tokenizer.

    Args:
        model: a causal model; its weights are read at construction and at every `refresh`.
        dtype: what to decode in. `auto` is bfloat16 where the processor multiplies it natively.
        max_batch: rows decoded at once.
        copy: keep weights of its own, so that the model may change while it decodes.
        on_note: told where this model is not decoded in the fastest way.
        weights: loaded into `model` by every `refresh`; None where the model itself is in training.
    """

    honours = frozenset({"logprobs", "alternatives", *(["grammar"] if can_constrain() else [])})

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        *,
        dtype: DType = "float32",
        max_batch: int = 512,
        copy: bool = False,
        weights: Weights | None = None,
        on_note: Callable[[str], None] = _log.warning,
    ) -> None:
        super().__init__(
            tokenizer,
            stop=stop_ids(model.generation_config),
            context=context_of(model.config),
            vocabulary=model.get_output_embeddings().weight.shape[0],
            rows=model.get_input_embeddings().weight.shape[0],
        )
        self.model = model
        self.max_batch = max_batch
        self._vocabulary = model.get_output_embeddings().weight.shape[0]
        self._grammars: GrammarTokens | None = None
        self.device = next(model.parameters()).device
        self.has_copy = copy
        self._alike: bool | None = None  # not measured yet
        self._weights = weights
        self._banned_ids = torch.tensor(self.banned, dtype=torch.long, device=self.device)
        with _evaluating(model):
            self.way = self._choose_way(resolve_dtype(dtype, self.device), on_note)
        self._decoded = deepcopy(model) if copy and not self._decoder else model

    def _choose_way(self, dtype: torch.dtype, on_note: Callable[[str], None]) -> Way:
        """The fastest way to decode that computes what the model's forward pass computes.

        Raises:
            InputError: the model is not causal, or its forward pass fails.
        """
        model, ids = self.model, self.renderer.ids(_PROBE)
        check_causal(model, ids[: _OPENING + 1])
        opening = self.renderer.prompt([{"role": "user", "content": _PROBE}])[:_OPENING]
        self._decoder = Decoder(model, dtype, copy=self.has_copy) if supports(model) else None
        ways = [
            Way("its own cache", CacheStepper, model.dtype),
            Way("a forward pass over all tokens for each", ForwardStepper, model.dtype),
        ]
        if decoder := self._decoder:
            ways.insert(0, Way("the fast decoder", lambda _: DecoderStepper(decoder), dtype))
        way, why = first_that_agrees(model, ways, [*opening, *ids[:_OPENING]])
        if why:
            on_note(f"{type(model).__name__} is decoded with {way.name} ({why})")
        if way is not ways[0]:
            self._decoder = None
        return way

    @classmethod
    def load(cls, folder: str | Path, **kwargs: Any) -> "TransformersEngine":
        """An engine for a model folder.

        Raises:
            DataError: the folder is missing or holds no loadable model.
        """
        model, tokenizer = load_model(folder)
        return cls(model, tokenizer, **kwargs)

    def refresh(self, version: int) -> None:
        """Take over the model's current weights, as policy version `version`."""
        with self.changing_weights():
            if self._weights:
                load_full_state(self.model, self._weights())
            if self._decoder:
                self._decoder.refresh()
            elif self.has_copy:
                state = {name: full_tensor(value) for name, value in self.model.state_dict().items()}
                load_full_state(self._decoded, state)
            self.version = version

    def close(self) -> None:
        """There is nothing to release."""

    def batches(self, requests: Sequence[GenerationRequest]) -> Iterable[list[int]]:
        """At most `max_batch` at once; neighbours in length need little padding."""
        order = sorted(range(len(requests)), key=lambda i: len(requests[i].prompt))
        return [order[start : start + self.max_batch] for start in range(0, len(order), self.max_batch)]

    def running_batch(self, sampling: Sampling, rows: int) -> RunningBatch | None:
        """A batch that prompts join whenever they are ready; None where what they get would depend, be it in
        the last bit, on when that is."""
        if self._decoder and self._alike is None:
            with torch.inference_mode():
                self._alike = rows_are_alike(self._decoder)
        if not (self._decoder and self._alike):
            return None
        return RunningBatch(self, self._decoder, self._matcher, sampling, min(rows, self.max_batch))

    @torch.inference_mode()
    def run(self, requests: Sequence[GenerationRequest]) -> list[GenerationResult]:
        """One result a request, in order. Temperature, top-p and stop tokens are those of the first.

        Raises:
            EngineError: the device is out of memory.
        """
        sampling = Sampling(temperature=requests[0].temperature, top_p=requests[0].top_p)
        watched = WatchedRows(self.text_so_far, self._matcher, sampling)
        for i, request in enumerate(requests):
            watched.watch(i, request)
        try:
            with _evaluating(self._decoded):
                stepper = self.way.make(self._decoded)
                tokens_BR, logps_BR, lengths_B = self._decode(stepper, requests, sampling, watched)
        except torch.OutOfMemoryError as error:
            raise EngineError(f"out of memory with {len(requests)} rows: lower max_batch ({error})") from None
        return [
            GenerationResult(tokens[:length], logps[:length], watched.fault(i), watched.alternatives(i))
            for i, (tokens, logps, length) in enumerate(
                zip(tokens_BR.tolist(), logps_BR.tolist(), lengths_B.tolist(), strict=True)
            )
        ]

    def _matcher(self, grammar: str) -> GrammarMatcher:
        """
        Raises:
            InputError: the grammar is wrong, or the tokenizer cannot be held to one.
        """
        self._grammars = self._grammars or GrammarTokens(self.tokenizer, self._vocabulary, self._stop)
        return self._grammars.matcher(grammar)

    def _decode(
        self,
        stepper: Stepper,
        requests: Sequence[GenerationRequest],
        sampling: Sampling,
        watched: WatchedRows,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`(tokens [B, R], log-probs [B, R], lengths [B])` for R = the most tokens a request asks for; what
        follows a row's end is zero."""
        limits_B = torch.tensor([request.max_tokens for request in requests], device=self.device)
        B, R = len(requests), int(limits_B.max())
        uniform_BR = torch.from_numpy(np.stack([uniform_numbers(request.seed, R) for request in requests]))
        uniform_BR = uniform_BR.to(self.device)
        logits_BV = self._prefill(stepper, [tuple(request.prompt) for request in requests], R)
        tokens_BR = torch.zeros(B, R, dtype=torch.long, device=self.device)
        logps_BR = torch.zeros(B, R, device=self.device)
        lengths_B = limits_B.clone()
        stop_ids = torch.tensor(list(requests[0].stop), dtype=torch.long, device=self.device)
        rows = torch.arange(B, device=self.device)  # the output row of each row still in the batch
        live = torch.ones(B, dtype=torch.bool, device=self.device)
        for t in range(R):
            if self.banned:
                logits_BV = logits_BV.index_fill(1, self._banned_ids, -math.inf)
            places = watched.places(rows, live)
            logits_BV = watched.constrain(logits_BV, places)
            token, logp = sample_tokens(logits_BV, uniform_BR[rows, t], sampling)
            tokens_BR[rows, t], logps_BR[rows, t] = token, logp
            ended = torch.isin(token, stop_ids) | (limits_B[rows] == t + 1)
            ended[watched.note(logits_BV, token, places)] = True
            ended &= live
            lengths_B[rows[ended]] = t + 1
            live &= ~ended
            remaining = int(live.sum())
            if remaining == 0:
                break
            if remaining <= len(rows) // 2:  # the finished half costs more than copying the cache of the rest
                kept = live.nonzero()[:, 0]
                stepper.keep(kept)
                rows, token, live = rows[kept], token[kept], live[kept]
            logits_BV = stepper.step(token)
        return tokens_BR, logps_BR, lengths_B

    def _prefill(self, stepper: Stepper, prompts: Sequence[tuple[int, ...]], room: int) -> Tensor:
        """Read each distinct prompt once, then repeat its cache for every row that asks for it."""
        distinct = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
        longest = max(map(len, distinct))
        ids = torch.tensor([(0,) * (longest - len(prompt)) + prompt for prompt in distinct], device=self.device)
        pads = torch.tensor([longest - len(prompt) for prompt in distinct], device=self.device)
        logits_UV = stepper.prefill(ids, pads, room)
        if len(distinct) == len(prompts):
            return logits_UV
        repeat_B = torch.tensor([distinct[prompt] for prompt in prompts], device=self.device)
        stepper.keep(repeat_B)
        return logits_UV[repeat_B]


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Without dropout, also while the model is being trained."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def resolve_dtype(dtype: DType, device: torch.device) -> torch.dtype:
    """What `auto` means on this machine."""
    if dtype == "auto":
        fast = device.type == "cuda" or _cpu_multiplies_bfloat16()
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if dtype == "bfloat16" else torch.float32


def _cpu_multiplies_bfloat16() -> bool:
    """Whether the processor has bfloat16 matmul instructions (without them bfloat16 is slower than float32)."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _open(setup: EngineSetup) -> TransformersEngine:
    if setup.model is not None:
        return TransformersEngine(
            setup.model, setup.tokenizer, dtype=setup.dtype, copy=setup.copy, on_note=setup.on_note
        )
    model, tokenizer = load_model(setup.folder)
    # float32 as in training, whatever the folder says
    return TransformersEngine(
        model.float(), tokenizer, dtype=setup.dtype, weights=setup.weights, on_note=setup.on_note
    )


ENGINE = EngineKind(
    "transformers",
    load=lambda folder, _: TransformersEngine.load(folder),
    open=_open,
    shares_model=True,
    reads_folder=True,
)
