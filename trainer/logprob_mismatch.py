"""The log-prob mismatch: the sampler's log-probs beside the trainer's, on tokens it has just written.

The one idea: an engine that decodes with its own kernels, its own copy of the weights and its own reading of
the config can be wrong without failing. The trainer knows the log-prob of every sampled token; the two are
compared before the first step learns anything, and every so many steps after it.
"""

import math
from collections.abc import Mapping, Sequence

from vertigym.core.errors import RunError
from vertigym.core.types import Prompt, Sampling
from vertigym.learner.learner import Learner
from vertigym.learner.samples import TrainingSample
from vertigym.policies.engine import Engine
from vertigym.policies.registry import ProbedConfig
from vertigym.trainer.config import RolloutConfig

_SAMPLES = 32  # enough tokens for a mean; scoring them costs one small forward pass


class MismatchProbe:
    """Probes an engine. Samples are compared that its present weights wrote: a step's own rollouts where they
    are not sampled ahead of it, some fresh ones where they are."""

    def __init__(self, learner: Learner, engine: Engine, rollouts: RolloutConfig) -> None:
        self._learner, self._engine, self._rollouts = learner, engine, rollouts
        assert rollouts.probe
        self._limits = rollouts.probe

    def of_rollouts(self, step: int, samples: Sequence[TrainingSample]) -> dict[str, float]:
        """The probe, where this step is due and its rollouts come from the present weights.

        Raises:
            RunError: as in `measure_mismatch`.
        """
        if step % self._limits.probe_every or (self._rollouts.staleness and step):
            return {}
        return measure_mismatch(self._learner, _some(samples), self._limits, step)

    def of_fresh_samples(self, step: int, samples: Sequence[TrainingSample]) -> dict[str, float]:
        """The probe where `of_rollouts` left it out, on new answers to some of the step's prompts; to be called
        when the engine has the learner's weights and is idle.

        Raises:
            RunError: as in `measure_mismatch`.
        """
        if step % self._limits.probe_every or not (self._rollouts.staleness and step):
            return {}
        rows = self._rollouts
        asked = [
            Prompt((), token_ids=sample.token_ids[: sample.prompt_length], seed=place)
            for place, sample in enumerate(_some(samples))
        ]
        sampling = Sampling(temperature=rows.temperature, max_tokens=rows.max_tokens)
        written = [c for c in self._engine.generate(asked, sampling) if c.token_ids]
        fresh = [TrainingSample.of(completion) for completion in written]
        return measure_mismatch(self._learner, fresh, self._limits, step)


def measure_mismatch(
    learner: Learner, samples: Sequence[TrainingSample], limits: ProbedConfig, step: int
) -> dict[str, float]:
    """Mean and largest difference of log-probs, nats a token.

    Args:
        samples: with a column `sampler_logp`.

    Raises:
        RunError: the mean is beyond `probe_stop`, or not a number: the engine runs another model.
    """
    gaps = [
        abs(ours - theirs)
        for sample, scored in zip(samples, learner.score(samples), strict=True)
        for ours, theirs in zip(scored, sample.columns.sampler_logp or (), strict=True)
    ]
    if not gaps:
        return {}
    mean = math.fsum(gaps) / len(gaps)
    if not mean <= limits.probe_stop:  # NaN too
        raise RunError(
            f"step {step}: the engine's log-probs differ from the trainer's by {mean:.3g} nats a token on "
            f"{len(gaps)} tokens, more than probe_stop = {limits.probe_stop:g}: it runs another "
            "model, other weights or another sampling than the trainer"
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


def _some(samples: Sequence[TrainingSample]) -> Sequence[TrainingSample]:
    """A few, spread over all."""
    return samples[:: max(1, len(samples) // _SAMPLES)][:_SAMPLES]
