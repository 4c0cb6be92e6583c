"""The learner: a model and its optimizer behind four verbs, on which every training loop is written.

    forward_backward(samples, loss)   accumulate gradients
    optim_step(scale)                 clip and apply them
    save_state(folder)                what a resumed run needs besides the model folder
    load_state(folder)

A loss is a function of the log-probs and entropies of the trained tokens that returns a *sum* over tokens;
the learner divides by the normaliser of the whole accumulated batch, so the result does not depend on how
samples were split into micro-batches, nor over ranks. Every rank is given the same samples, works on its part
of the micro-batches, and gets the result of all; model and optimizer are sharded over the ranks.

Only the passes may be in bfloat16: the weights that the optimizer changes are the model's own and stay in
float32. So does the head unless told otherwise: rounding moves probability ratios by several percent there.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from vertigym.kernels.head import LOWEST_BIAS, Lora
from vertigym.kernels.linear_logprob import linear_logprob
from vertigym.learner.batch import Batch, PackedRow, balanced, collate, smallest
from vertigym.learner.checkpointing import checkpoint_layers
from vertigym.learner.clock import Clock
from vertigym.learner.config import OptimizerConfig
from vertigym.learner.logit_head import LogitHead, find_head, trunk_of
from vertigym.learner.ranks import SINGLE_RANK, Ranks
from vertigym.learner.samples import TrainingSample
from vertigym.learner.shared_rows import shared_rows
from vertigym.policies.full_tensors import full_tensor, load_full_state, shard_like
from vertigym.policies.lora import adapter_of

T = TypeVar("T")

STATE = "state.pt"
_LARGE_VOCABULARY = 8192  # below it the logits of a micro-batch fit into the kernel's budget

# (log-probs [T], entropies [T] or None, the batch) -> (sum over tokens, sums to report)
Loss = Callable[[Tensor, Tensor | None, Batch], tuple[Tensor, Mapping[str, Tensor]]]


@dataclass(frozen=True, slots=True)
class AdamStep:
    """How AdamW makes one step. `clip_norm` 0: the gradient is taken as it is."""

    lr: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float = 0.0
    clip_norm: float = 0.0


class Learner:
    """Trains `model` in place.

    Args:
        temperature: log-probs are of the distribution at this temperature, which must be the sampler's.
        microbatch_tokens: tokens in one forward and backward pass.
        dtype: of the passes through the trunk.
        head_precision: of the head's products: `float32`, `bfloat16`, or (with a trunk in bfloat16) `tf32`.
        checkpointing: keep no activations within a layer, and compute them again for the backward pass.
        banned: token ids that are never sampled, and so are no part of the distribution.
        ranks: who shares the work; all call the same methods in the same order.

    Attributes:
        share_rows: samples of one prompt share a row, and short ones are packed.
        fuses_head: log-probs come of hidden states, without all logits.
        dtype: as given.
    """

    def __init__(
        self,
        model: Any,
        config: OptimizerConfig,
        *,
        total_steps: int,
        temperature: float = 1.0,
        microbatch_tokens: int = 16384,
        dtype: torch.dtype = torch.float32,
        head_precision: str = "float32",
        checkpointing: bool = False,
        banned: Sequence[int] = (),
        ranks: Ranks = SINGLE_RANK,
    ) -> None:
        self.model = model
        self.config = config
        self.total_steps = total_steps
        self.temperature = temperature
        self.microbatch_tokens = microbatch_tokens
        self.steps = 0
        self.clock = Clock()
        self._device = next(model.parameters()).device
        self.dtype, self._head_precision = dtype, head_precision
        self.trunk, self._head = trunk_of(model), self._find_head()
        self.banned = torch.tensor(banned, dtype=torch.long, device=self._device)
        self.fuses_head = True
        model.eval()  # no dropout: what is trained is the distribution that was sampled from
        if checkpointing:
            checkpoint_layers(self.trunk)
        # Only this attention takes an arbitrary mask without a copy of it in another type.
        self.share_rows = getattr(model.config, "_attn_implementation", "") == "sdpa"
        self._ranks = ranks
        ranks.shard(model)
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(self._parameters, fused=True)  # with what each step says

    def logprobs(
        self,
        batch: Batch,
        *,
        entropy: bool = False,
        fused_loss: Loss | None = None,
        hidden_TH: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Log-probs (and entropies) of the batch's trained tokens, `[T]` each, float32.

        `fused_loss`: a token-wise loss that the caller will take of the result. Over a large vocabulary the
        gradients are then taken while the logits are at hand. `hidden_TH`: their hidden states, where they
        are known.
        """
        head, known = self.model.get_output_embeddings(), self._head
        if known is None or not self.fuses_head:
            return self.own_logprobs(batch, entropy=entropy)
        bias, adapter = getattr(head, "bias", None), adapter_of(head)
        if bias is not None and known.scale != 1:
            bias = known.scale * bias
        if len(self.banned):
            zero_V = head.weight.new_zeros(len(head.weight)) if bias is None else bias
            bias = zero_V.index_fill(0, self.banned, -math.inf)
        hidden_TH = self.hidden(batch) if hidden_TH is None else hidden_TH
        rounded = self._head_precision == "bfloat16"
        products = torch.bfloat16 if rounded else hidden_TH.dtype
        eager = fused_loss and len(head.weight) >= _LARGE_VOCABULARY
        with self._tf32():
            return linear_logprob(
                (hidden_TH if known.scale == 1 else known.scale * hidden_TH).to(products),
                head.weight.to(products) if rounded else head.weight,
                batch.targets_T,
                bias=bias,
                temperature=self.temperature,
                softcap=known.softcap,
                lora=None if adapter is None else Lora(*adapter),
                entropy=entropy,
                rows="all",
                grad_rows="all",
                upstream=_upstream(fused_loss, batch) if fused_loss and eager else None,
            )

    @property
    def knows_head(self) -> bool:
        """Whether log-probs can be computed of hidden states."""
        return self._head is not None and self.fuses_head

    def hidden(self, batch: Batch) -> Tensor:
        """The hidden states that predict the batch's trained tokens, `[T, H]`."""
        states: Tensor = self._forward(self.trunk, batch).last_hidden_state
        return states.flatten(0, 1)[batch.hidden_index_T]

    def own_logprobs(self, batch: Batch, *, entropy: bool = False) -> tuple[Tensor, Tensor | None]:
        """The same of the logits that the model itself computes, all of them: slower, and right by
        definition."""
        logits_TV = self._forward(self.model, batch).logits.flatten(0, 1)[batch.hidden_index_T]
        logp_TV = self.distribution(logits_TV)
        logp_T = logp_TV.gather(1, batch.targets_T[:, None])[:, 0]
        return logp_T, -(logp_TV.exp() * logp_TV.clamp(min=LOWEST_BIAS)).sum(-1) if entropy else None

    def distribution(self, logits_TV: Tensor) -> Tensor:
        """Log-probs of all tokens, `[T, V]` float32."""
        allowed_TV = logits_TV.float().index_fill(1, self.banned.to(logits_TV.device), -math.inf)
        return torch.log_softmax(allowed_TV / self.temperature, -1)

    def _forward(self, module: Any, batch: Batch) -> Any:
        autocast = torch.autocast(self._device.type, self.dtype, enabled=self.dtype is not torch.float32)
        with autocast, shared_rows(batch) as padding_BS:
            return module(
                input_ids=batch.ids_BS,
                position_ids=batch.positions_BS,
                attention_mask=padding_BS,
                use_cache=False,
            )

    @contextmanager
    def _tf32(self) -> Iterator[None]:
        """float32 products inside are tf32, where the head's are to be: the trunk's are bfloat16 then."""
        matmul = torch.backends.cuda.matmul
        before = matmul.allow_tf32
        matmul.allow_tf32 = before or self._head_precision == "tf32"
        try:
            yield
        finally:
            matmul.allow_tf32 = before

    def pass_through(self, passes: Callable[[Batch], T], rows: Sequence[PackedRow]) -> T:
        """`passes` of these rows as one batch. Collective."""
        result = self._ranks.run_forward(self.model, passes, collate(rows).to(self._device))
        self._ranks.reshard(self.model)
        return result

    @contextmanager
    def in_float32(self) -> Iterator[None]:
        """Passes inside are in float32, whatever the learner's own are in."""
        before = self.dtype, self._head_precision
        self.dtype, self._head_precision = torch.float32, "float32"
        try:
            yield
        finally:
            self.dtype, self._head_precision = before

    def _find_head(self) -> LogitHead | None:
        return find_head(self.model)

    @torch.no_grad()
    def score(self, samples: Sequence[TrainingSample]) -> list[list[float]]:
        """Log-probs of each sample's trained tokens, without gradients, in the order of `samples`."""
        lengths = [sample.trained for sample in samples]
        starts = {id(s): end - n for s, n, end in zip(samples, lengths, accumulate(lengths), strict=True)}
        logp_T = torch.zeros(sum(lengths))
        for part, weight in self._rounds(samples):
            batch = collate(part).to(self._device)
            with self.clock("logprobs"):
                found_T, _ = self._ranks.run_forward(self.model, self.logprobs, batch)
            if weight:
                scored = [sample for row in part for sample in row.samples]
                split = found_T.cpu().split([sample.trained for sample in scored])
                for sample, logps in zip(scored, split, strict=True):
                    logp_T[starts[id(sample)] :][: sample.trained] = logps
        self._ranks.reshard(self.model)
        # Each rank has filled in its own, the rest is 0: the sum is exact.
        return [logps.tolist() for logps in self._ranks.all_reduce(logp_T).split(lengths)]

    def forward_backward(
        self,
        samples: Sequence[TrainingSample],
        loss: Loss,
        *,
        normalizer: float | None = None,
        entropy: bool = False,
    ) -> dict[str, float]:
        """Accumulate the gradient of `sum of loss / normalizer`; reported sums are divided by it too.

        `normalizer` defaults to the number of trained tokens in `samples`.
        """
        total = normalizer or float(sum(sample.trained for sample in samples))
        sums: dict[str, Any] = defaultdict(float)
        fused_loss = loss if getattr(loss, "tokenwise", False) else None
        for part, weight in self._rounds(samples):
            batch = collate(part).to(self._device)
            with self.clock("logprobs"):
                found = self._ranks.run_forward(
                    self.model, self.logprobs, batch, entropy=entropy, fused_loss=fused_loss
                )
                value, reported = loss(*found, batch)
            with self.clock("backward"), self._tf32():
                (value * weight / total).backward()
            for name, number in {"loss": value, **reported}.items():  # on the device: a GPU is not waited for
                sums[name] += weight * number.detach().double()
        summed = self._ranks.all_reduce(
            torch.tensor([float(number) for number in sums.values()], dtype=torch.float64)
        )
        return {name: number / total for name, number in zip(sums, summed.tolist(), strict=True)}

    def _rounds(self, samples: Sequence[TrainingSample]) -> Iterator[tuple[list[PackedRow], float]]:
        """This rank's micro-batches, each to count with a weight of 1. All ranks must pass through the model
        equally often: one that has run out goes on with a small one that counts 0."""
        ranks = self._ranks
        parts = balanced(samples, self.microbatch_tokens, share=self.share_rows, ranks=ranks.size)
        for start in range(0, len(parts), ranks.size):
            mine = parts[start + ranks.rank :][:1]
            yield (mine[0], 1.0) if mine else (smallest(samples), 0.0)

    def optim_step(self, step: AdamStep | None = None) -> dict[str, float]:
        """Clip the accumulated gradient, apply it, clear it: as the config has it, or as `step` says."""
        config = self.config
        step = step or AdamStep(
            self.learning_rate(self.steps), config.betas, config.eps, config.weight_decay, config.clip_norm
        )
        with self.clock("optimizer"):
            gradients = [p.grad for p in self._parameters if p.grad is not None]
            total = full_tensor(torch.nn.utils.get_total_norm(gradients))
            if step.clip_norm:
                torch.nn.utils.clip_grads_with_norm_(self._parameters, step.clip_norm, total)
            norm = float(total)
            for group in self._optimizer.param_groups:
                group |= {
                    "lr": step.lr,
                    "betas": step.betas,
                    "eps": step.eps,
                    "weight_decay": step.weight_decay,
                }
            if math.isfinite(norm):  # a broken gradient would end the model; the caller sees the norm
                self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        return {"grad_norm": norm, "lr": step.lr}

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then constant or a cosine down to `final_lr * lr` at the last step."""
        config = self.config
        if step < config.warmup_steps:
            return config.lr * (step + 1) / config.warmup_steps
        if config.schedule == "constant":
            return config.lr
        span = max(1, self.total_steps - config.warmup_steps)
        done = min(1.0, (step - config.warmup_steps) / span)
        return config.lr * (config.final_lr + (1 - config.final_lr) * (1 + math.cos(math.pi * done)) / 2)

    def save_state(self, folder: Path) -> None:
        """Write the optimizer's state to `folder`, and the adapters, which the exported model has merged. Every
        rank takes part, the leader writes; what is written does not depend on how many there are."""
        adapters = {name: value for name, value in self.model.state_dict().items() if ".lora_" in name}
        state = {"optimizer": self._optimizer.state_dict(), "steps": self.steps, "adapters": adapters}
        self._write(state, folder / STATE)

    def _write(self, state: Any, file: Path) -> None:
        state = _each_tensor(state, lambda tensor: self._ranks.keep_on_leader(full_tensor(tensor)))
        if self._ranks.leader:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("wb") as opened:  # through a file of our own: a full disk is then said to be one
                torch.save(state, opened)

    def load_state(self, folder: Path) -> None:
        """Take over what `save_state` wrote to `folder`."""
        alone = self._ranks.size == 1
        place = self._device if alone else "cpu"  # several ranks map the file, and keep their shards of it
        state = torch.load(folder / STATE, weights_only=True, map_location=place, mmap=not alone)
        moments = state["optimizer"]["state"]
        for number, parameter in enumerate(self._parameters):
            for name, value in moments.get(number, {}).items():
                own = shard_like(value, parameter) if value.shape == parameter.shape else value
                moments[number][name] = own if alone else own.clone()
        self._optimizer.load_state_dict(state["optimizer"])
        load_full_state(self.model, state["adapters"], strict=False)
        self.steps = state["steps"]

    def forget(self, *, moments: bool) -> None:
        """Drop the accumulated gradient, and with `moments` the optimizer's state."""
        self._optimizer.zero_grad(set_to_none=True)
        if moments:
            self._optimizer.state.clear()


def _each_tensor(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same nest of dicts and lists with other tensors."""
    if isinstance(value, dict):
        return {name: _each_tensor(part, change) for name, part in value.items()}
    if isinstance(value, list):
        return [_each_tensor(part, change) for part in value]
    return change(value) if isinstance(value, Tensor) else value


def tokenwise(loss: Loss) -> Loss:
    """Mark a loss as a sum of terms that each depend on one token's log-prob and entropy alone."""
    loss.tokenwise = True  # type: ignore[attr-defined]
    return loss


def _upstream(loss: Loss, batch: Batch) -> Any:
    """The gradients that `loss` will send back to some tokens' log-probs and entropies."""

    def gradients(logp_N: Tensor, entropy_N: Tensor | None, tokens_N: Tensor) -> tuple[Tensor, Tensor | None]:
        inputs = [part.detach().requires_grad_() for part in (logp_N, entropy_N) if part is not None]
        with torch.enable_grad():
            value, _ = loss(inputs[0], inputs[1] if len(inputs) > 1 else None, batch.at(tokens_N))
        found = torch.autograd.grad(value, inputs, allow_unused=True, materialize_grads=True)
        return found[0], found[1] if len(found) > 1 else None

    return gradients
