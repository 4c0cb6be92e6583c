"""The transformers engine: any Hugging Face causal model folder, CPU or GPU; tokens in, tokens out.

Every sample draws its uniform numbers from its own seed, so a completion depends on its prompt and seed, and
on the batch only through the rounding of matmuls.
"""

import threading
import time
from collections.abc import Collection, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from vertigym.core.errors import DataError, EngineError, InputError
from vertigym.core.types import Completion, Policy, Prompt, Sampling, StopReason
from vertigym.policies.chat import ChatRenderer
from vertigym.policies.decoder import Decoder, supports
from vertigym.policies.full_tensors import load_whole, whole
from vertigym.policies.sampling import choose
from vertigym.policies.steppers import DecoderStepper, ModelStepper, Stepper

DType = Literal["auto", "float32", "bfloat16"]


class Engine(Policy, Protocol):
    """A Policy that follows a model in training."""

    tokenizer: PreTrainedTokenizerBase
    renderer: ChatRenderer
    has_copy: bool  # of the weights: it can sample while the model is being trained

    @property
    def version(self) -> int:
        """Of the policy that its weights are."""
        ...

    def refresh(self, version: int) -> None:
        """Take over the model's current weights, as policy version `version`.

        Raises:
            EngineError: the engine did not take them over.
        """
        ...

    def close(self) -> None:
        """Give back what the engine holds."""
        ...


class TransformersEngine:
    """A Policy around a model and its tokenizer.

    Args:
        model: a causal model; its weights are read at construction and at every `refresh`.
        dtype: what to decode in. `auto` is bfloat16 where the processor multiplies it natively.
        max_batch: rows decoded at once.
        copy: keep weights of its own, so that the model may change while it decodes.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        *,
        dtype: DType = "float32",
        max_batch: int = 512,
        copy: bool = False,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.renderer = ChatRenderer(tokenizer)
        self.version = 0
        self.max_batch = max_batch
        self.device = next(model.parameters()).device
        self.context = int(getattr(model.config, "max_position_embeddings", 1 << 30))
        self._ends = stop_ids(model.generation_config, tokenizer)
        self._stop = torch.tensor(sorted(self._ends), device=self.device)
        self._decoder = (
            Decoder(model, resolve_dtype(dtype, self.device), copy=copy) if supports(model) else None
        )
        self._decodes = deepcopy(model) if copy and not self._decoder else model
        self.has_copy = copy
        self._turn = threading.Lock()  # weights change between batches, whoever asks for either

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
        with self._turn:
            if self._decoder:
                self._decoder.refresh()
            elif self.has_copy:
                load_whole(
                    self._decodes, {name: whole(value) for name, value in self.model.state_dict().items()}
                )
            self.version = version

    def close(self) -> None:
        """There is nothing to give back."""

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """One completion a prompt, in order. A prompt that leaves no room in the context comes back empty
        with stop reason `length`.

        Raises:
            EngineError: the device is out of memory.
        """
        rows = [list(p.token_ids or self.renderer.prompt(p.messages, p.tools)) for p in prompts]
        done: dict[int, Completion] = {}
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # neighbours need little padding
        for start in range(0, len(order), self.max_batch):
            chosen = order[start : start + self.max_batch]
            try:
                with self._turn:
                    batch = self._batch([rows[i] for i in chosen], [prompts[i].seed for i in chosen], sampling)
            except torch.OutOfMemoryError as error:
                raise EngineError(f"out of memory with {len(chosen)} rows: lower max_batch ({error})") from None
            done.update(zip(chosen, batch, strict=True))
        return [done[i] for i in range(len(rows))]

    @torch.inference_mode()
    def _batch(self, rows: list[list[int]], seeds: Sequence[int], sampling: Sampling) -> list[Completion]:
        began = time.perf_counter()
        room = min(sampling.max_tokens, self.context - max(map(len, rows)))
        if room < 1:
            if len(rows) == 1:
                return [Completion("", StopReason.LENGTH, prompt_ids=rows[0], policy_version=self.version)]
            return [self._batch([row], [seed], sampling)[0] for row, seed in zip(rows, seeds, strict=True)]
        uniform_BR = torch.from_numpy(np.stack([_uniform(seed, room) for seed in seeds])).to(self.device)
        stepper: Stepper = DecoderStepper(self._decoder) if self._decoder else ModelStepper(self._decodes)
        tokens_BR, logps_BR, lengths_B = self._decode(stepper, rows, uniform_BR, sampling)
        elapsed = time.perf_counter() - began
        return [
            completion_of(
                tokens[:length],
                logps[:length],
                prompt=row,
                stop=self._ends,
                tokenizer=self.tokenizer,
                version=self.version,
                latency_s=elapsed,
            )
            for row, tokens, logps, length in zip(
                rows, tokens_BR.tolist(), logps_BR.tolist(), lengths_B.tolist(), strict=True
            )
        ]

    def _decode(
        self, stepper: Stepper, rows: list[list[int]], uniform_BR: Tensor, sampling: Sampling
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`(tokens [B, R], log-probs [B, R], lengths [B])` for R = room; what follows a row's end is zero."""
        B, R = uniform_BR.shape
        logits_BV = self._prefill(stepper, rows, R)
        tokens_BR = torch.zeros(B, R, dtype=torch.long, device=self.device)
        logps_BR = torch.zeros(B, R, device=self.device)
        lengths_B = torch.full((B,), R, device=self.device)
        here = torch.arange(B, device=self.device)  # the output row of each row still in the batch
        live = torch.ones(B, dtype=torch.bool, device=self.device)
        for t in range(R):
            token, logp = choose(logits_BV, uniform_BR[here, t], sampling)
            tokens_BR[here, t], logps_BR[here, t] = token, logp
            ended = torch.isin(token, self._stop) & live
            lengths_B[here[ended]] = t + 1
            live &= ~ended
            remaining = int(live.sum())
            if remaining == 0 or t == R - 1:
                break
            if remaining <= len(here) // 2:  # the finished half costs more than copying the cache of the rest
                kept = live.nonzero()[:, 0]
                stepper.keep(kept)
                here, token, live = here[kept], token[kept], live[kept]
            logits_BV = stepper.step(token)
        return tokens_BR, logps_BR, lengths_B

    def _prefill(self, stepper: Stepper, rows: list[list[int]], room: int) -> Tensor:
        """Read each distinct prompt once, then repeat its cache for every row that asks for it."""
        distinct = {tuple(row): None for row in rows}
        place = {row: i for i, row in enumerate(distinct)}
        longest = max(map(len, distinct))
        ids = torch.tensor([(0,) * (longest - len(row)) + row for row in distinct], device=self.device)
        pads = torch.tensor([longest - len(row) for row in distinct], device=self.device)
        logits_UV = stepper.prefill(ids, pads, room)
        if len(distinct) == len(rows):
            return logits_UV
        repeat_B = torch.tensor([place[tuple(row)] for row in rows], device=self.device)
        stepper.keep(repeat_B)
        return logits_UV[repeat_B]


def completion_of(
    tokens: list[int],
    logps: list[float],
    *,
    prompt: list[int],
    stop: Collection[int],
    tokenizer: PreTrainedTokenizerBase,
    version: int,
    latency_s: float,
) -> Completion:
    """What a policy wrote after `prompt`; the token that ended its turn belongs to it, but not to the text."""
    stopped = bool(tokens) and tokens[-1] in stop
    text = tokenizer.decode(tokens[:-1] if stopped else tokens, skip_special_tokens=False)
    assert isinstance(text, str)
    return Completion(
        text=text,
        stop_reason=StopReason.STOP if stopped else StopReason.LENGTH,
        token_ids=tokens,
        logprobs=logps,
        prompt_ids=prompt,
        policy_version=version,
        prompt_tokens=len(prompt),
        completion_tokens=len(tokens),
        latency_s=latency_s,
    )


def load_model(folder: str | Path, device: str = "auto") -> tuple[Any, PreTrainedTokenizerBase]:
    """`(model, tokenizer)` from a Hugging Face folder, on the GPU where there is one, in the folder's dtype.

    Raises:
        DataError: the folder is missing or holds no loadable model.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # vertigym draws its own
    if not (Path(folder) / "config.json").is_file():
        raise DataError(f"model folder {folder}: no config.json there; give a Hugging Face model folder")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model: Any = AutoModelForCausalLM.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"model folder {folder}: cannot be loaded ({str(error).splitlines()[0]})") from None
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    for (
        weight
    ) in model.parameters():  # they lie in the mapped file as its header has it, and sums round by that
        weight.data = weight.data.clone()
    return model.to(where).eval(), tokenizer


def load_tokenizer(folder: str | Path) -> tuple[PreTrainedTokenizerBase, Any, Any]:
    """`(tokenizer, model config, generation config)` of a Hugging Face folder, for an engine that loads the
    weights itself.

    Raises:
        DataError: the folder is missing or holds none.
    """
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    if not (Path(folder) / "config.json").is_file():
        raise DataError(f"model folder {folder}: no config.json there; give a Hugging Face model folder")
    try:
        config = AutoConfig.from_pretrained(folder)
        named = (Path(folder) / "generation_config.json").is_file()
        generation = GenerationConfig.from_pretrained(folder) if named else config
        return AutoTokenizer.from_pretrained(folder), config, generation
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"model folder {folder}: cannot be loaded ({str(error).splitlines()[0]})") from None


def stop_ids(generation_config: Any, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The tokens that end a turn.

    Raises:
        InputError: neither the generation config nor the tokenizer names one.
    """
    named = getattr(generation_config, "eos_token_id", None)
    ids = set(named if isinstance(named, list) else [named]) | {tokenizer.eos_token_id}
    found = {int(i) for i in ids if i is not None}
    if not found:
        raise InputError("the model names no end-of-turn token: set eos_token_id in generation_config.json")
    return found


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


def _uniform(seed: int, count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """`count` numbers in [0, 1) for one sample."""
    return np.random.Generator(np.random.PCG64(seed)).random(count, dtype=np.float32)
