"""What the learner reads of a run's config: optimizer, policy-gradient objective, critic, teacher."""

import json
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from vertigym.core.config import Config
from vertigym.learner.losses import KLEstimator, Level, Mode
from vertigym.learner.registry import ADVANTAGES, find_advantage, find_loss


class OptimizerConfig(Config):
    """AdamW and its learning rate."""

    lr: float = Field(1e-6, ge=0, description="in a run: 1e-5 for sft; ten times as much with [lora]")
    betas: tuple[float, float] = Field((0.9, 0.999), description="AdamW's, of mean and variance")
    eps: float = Field(1e-8, gt=0, description="AdamW's, under the fraction bar")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's, decoupled")
    clip_norm: float = Field(1.0, gt=0, description="the gradient's norm at most")
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="of the learning rate after the warm-up"
    )
    warmup_steps: int = Field(0, ge=0, description="the learning rate rises from 0 over so many")
    final_lr: float = Field(0.1, ge=0, le=1, description="cosine ends at this share of lr")


Normalizer = Literal["token", "sequence", "constant"]

# Defaults that depend on another key, as the sources in docs/losses.md have them.
_OF_CORRECTION: dict[object, dict[str, Any]] = {
    ("token", "truncate"): {"correction_low": 0.0, "correction_high": 2.0},
    ("token", "mask"): {"correction_low": 0.5, "correction_high": 5.0},
    ("sequence-sum", "truncate"): {"correction_low": 0.0, "correction_high": 5.0},
    ("sequence-sum", "mask"): {"correction_low": 0.0, "correction_high": 3.0},
    ("sequence-mean", "truncate"): {"correction_low": 0.0, "correction_high": 2.0},
    ("sequence-mean", "mask"): {"correction_low": 0.99, "correction_high": 1.01},
}


class PolicyConfig(Config):
    """What a policy-gradient step does with the sampled episodes: advantage, loss, normaliser, KL, correction
    of the sampler. docs/losses.md has the equations, and what suits what."""

    advantage: str = Field(
        "grpo",
        description="grpo, rloo, maxrl, gdpo, reinforce++, gae (algorithm ppo: the default), or my.module:fn",
    )
    std_scale: bool = Field(True, description="grpo: divide by the group's standard deviation")
    parts: dict[str, float] = Field({}, description="gdpo: the score's parts to weigh against each other")
    gamma: float = Field(1.0, gt=0, le=1, description="gae, reinforce++: discount a token")
    lam: float = Field(0.95, ge=0, le=1, description="gae: 1 trusts rewards only, 0 the critic only")
    whiten: bool = Field(True, description="gae: bring the batch's advantages to mean 0 and deviation 1")
    turn_rewards: bool = Field(False, description="add the rewards of turns before the last to the score")
    overlong: int = Field(0, ge=0, description="penalise the last so many tokens before rollout.max_tokens")

    loss: str = Field(
        "ppo_clip", description="ppo_clip, gspo, cispo, dppo_tv, reinforce, or one of your own: my.module:fn"
    )
    clip_low: float = Field(0.2, gt=0, description="dppo_tv: a difference of probabilities")
    clip_high: float = Field(0.28, gt=0, description="a distance from ratio 1, for every loss but dppo_tv")
    dual_clip: float = Field(3.0, ge=0, description="ppo_clip: bound of the loss where A < 0; 0: none")
    normalizer: Normalizer = Field("token", description="what the summed loss is divided by")
    normalizer_length: int = Field(0, ge=0, description="constant: the length every sequence counts as")
    entropy: float = Field(0.0, ge=0, description="weight of the entropy bonus")

    kl: float = Field(0.0, ge=0, description="weight of the KL divergence from the starting model")
    kl_in: Literal["loss", "reward"] = Field("loss", description="where the KL counts")
    kl_estimator: KLEstimator = Field("k3+", description="in the reward the default is k1")
    kl_corrected: bool = Field(True, description="in the loss: weigh it by the ratio to the sampler")

    ratio_to: Literal["sampler", "trainer"] = Field(
        "sampler", description="trainer: take log-probs anew before the step (one more forward pass)"
    )
    correction: Literal["none"] | Level = Field("none", description="of the trainer for the sampler")
    correction_mode: Mode = Field(
        "truncate", description="of a weight outside of the bounds: cut it to the bound, or leave the token out"
    )
    correction_low: float = Field(0.0, ge=0, description="least weight; depends on correction and mode")
    correction_high: float = Field(2.0, gt=0, description="largest weight; likewise")

    minibatches: int = Field(1, ge=1, description="optimizer steps a batch of rollouts")
    epochs: int = Field(1, ge=1, description="passes over a batch of rollouts")
    max_groups: int = Field(0, ge=0, description="train on at most this many groups; 0: all")
    shuffle_rewards: bool = Field(False, description="a control: rewards are dealt out at random")

    @property
    def relative(self) -> bool:
        """Whether a sample's advantage is relative to others of its task; groups without variance then carry
        no gradient."""
        return find_advantage(self.advantage).relative

    @field_validator("loss")
    @classmethod
    def _a_loss(cls, name: str) -> str:
        find_loss(name)
        return name

    @field_validator("advantage")
    @classmethod
    def _an_advantage(cls, name: str) -> str:
        find_advantage(name)
        return name

    @model_validator(mode="before")
    @classmethod
    def _dependent_defaults(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        correction = (given.get("correction"), given.get("correction_mode", "truncate"))
        estimator = {"kl_estimator": "k1"} if given.get("kl_in") == "reward" else {}
        loss = find_loss(str(given["loss"])).defaults if "loss" in given else {}
        return {**loss} | _OF_CORRECTION.get(correction, {}) | estimator | given

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        penalised = self.overlong > 0 or (self.kl > 0 and self.kl_in == "reward")
        advantage, name = find_advantage(self.advantage), self.advantage
        with_parts = " or ".join(f'"{known}"' for known, one in ADVANTAGES.items() if one.parts)
        faults = {
            f'loss "{self.loss}" {reason}: {key} = {json.dumps(value)}': getattr(self, key) != value
            for key, (value, reason) in find_loss(self.loss).requires.items()
        } | {
            f'advantage "{name}" weighs parts of the score: name them, for example parts = {{ exact = 1.0 }}': (
                advantage.parts and not self.parts
            ),
            f'parts are used by advantage {with_parts} only, not by "{name}": remove them': (
                not advantage.parts and bool(self.parts)
            ),
            f'advantage "{name}" takes the score\'s parts as they are: turn_rewards, overlong and a KL in the '
            "reward would be lost; remove them": advantage.parts and (self.turn_rewards or penalised),
            f'advantage "{name}" divides by the mean reward, which overlong or a KL in the reward can make '
            "negative: remove them or take another advantage": advantage.nonnegative and penalised,
            'correction does nothing while the ratio is to the sampler itself: ratio_to = "trainer"': (
                self.correction != "none" and self.ratio_to == "sampler"
            ),
            'normalizer "constant" needs normalizer_length, the same for a whole run': (
                self.normalizer == "constant" and not self.normalizer_length
            ),
            "correction_low must be below correction_high": self.correction_low >= self.correction_high,
            "dual_clip must be above 1 (or 0, for none): it would silence tokens that have not moved": (
                0 < self.dual_clip <= 1
            ),
            'kl_estimator "k3+" differs from "k3" by its gradient only, and a reward has none: "k1" or "k3"': (
                self.kl_in == "reward" and self.kl_estimator == "k3+"
            ),
            'kl_estimator "k1" in the loss has no gradient in expectation: "k3+", or kl_corrected = true': (
                self.kl_in == "loss" and self.kl_estimator == "k1" and not self.kl_corrected
            ),
            "shuffle_rewards deals out scores, turn_rewards would still tell good from bad: remove one": (
                self.shuffle_rewards and self.turn_rewards
            ),
        }
        for reason, wrong in faults.items():
            if wrong:
                raise ValueError(f"[policy] {reason}")
        return self


class CriticConfig(Config):
    """PPO's critic: a value head on a trunk of its own, which starts as a copy of the policy's."""

    optimizer: OptimizerConfig = OptimizerConfig(lr=1e-5)
    clip: float = Field(0.2, ge=0, description="a value moves at most this far in one batch; 0: no clip")
    warmup_steps: int = Field(0, ge=0, description="steps in which only the critic learns")


class DistillConfig(Config):
    """On-policy distillation (Agarwal et al. 2024): the policy writes, and a teacher's log-probs say of each
    token how it did. Its advantage is `-weight · (logp - teacher_logp)`: the reverse KL, token by token."""

    teacher: str = Field(
        description="a model with the policy's tokenizer: a folder, a run, or org/name[@REVISION]"
    )
    weight: float = Field(1.0, gt=0, description="of the teacher's log-probs in the advantage")
    rewards: bool = Field(
        False, description="add it to the advantage from the rewards, instead of taking its place"
    )
