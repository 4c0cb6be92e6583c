"""Sampling from a base, or from adapters over it.

One engine a shape of adapters: it takes over the weights asked for when they are not those it has. What a call
gets does not depend on who else asks, though calls may be computed together: `sample_queue` says which.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vertigym.core.seeds import derive
from vertigym.core.types import Decoding, Sampling
from vertigym.policies.engine import GenerationRequest, GenerationResult
from vertigym.policies.transformers_engine import TransformersEngine
from vertigym.remote import schema
from vertigym.remote.adapted_base import AdaptedBase, read_adapter
from vertigym.remote.call_models import SampleCall
from vertigym.remote.checkpoint_store import SavedWeights
from vertigym.remote.datums import likely_message
from vertigym.remote.sample_queue import WaitingCall, prompt_of

_ENGINES = 4  # shapes of adapters whose merged weights are kept


class SamplingEngines:
    """The engines over one base."""

    def __init__(self, base: AdaptedBase) -> None:
        self._base = base
        self._engines: OrderedDict[str, tuple[TransformersEngine, Path | None]] = OrderedDict()

    def engine(self, saved: SavedWeights | None) -> TransformersEngine:
        """An engine with these weights; None: the base's own."""
        key = saved.shape.model_copy(update={"seed": 0}).model_dump_json() if saved else ""
        engine, loaded = self._engines.pop(key, (None, None))
        if engine is None:
            model = self._base.with_adapters(saved.shape, seed=0) if saved else self._base.view()
            engine = TransformersEngine(model, self._base.tokenizer)
        if saved and loaded != saved.folder:
            read_adapter(engine.model, saved.folder)
            engine.refresh(engine.version + 1)
        self._engines[key] = engine, saved.folder if saved else None
        if len(self._engines) > _ENGINES:
            self._engines.popitem(last=False)
        return engine

    def forget(self, folder: Path) -> None:
        """The weights at this place are others now."""
        for key, (engine, loaded) in self._engines.items():
            if loaded == folder:
                self._engines[key] = engine, None

    def sample(self, calls: Sequence[WaitingCall]) -> list[bytes]:
        """A `SampleResponse` for each; the calls are of one kind.

        Raises:
            RefusedError: a prompt that leaves no room, or an unknown token.
        """
        engine = self.engine(calls[0].saved)
        asked = [self._requests(one, engine) for one in calls]
        results = _generated(engine, asked)
        return [
            self._response(one.call, each, list(islice(results, len(each))), engine)
            for one, each in zip(calls, asked, strict=True)
        ]

    def _requests(self, one: WaitingCall, engine: TransformersEngine) -> list[GenerationRequest]:
        call, asked, prompt = one.call, one.call.sampling_params, prompt_of(one.call, self._base)
        seed = derive(asked.seed, "sample") if asked.seed is not None else derive(*one.seed_path)
        room = engine.context - len(prompt)
        stop, strings = _stops(call, sorted(engine.renderer.stop))
        return [
            GenerationRequest(
                prompt,
                min(asked.max_tokens or room, room),
                derive(seed, i),
                asked.temperature,
                asked.top_p,
                stop,
                engine.banned,
                decoding=Decoding(ends=strings, alternatives=call.topk_sample_logprobs or None),
            )
            for i in range(call.num_samples)
        ]

    def _response(
        self,
        call: SampleCall,
        requests: Sequence[GenerationRequest],
        results: Sequence[GenerationResult],
        engine: TransformersEngine,
    ) -> bytes:
        response = schema.new("SampleResponse")
        for request, result in zip(requests, results, strict=True):
            response.sequences.append(_sequence(result, engine, request.stop, call, request.decoding.ends))
        if call.prompt_logprobs or call.topk_prompt_logprobs:
            _add_prompt_logprobs(response, call, list(requests[0].prompt), engine, self._base.banned)
        written: bytes = response.SerializeToString(deterministic=True)
        return written


def _generated(
    engine: TransformersEngine, calls: Sequence[Sequence[GenerationRequest]]
) -> Iterator[GenerationResult]:
    """A result for each request, in order. In a running batch none depends on its company; where the engine
    has no such, each call is a batch of its own."""
    first, requests = calls[0][0], list(chain.from_iterable(calls))
    batch = engine.running_batch(Sampling(temperature=first.temperature, top_p=first.top_p), len(requests))
    if batch is None:
        for call in calls:
            for part in engine.batches(call):
                yield from engine.run([call[i] for i in part])
        return
    found: dict[int, GenerationResult] = {}
    with closing(batch):
        for number, request in enumerate(requests):
            batch.ask(number, request)
        while batch.busy:
            found |= {one.chat: one.result for one in batch.decode()}
    yield from (found[number] for number in range(len(requests)))


def _stops(call: SampleCall, own: list[int]) -> tuple[list[int], tuple[str, ...]]:
    """Tokens and strings that end a sample."""
    stop = call.sampling_params.stop
    if stop is None:
        return own, ()
    if isinstance(stop, str):
        return [], (stop,)
    return [s for s in stop if isinstance(s, int)], tuple(s for s in stop if isinstance(s, str))


def _sequence(
    result: GenerationResult,
    engine: TransformersEngine,
    stop: Sequence[int],
    call: SampleCall,
    strings: Sequence[str],
) -> Any:
    tokens = list(result.token_ids)
    ended = bool(tokens) and (tokens[-1] in stop or any(s in engine.tokenizer.decode(tokens) for s in strings))
    sequence = schema.new(
        "SampledSequence",
        stop_reason=schema.STOPPED if ended else schema.AT_LENGTH,
        tokens=np.asarray(tokens, np.int32).tobytes(),
        logprobs=np.asarray(result.logprobs, np.float32).tobytes(),
    )
    if k := call.topk_sample_logprobs:
        sequence.topk_sampled_logprobs.CopyFrom(likely_message(result.alternatives, k))
    return sequence


@torch.inference_mode()
def _add_prompt_logprobs(
    response: Any, call: SampleCall, prompt: list[int], engine: TransformersEngine, banned: list[int]
) -> None:
    """Log-probs of the prompt's own tokens, NaN where none is asked for (nothing predicts the first)."""
    ids_1S = torch.tensor([prompt], device=engine.device)
    logits_SV: Tensor = engine.model(input_ids=ids_1S, use_cache=False).logits[0].float()
    logits_SV[:, banned] = -torch.inf
    first = max(1, len(prompt) - (call.prompt_logprobs_last_n or len(prompt)))
    logp_NV = torch.log_softmax(logits_SV[first - 1 : -1], -1)
    if call.prompt_logprobs:
        own_N = logp_NV.gather(1, ids_1S[0, first:, None])[:, 0].cpu().numpy()
        nothing = np.full(first, np.nan, np.float32)
        response.prompt_logprobs = np.concatenate([nothing, own_N.astype(np.float32)]).tobytes()
    if k := call.topk_prompt_logprobs:
        logps, tokens = logp_NV.topk(min(k, logp_NV.shape[1]))
        rows: list[list[tuple[int, float]]] = [[] for _ in range(first)]
        rows += [
            list(zip(row, values, strict=True))
            for row, values in zip(tokens.tolist(), logps.tolist(), strict=True)
        ]
        response.topk_prompt_logprobs.CopyFrom(likely_message(rows, k))
