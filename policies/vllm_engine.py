"""vLLM behind the Policy contract: tokens in, tokens out, log-probs under the distribution sampled from.

The one idea: a completion is what the transformers engine would have written, but for rounding. So everything
around the tokens is done here, as that engine does it: rendering, room in the context, stops, text, versions.
"""

import math
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from vertigym.core.errors import ConfigError
from vertigym.core.types import Completion, Prompt, Sampling, StopReason
from vertigym.policies.chat import ChatRenderer
from vertigym.policies.engine import completion_of, load_tokenizer, stop_ids
from vertigym.policies.lora import merged_state
from vertigym.policies.vllm_backend import Backend, Order, VLLMConfig, Weights, Written
from vertigym.policies.vllm_in_process import LocalVLLM
from vertigym.policies.vllm_pool import VLLMServers

_HOTTEST = 2.0


class VLLMEngine:
    """A Policy around a running vLLM.

    Args:
        stop: the tokens that end a turn.
        context: the most tokens of a prompt and its completion together.
        weights: where `refresh` takes them from; None for a policy that is not trained.
    """

    has_copy = True

    def __init__(
        self,
        backend: Backend,
        tokenizer: PreTrainedTokenizerBase,
        *,
        stop: set[int],
        context: int,
        weights: Weights | None = None,
    ) -> None:
        self.backend, self.tokenizer = backend, tokenizer
        self.renderer = ChatRenderer(tokenizer)
        self.version = 0
        self.context = context
        self._stop = frozenset(stop)
        self._turn = threading.Lock()  # weights change between batches, whoever asks for either
        self._weights = weights

    def refresh(self, version: int) -> None:
        """Take over the trained model's current weights, as policy version `version`.

        Raises:
            EngineError: as in `Backend.load`.
        """
        assert self._weights, "this engine was opened without weights to follow"
        with self._turn:
            self.backend.load(self._weights, version)
            self.version = version

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """One completion a prompt, in order. A prompt that leaves no room in the context comes back empty
        with stop reason `length`.

        Raises:
            EngineError: as in `Backend.write`. ConfigError: a temperature that vLLM does not offer.
        """
        if sampling.temperature > _HOTTEST:
            raise ConfigError(f"temperature {sampling.temperature:g}: vLLM offers at most {_HOTTEST:g}")
        rows = [list(p.token_ids or self.renderer.prompt(p.messages, p.tools)) for p in prompts]
        rooms = [min(sampling.max_tokens, self.context - len(row)) for row in rows]
        orders = [
            Order(row, room, p.seed, sampling.temperature, sampling.top_p, sorted(self._stop))
            for p, row, room in zip(prompts, rows, rooms, strict=True)
            if room > 0
        ]
        with self._turn:
            began, version = time.perf_counter(), self.version
            written = iter(self.backend.write(orders) if orders else [])
            elapsed = time.perf_counter() - began
        return [
            self._completion(row, next(written) if room > 0 else Written(), version, elapsed)
            for row, room in zip(rows, rooms, strict=True)
        ]

    def close(self) -> None:
        """Stop vLLM and give back what it holds."""
        self.backend.close()

    def _completion(self, row: list[int], written: Written, version: int, elapsed: float) -> Completion:
        error = written.error or _fault(written)
        if error:
            return Completion("", StopReason.ERROR, error=error[:300])
        return completion_of(
            list(written.token_ids),
            list(written.logprobs),
            prompt=row,
            stop=self._stop,
            tokenizer=self.tokenizer,
            version=version,
            latency_s=elapsed,
        )


def _fault(written: Written) -> str:
    """Why what was written cannot be learnt from, if so. vLLM's server says -9999 where it means NaN."""
    if len(written.token_ids) != len(written.logprobs):
        return f"{len(written.token_ids)} tokens came with {len(written.logprobs)} log-probs"
    wrong = [logp for logp in written.logprobs if not math.isfinite(logp) or logp <= -9999]
    return f"a sampled token has log-prob {wrong[0]}: vLLM's numbers are broken" if wrong else ""


def open_vllm(
    folder: str | Path,
    config: VLLMConfig | None = None,
    *,
    dtype: str = "auto",
    model: Any = None,
    weights: Weights | None = None,
    on_note: Callable[[str], None] = lambda text: None,
) -> VLLMEngine:
    """vLLM on a Hugging Face model folder.

    Args:
        dtype: `float32`, `bfloat16` or `auto`: bfloat16 on a GPU, float32 elsewhere.
        model: the model in training, as the folder has it; `refresh` takes its weights, adapters merged.
        weights: or where `refresh` takes them from.
        on_note: told when one of several servers is lost.

    Raises:
        MissingDependencyError: vLLM is not installed. DataError: the folder holds no model.
        ConfigError: vLLM cannot run this model here. EngineError: it did not start.
    """
    config = config or VLLMConfig()
    if weights is None and model is not None:
        weights = lambda: merged_state(model)  # noqa: E731
    tokenizer, about, generation = load_tokenizer(folder)
    context = int(getattr(about, "max_position_embeddings", 1 << 20))
    dtype = ("bfloat16" if torch.cuda.is_available() else "float32") if dtype == "auto" else dtype
    backend: Backend
    if config.mode == "server":
        backend = VLLMServers(folder, config, dtype=dtype, context=context, about=about, on_note=on_note)
    else:
        backend = LocalVLLM(folder, config, dtype=dtype, context=context)
    engine = VLLMEngine(
        backend,
        tokenizer,
        stop=stop_ids(generation, tokenizer),
        context=context,
        weights=weights,
    )
    if config.urls and weights:  # whatever it holds, from an earlier run perhaps
        engine.refresh(0)
    return engine
