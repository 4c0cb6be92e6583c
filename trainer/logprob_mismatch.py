"""The log-prob mismatch: the sampler's log-probs beside the trainer's, on tokens it has just written.

The one idea: an engine that decodes with its own kernels, its own copy of the weights and its own reading of
the config can be wrong without failing. The trainer knows the log-prob of every sampled token; the two are
compared before the first step learns anything and after it, and for other code than the trainer's every so many
steps.
"""

import math
from collections.abc import Mapping, Sequence

import torch

from vertigym.core.errors import RunError
from vertigym.core.types import Prompt, Sampling
from vertigym.learner.learner import Learner
from vertigym.learner.samples import TrainingSample
from vertigym.policies.agreement import tolerance
from vertigym.policies.engine import Engine
from vertigym.policies.registry import ProbedConfig
from vertigym.trainer.config import RolloutConfig

_SAMPLES = 32  # enough tokens for a mean; scoring them costs one small forward pass
_EXACT = 8  # enough where only rounding may differ


class MismatchProbe:
    """Compares an engine with the trainer, on samples that its present weights wrote. Every engine is compared
    on the starting weights and after one optimizer step; one that computes log-probs by other code than the
    trainer's, every `probe_every` steps, and those differences are metrics."""

    def __init__(self, learner: Learner, engine: Engine, rollouts: RolloutConfig) -> None:
        self._learner, self._engine, self._rollouts = learner, engine, rollouts
        self._limits = rollouts.probe
        self._left = 2

    def of_rollouts(self, step: int, samples: Sequence[TrainingSample]) -> dict[str, float]:
        """The probe on a step's own rollouts, where they come from the present weights.

        Raises:
            RunError: as in `measure_mismatch`.
        """
        if not self._is_due(step) or (self._rollouts.staleness and step):
            return {}
        return self._measured(step, self._some(samples))

    def of_fresh_samples(self, step: int, samples: Sequence[TrainingSample]) -> dict[str, float]:
        """The probe on new answers to some of the step's prompts, when the engine has the learner's weights and
        is idle.

        Raises:
            RunError: as in `measure_mismatch`.
        """
        if not self._is_due(step):
            return {}
        rows = self._rollouts
        asked = [
            Prompt((), token_ids=sample.token_ids[: sample.prompt_length], seed=place)
            for place, sample in enumerate(self._some(samples))
        ]
        sampling = Sampling(temperature=rows.temperature, max_tokens=rows.max_tokens)
        written = [c for c in self._engine.generate(asked, sampling) if c.token_ids]
        return self._measured(step, [TrainingSample.of(completion) for completion in written])

    def _some(self, samples: Sequence[TrainingSample]) -> Sequence[TrainingSample]:
        """A few, spread over all."""
        count = _SAMPLES if self._limits else _EXACT
        return samples[:: max(1, len(samples) // count)][:count]

    def _is_due(self, step: int) -> bool:
        return self._left > 0 if self._limits is None else step % self._limits.probe_every == 0

    def _measured(self, step: int, samples: Sequence[TrainingSample]) -> dict[str, float]:
        if self._limits:
            return measure_mismatch(self._learner, samples, step, stop=self._limits.probe_stop)
        self._left -= 1
        decoded = torch.float32 if self._rollouts.dtype == "float32" else torch.bfloat16
        measure_mismatch(self._learner, samples, step, stop=tolerance(self._learner.dtype, decoded))
        return {}


def measure_mismatch(
    learner: Learner, samples: Sequence[TrainingSample], step: int, *, stop: float
) -> dict[str, float]:
    """Mean and largest difference of log-probs, nats a token.

    Args:
        samples: with a column `sampler_logp`.

    Raises:
        RunError: the mean is beyond `stop`, or not a number: the engine runs another model.
    """
    gaps = [
        abs(ours - theirs)
        for sample, scored in zip(samples, learner.score(samples), strict=True)
        for ours, theirs in zip(scored, sample.columns.sampler_logp or (), strict=True)
    ]
    if not gaps:
        return {}
    mean = math.fsum(gaps) / len(gaps)
    if not mean <= stop:  # NaN too
        raise RunError(
            f"step {step}: the engine's log-probs differ from the trainer's by {mean:.3g} nats a token on "
            f"{len(gaps)} tokens, more than {stop:g} (an engine's probe_stop): it runs another model, other "
            "weights or another sampling than the trainer; `vertigym model check` says more of a model"
        )
    return {"probe_mean": mean, "probe_max": max(gaps)}


def mismatch_warning(metrics: Mapping[str, float], limits: ProbedConfig | None) -> str:
    """A warning where the probe of this step calls for one."""
    mean = metrics.get("probe_mean", 0.0)
    if limits is None or mean <= limits.probe_warn:
        return ""
    return (
        f"the engine's log-probs differ from the trainer's by {mean:.3g} nats a token (at most "
        f"{metrics['probe_max']:.3g}), more than probe_warn = {limits.probe_warn:g}: try "
        'rollout.dtype = "float32"'
    )
