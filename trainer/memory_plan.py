"""What a run takes of a device's memory, computed before it begins.

The one idea: a peak is that of a phase, and a phase is a sum of parts. Parts are counts of the model
(`model_numbers`) times bytes, and the rows of a step are laid out by the code that will lay them out. Prompts
count with the longest there are and answers with `max_tokens`, so the plan is of the largest step.

What is assumed and not counted has a name here: what CUDA itself takes, what vLLM needs beside weights and
cache, and the gradients of one layer's activations.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch

from vertigym.learner.batch import balanced
from vertigym.learner.model_numbers import ModelNumbers
from vertigym.learner.samples import TrainingSample
from vertigym.policies.registry import find_engine
from vertigym.trainer.config import RunConfig
from vertigym.trainer.devices import Device

CUDA_BYTES = 1e9  # context, libraries, workspaces
VLLM_BYTES = 1.5e9  # its own activations and CUDA graphs
_LAYER_GRADIENTS = 0.5  # bytes of one layer's gradients for each byte of its activations
_CACHE_COPIES = 1.5  # rows that go on are copied out of a cache when half of them have finished
_LOGIT_COPIES = 3  # sampling: logits, probabilities, their running sums
_BYTES = {"float32": 4, "bfloat16": 2, "auto": 2}


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """One micro-batch: rows padded to one length, and tokens that carry a loss."""

    rows: int
    length: int
    trained: int
    shared: bool

    @property
    def tokens(self) -> int:
        """Fed, padding included."""
        return self.rows * self.length


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """The samples of a step, and what they are sampled from. `answer` is 0 where nothing is sampled."""

    samples: Sequence[TrainingSample]
    prompt: int
    answer: int
    _parts: dict[tuple[int, int], list[MicroBatch]] = field(default_factory=dict)

    def parts(self, tokens: int, ranks: int) -> list[MicroBatch]:
        """Its micro-batches, as the learner makes them."""
        if (tokens, ranks) not in self._parts:
            self._parts[tokens, ranks] = self._laid_out(tokens, ranks)
        return self._parts[tokens, ranks]

    def _laid_out(self, tokens: int, ranks: int) -> list[MicroBatch]:
        return [
            MicroBatch(
                len(rows),
                max(row.length for row in rows),
                sum(sample.trained for row in rows for sample in row.samples),
                any(len(row.samples) > 1 for row in rows),
            )
            for rows in balanced(self.samples, tokens, share=True, ranks=ranks)
        ]


def sampled_step(prompts: Sequence[int], group_size: int, answer: int) -> PlannedStep:
    """A step of groups: a sample for each member, after prompts of these lengths."""
    samples = []
    for number, length in enumerate(prompts):
        mask = [0] * length + [1] * answer
        ids = [number] * len(mask)  # one number a group: samples of one prompt share rows
        samples += [TrainingSample(ids, mask) for _ in range(group_size)]
    return PlannedStep(samples, max(prompts), answer)


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on each device; `device` None: this machine's CPU, where models and engines share one memory.

    Args:
        numbers: of the model that is trained.
        extra: parameters of models that only score, a reference or a teacher.
    """

    numbers: ModelNumbers
    config: RunConfig
    step: PlannedStep
    device: Device | None = None
    extra: int = 0

    @property
    def ranks(self) -> int:
        """Processes that share the model, one a device."""
        return self.device.count if self.device else 1

    @cached_property
    def parts(self) -> list[MicroBatch]:
        """The micro-batches of a step."""
        return self.step.parts(self.config.microbatch_tokens, self.ranks)

    @cached_property
    def states(self) -> dict[str, float]:
        """What stays for the whole run."""
        numbers, ranks = self.numbers, self.ranks
        found = {"weights": 4 * numbers.parameters / ranks, "Adam": 8 * numbers.trained / ranks}
        if self.config.algorithm == "ppo":
            found["critic, its Adam"] = 12 * self.numbers.trunk / ranks
        if self.extra:
            found["reference, teacher"] = 4 * self.extra / ranks
        if self.device:
            found["CUDA"] = CUDA_BYTES
        return found | self._engine

    @cached_property
    def _engine(self) -> dict[str, float]:
        """What the engine holds while others work."""
        rows, numbers = self.config.rollout, self.numbers
        if self.config.rows or rows.workers:
            return {}
        size = _BYTES[rows.dtype]
        if not find_engine(rows.engine).shares_model:
            memory = getattr(rows.engine_config, "memory", 0)
            on_cpu = size * numbers.parameters + getattr(rows.engine_config, "cache_gib", 0) * 2**30
            return {"engine": memory * self.device.memory if self.device else on_cpu}
        if rows.staleness or self.ranks > 1:
            return {"engine": size * numbers.parameters + 4 * numbers.head}
        return {"engine": size * (numbers.fused if size == 4 else numbers.parameters)}

    @cached_property
    def phases(self) -> dict[str, dict[str, float]]:
        """Bytes of each phase beside the states, by what takes them."""
        found = {} if self.config.rows else {"sampling": self._sampling}
        return found | {"training": self._training, "new weights": self._sync, "checkpoint": self._checkpoint}

    @cached_property
    def _sampling(self) -> dict[str, float]:
        rows = self.config.rollout
        if not find_engine(rows.engine).shares_model:
            return {}  # within its share
        count = -(-min(rows.batch, len(self.step.samples)) // self.ranks)
        cache = self.numbers.cache * _BYTES[rows.dtype] * count * (self.step.prompt + self.step.answer)
        return {
            "KV cache": _CACHE_COPIES * cache,
            "logits": _LOGIT_COPIES * 4 * count * self.numbers.vocabulary,
        }

    @cached_property
    def _training(self) -> dict[str, float]:
        numbers, config = self.numbers, self.config
        dtype = getattr(torch, config.dtype)
        whole = numbers.kept(dtype)
        again = config.gradient_checkpointing
        a_layer = whole.token / numbers.layers
        activations, head = 0.0, 0.0
        for part in self.parts:
            kept = numbers.kept(dtype, checkpointing=again, share=part.shared)
            layer = a_layer * part.tokens * (_LAYER_GRADIENTS + again)
            activations = max(activations, kept.of(part.rows, part.length) - kept.constant + layer)
            head = max(head, self._head_bytes(part.trained))
        found = {
            "gradients": 4 * numbers.trained / self.ranks,
            "activations": activations,
            "logits": head,
            "weights in bfloat16": whole.constant / (self.ranks if not self.device else 1),
        }
        if config.algorithm == "ppo":
            found["critic's gradients"] = 4 * self.numbers.trunk / self.ranks
        if self.ranks > 1:  # the head, and two layers: one is fetched while another is used
            found["whole layers"] = 4 * (numbers.head + 2 * numbers.block)
        return found

    def _head_bytes(self, trained: int) -> float:
        """Hidden states that reach the head, their gradient, logits that are kept, and a gradient of the head
        that is added to what there is."""
        numbers = self.numbers
        logits, _ = numbers.head_cost(trained, cuda=self.device is not None)
        added = len(self.parts) > self.ranks and self.config.lora is None
        return logits + 4 * (2 * trained * numbers.hidden + added * numbers.head)

    @cached_property
    def _sync(self) -> dict[str, float]:
        """The engine's next weights beside its last ones, or a copy with adapters merged."""
        if not self._engine:
            return {}
        if find_engine(self.config.rollout.engine).shares_model:
            return {"engine's next weights": self._engine["engine"]}
        return {"merged weights": 4.0 * self.numbers.adapted}

    @cached_property
    def _checkpoint(self) -> dict[str, float]:
        """A copy with adapters merged, and, in the CPU's memory, the model as it loads again."""
        found = {"merged weights": 4.0 * self.numbers.adapted} if self.ranks == 1 else {}
        return found if self.device else found | {"loaded again": 4.0 * self.numbers.parameters}

    def peak(self) -> tuple[str, float]:
        """The phase that takes most, and its bytes."""
        fixed = sum(self.states.values())
        name = max(self.phases, key=lambda phase: sum(self.phases[phase].values()))
        return name, fixed + sum(self.phases[name].values())

    def misfits(self) -> list[str]:
        """What does not fit, in words; empty where all does, or where no device is known."""
        if not self.device:
            return []
        phase, peak = self.peak()
        found = []
        if peak > self.device.memory:
            most = max(self.phases[phase] | self.states, key=(self.phases[phase] | self.states).__getitem__)
            found.append(
                f"{phase} takes {gb(peak)} of {gb(self.device.memory)} on each {self.device.name}, {most} most"
            )
        rows = self.config.rollout
        if "engine" in self._engine and not find_engine(rows.engine).shares_model:
            needed = _BYTES[rows.dtype] * self.numbers.parameters + VLLM_BYTES
            needed += self.numbers.cache * _BYTES[rows.dtype] * (self.step.prompt + self.step.answer)
            if needed > self._engine["engine"]:
                found.append(
                    f"the engine takes at least {gb(needed)} for weights and one sequence, and rollout."
                    f"{rows.engine}.memory gives it {gb(self._engine['engine'])}"
                )
        return found


def gb(size: float) -> str:
    """Bytes for people."""
    return f"{size / 1e9:.3g} GB"
