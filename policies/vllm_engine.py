"""vLLM behind the Policy contract: tokens in, tokens out, log-probs under the distribution sampled from.

The one idea: a completion is what the transformers engine would have written, but for rounding. So everything
around the tokens (`engine.TokenEngine`) is the same code for both.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from vertigym.core.errors import ConfigError
from vertigym.policies.engine import GenerationRequest, GenerationResult, TokenEngine, Weights, stop_ids
from vertigym.policies.model_folder import context_of, load_tokenizer
from vertigym.policies.registry import EngineKind, EngineSetup
from vertigym.policies.vllm_backend import VLLMBackend, VLLMConfig
from vertigym.policies.vllm_in_process import InProcessVLLM
from vertigym.policies.vllm_pool import VLLMServerPool

_MAX_TEMPERATURE = 2.0


class VLLMEngine(TokenEngine):
    """A Policy around a running vLLM.

    Args:
        weights: where `refresh` takes them from; None for a policy that is not trained.
    """

    has_copy = True

    def __init__(
        self,
        backend: VLLMBackend,
        tokenizer: PreTrainedTokenizerBase,
        *,
        stop: Sequence[int],
        context: int,
        vocabulary: int | None = None,
        weights: Weights | None = None,
    ) -> None:
        super().__init__(tokenizer, stop=stop, context=context, vocabulary=vocabulary)
        self.backend = backend
        self._weights = weights

    def refresh(self, version: int) -> None:
        """Take over the trained model's current weights, as policy version `version`.

        Raises:
            EngineError: as in `VLLMBackend.load`.
        """
        assert self._weights, "this engine was opened without weights to follow"
        with self.changing_weights():
            self.backend.load(self._weights, version)
            self.version = version

    def run(self, requests: Sequence[GenerationRequest]) -> list[GenerationResult]:
        """One result a request, in order.

        Raises:
            EngineError: as in `VLLMBackend.generate`. ConfigError: a temperature that vLLM does not offer.
        """
        if (highest := max(request.temperature for request in requests)) > _MAX_TEMPERATURE:
            raise ConfigError(f"temperature {highest:g}: vLLM offers at most {_MAX_TEMPERATURE:g}")
        results = self.backend.generate(requests)
        return [replace(result, error=result.error or _fault(result)) for result in results]

    def close(self) -> None:
        """Stop vLLM and release what it holds."""
        self.backend.close()


def _fault(result: GenerationResult) -> str:
    """Why nothing can be learnt from a result, or "". vLLM's server sends -9999 for NaN."""
    if len(result.token_ids) != len(result.logprobs):
        return f"{len(result.token_ids)} tokens came with {len(result.logprobs)} log-probs"
    wrong = [logp for logp in result.logprobs if not math.isfinite(logp) or logp <= -9999]
    return f"a sampled token has log-prob {wrong[0]}: vLLM's numbers are broken" if wrong else ""


def open_vllm(
    folder: str | Path,
    config: VLLMConfig | None = None,
    *,
    dtype: str = "auto",
    weights: Weights | None = None,
    on_note: Callable[[str], None] = lambda text: None,
) -> VLLMEngine:
    """vLLM on a Hugging Face model folder.

    Args:
        dtype: `float32`, `bfloat16` or `auto`: bfloat16 on a GPU, float32 elsewhere.
        weights: where `refresh` takes the weights of a model in training from, adapters merged.
        on_note: told when one of several servers is lost.

    Raises:
        MissingDependencyError: vLLM is not installed. DataError: the folder holds no model.
        ConfigError: vLLM cannot run this model here. EngineError: it did not start.
    """
    config = config or VLLMConfig()
    tokenizer, model_config, generation = load_tokenizer(folder)
    context, vocabulary = context_of(model_config), int(model_config.get_text_config().vocab_size)
    context = min(config.context or context, context)
    dtype = ("bfloat16" if torch.cuda.is_available() else "float32") if dtype == "auto" else dtype
    backend: VLLMBackend
    if config.mode == "server":
        backend = VLLMServerPool(
            folder, config, dtype=dtype, context=context, model_config=model_config, on_note=on_note
        )
    else:
        backend = InProcessVLLM(folder, config, dtype=dtype, context=context)
    stop = stop_ids(generation)
    engine = VLLMEngine(backend, tokenizer, stop=stop, context=context, vocabulary=vocabulary, weights=weights)
    if config.urls and weights:  # a server that runs already may hold the weights of an earlier run
        engine.refresh(0)
    return engine


def _open(setup: EngineSetup) -> VLLMEngine:
    return open_vllm(
        setup.folder, setup.config, dtype=setup.dtype, weights=setup.weights, on_note=setup.on_note
    )


def _misfit(config: VLLMConfig, ranks: int, workers: int) -> str:
    if workers and 0 < len(config.urls) < workers:
        return (
            f"each worker has vLLM servers to itself: rollout.vllm.url names {len(config.urls)}, "
            f"rollout.ray.count is {workers}"
        )
    if ranks > 1 and config.mode == "in_process" and not workers:
        return (
            'rollout.vllm.mode "in_process" would put vLLM into the process of one of several ranks, which has '
            'process groups of its own: mode = "server"'
        )
    return ""


def _for_worker(config: VLLMConfig, number: int, count: int) -> VLLMConfig:
    """Of the addresses that are given, each worker has some to itself."""
    return config.model_copy(update={"url": config.urls[number::count]}) if config.urls else config


ENGINE = EngineKind(
    "vllm",
    load=lambda folder, _: open_vllm(folder),
    open=_open,
    config=VLLMConfig,
    reads_folder=True,
    misfit=_misfit,
    for_worker=_for_worker,
)
