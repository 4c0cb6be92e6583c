"""What `vertigym train CONFIG.toml` reads. Defaults are the settled ones of the field; every key is documented
here and nowhere else.

A minimal RL run:

    name = "loan"
    env = "acme/Loan-v0"
    model = "models/Qwen3-0.6B"
    algorithm = "grpo"
    steps = 200

    [eval]
    suites = ["loan-suite.toml"]
"""

import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from vertigym.core.config import Config
from vertigym.policies.lora import LoRAConfig
from vertigym.policies.tiny import TinySize
from vertigym.policies.vllm_backend import VLLMConfig
from vertigym.policies.workers import WorkersConfig
from vertigym.trainer.alarms import AlarmConfig
from vertigym.trainer.curriculum import CurriculumConfig
from vertigym.trainer.trackers import TrackingConfig


class OptimizerConfig(Config):
    """AdamW and its learning rate."""

    lr: float = Field(1e-6, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    clip_norm: float = Field(1.0, gt=0)
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = Field(0, ge=0)
    final_lr: float = Field(0.1, ge=0, le=1, description="cosine ends at this share of lr")


class RolloutConfig(Config):
    """How episodes are sampled."""

    tasks: int = Field(32, ge=1, description="tasks a step; each is one group")
    group_size: int = Field(8, ge=1, description="samples a task")
    rounds: int = Field(1, ge=1, description="dynamic sampling: sample anew up to so many times, till all vary")
    temperature: float = Field(1.0, gt=0)
    max_tokens: int = Field(256, ge=1, description="a turn")
    batch: int = Field(512, ge=1, description="episodes played at once; with workers, the most in a share")
    engine: Literal["transformers", "vllm"] = "transformers"
    vllm: VLLMConfig = VLLMConfig()
    workers: str = Field(
        "", description="ray://auto, ray://local or ray://host:10001: play episodes in workers of a Ray cluster"
    )
    ray: WorkersConfig = WorkersConfig()
    dtype: Literal["auto", "float32", "bfloat16"] = "float32"
    staleness: int = Field(
        0, ge=0, description="sample so many steps ahead, beside training, from weights as many steps old"
    )
    deterministic: bool = Field(
        True, description="false, with staleness: it is a bound only, sampler and trainer wait for nothing else"
    )
    curriculum: CurriculumConfig | None = Field(
        None, description="draw tasks by the policy's own accuracy on their rules, not all alike"
    )
    max_unscored: float = Field(0.1, ge=0, le=1, description="a larger share of unscored episodes ends the run")
    save_every: int = Field(10, ge=0, description="save every k-th step's rollouts; 0 saves none")

    @field_validator("workers")
    @classmethod
    def _an_address(cls, workers: str) -> str:
        if workers and not re.fullmatch(r"ray://(auto|local|[^/\s:]+:\d+)", workers):
            raise ValueError(
                f'{workers!r} is no address of workers: "ray://auto" (the cluster this machine belongs to), '
                '"ray://local" (this machine) or "ray://host:10001" (a cluster\'s client port)'
            )
        return workers


Advantage = Literal["grpo", "rloo", "reinforce++", "maxrl", "gdpo", "gae"]
PolicyLoss = Literal["ppo_clip", "gspo", "cispo", "dppo_tv", "reinforce"]
Normalizer = Literal["token", "sequence", "constant"]
KLEstimator = Literal["k1", "k2", "k3", "k3+"]
Level = Literal["token", "sequence-sum", "sequence-mean"]
Mode = Literal["truncate", "mask"]

# Defaults that depend on another key, as the sources in docs/losses.md have them.
_OF_LOSS: dict[object, dict[str, Any]] = {
    "gspo": {"clip_low": 3e-4, "clip_high": 4e-4, "normalizer": "sequence"},
    "dppo_tv": {"clip_low": 0.2, "clip_high": 0.2},
}
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

    advantage: Advantage = Field("grpo", description='the default of algorithm "ppo" is gae')
    std_scale: bool = Field(True, description="grpo: divide by the group's standard deviation")
    parts: dict[str, float] = Field({}, description="gdpo: the score's parts to weigh against each other")
    gamma: float = Field(1.0, gt=0, le=1, description="gae, reinforce++: discount a token")
    lam: float = Field(0.95, ge=0, le=1, description="gae: 1 trusts rewards only, 0 the critic only")
    whiten: bool = Field(True, description="gae: bring the batch's advantages to mean 0 and deviation 1")
    turn_rewards: bool = Field(False, description="add the rewards of turns before the last to the score")
    overlong: int = Field(0, ge=0, description="penalise the last so many tokens before rollout.max_tokens")

    loss: PolicyLoss = "ppo_clip"
    clip_low: float = Field(0.2, gt=0, description="dppo_tv: a difference of probabilities")
    clip_high: float = Field(0.28, gt=0, description="a distance from ratio 1, for every loss but dppo_tv")
    dual_clip: float = Field(3.0, ge=0, description="ppo_clip: bound of the loss where A < 0; 0: none")
    normalizer: Normalizer = Field("token", description="what the summed loss is divided by")
    normalizer_length: int = Field(0, ge=0, description="constant: the length every sequence counts as")
    entropy: float = Field(0.0, ge=0, description="weight of the entropy bonus")

    kl: float = Field(0.0, ge=0, description="weight of the KL divergence from the starting model")
    kl_in: Literal["loss", "reward"] = "loss"
    kl_estimator: KLEstimator = Field("k3+", description="in the reward the default is k1")
    kl_corrected: bool = Field(True, description="in the loss: weigh it by the ratio to the sampler")

    ratio_to: Literal["sampler", "trainer"] = Field(
        "sampler", description="trainer: take log-probs anew before the step (one more forward pass)"
    )
    correction: Literal["none"] | Level = Field("none", description="of the trainer for the sampler")
    correction_mode: Mode = "truncate"
    correction_low: float = Field(0.0, ge=0)
    correction_high: float = Field(2.0, gt=0)

    minibatches: int = Field(1, ge=1, description="optimizer steps a batch of rollouts")
    epochs: int = Field(1, ge=1)
    max_groups: int = Field(0, ge=0, description="train on at most this many groups; 0: all")
    shuffle_rewards: bool = Field(False, description="a control: rewards are dealt out at random")

    @property
    def relative(self) -> bool:
        """Whether a sample's advantage is relative to others of its task; groups without variance then carry
        no gradient."""
        return self.advantage not in ("gae", "reinforce++")

    @model_validator(mode="before")
    @classmethod
    def _dependent_defaults(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        correction = (given.get("correction"), given.get("correction_mode", "truncate"))
        estimator = {"kl_estimator": "k1"} if given.get("kl_in") == "reward" else {}
        loss = str(given.get("loss"))
        return _OF_LOSS.get(loss, {}) | _OF_CORRECTION.get(correction, {}) | estimator | given

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        penalised = self.overlong > 0 or (self.kl > 0 and self.kl_in == "reward")
        faults = {
            'advantage "gdpo" weighs parts of the score: name them, for example parts = { exact = 1.0 }': (
                self.advantage == "gdpo" and not self.parts
            ),
            f'parts are used by advantage "gdpo" only, not by "{self.advantage}": remove them': (
                self.advantage != "gdpo" and bool(self.parts)
            ),
            'advantage "gdpo" takes the score\'s parts as they are: turn_rewards, overlong and a KL in the '
            "reward would be lost; remove them": self.advantage == "gdpo" and (self.turn_rewards or penalised),
            'advantage "maxrl" divides by the mean reward, which overlong or a KL in the reward can make '
            "negative: remove them or take another advantage": self.advantage == "maxrl" and penalised,
            'loss "gspo" has one ratio a sequence, and a long one must not count more: normalizer = '
            '"sequence"': self.loss == "gspo" and self.normalizer != "sequence",
            'loss "dppo_tv" bounds the distance from the sampler: ratio_to = "sampler"': (
                self.loss == "dppo_tv" and self.ratio_to != "sampler"
            ),
            'loss "reinforce" has no ratio, so a second pass over the same samples is biased: epochs = 1': (
                self.loss == "reinforce" and self.epochs > 1
            ),
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

    teacher: Path = Field(description="a Hugging Face model folder with the policy's tokenizer")
    weight: float = Field(1.0, gt=0)
    rewards: bool = Field(
        False, description="add it to the advantage from the rewards, instead of taking its place"
    )


class SFTConfig(Config):
    """Supervised fine-tuning on chat rows, loss on the assistant's tokens: JSONL of `{"messages": [...]}`, or
    of traces, whose completion is the last message (a larger model's logged answers, for example)."""

    data: Path
    batch: int = Field(64, ge=1, description="rows a step")


class EvalConfig(Config):
    """Evals along the way, which decide what is promoted: a checkpoint must pass the gates of every suite."""

    suites: tuple[Path, ...] = Field(min_length=1)
    every: int = Field(10, ge=1)
    error: Literal["run", "look"] = Field(
        "run", description="what keeps the gates' error: the whole run, shared out over its evals, or each eval"
    )
    patience: int = Field(0, ge=0, description="end the run after so many rejections in a row; 0: never")
    roll_back: bool = Field(False, description="after a rejection, go on from the champion's weights")


class CheckpointConfig(Config):
    """Which checkpoints are written and kept; the first, the last and the promoted one always are."""

    every: int = Field(0, ge=0, description="also between evals; 0: only with evals and at the end")
    keep: int = Field(3, ge=1, description="how many of the latest to keep")


def _to_sampler(policy: dict[str, Any]) -> bool:
    """Whether the loss is itself a correction for the sampler."""
    return policy.get("loss") == "dppo_tv"


class RunConfig(Config):
    """One training run."""

    name: str
    env: str = Field(description="an environment's id or folder")
    model: str = Field(
        description="a Hugging Face model folder, or `tiny`: build one from the environment's text"
    )
    algorithm: Literal["sft", "grpo", "ppo", "distill"]
    steps: int = Field(ge=0)
    seed: int = 0
    output: Path = Path("runs")
    threads: int = Field(0, ge=0, description="torch threads; 0 leaves torch's own choice")
    microbatch_tokens: int = Field(16384, ge=1, description="tokens in one forward and backward pass")
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="of forward and backward passes; weights and output head stay float32"
    )
    gradient_checkpointing: bool = Field(
        False, description="keep fewer activations and compute them again: less memory, a third slower"
    )
    tiny: TinySize = TinySize()
    lora: LoRAConfig | None = Field(None, description="train low-rank adapters instead of the whole model")
    optimizer: OptimizerConfig = OptimizerConfig()
    rollout: RolloutConfig = RolloutConfig()
    policy: PolicyConfig = PolicyConfig()
    critic: CriticConfig = CriticConfig()
    sft: SFTConfig | None = None
    distill: DistillConfig | None = None
    eval: EvalConfig | None = None
    checkpoint: CheckpointConfig = CheckpointConfig()
    alarms: AlarmConfig = AlarmConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="before")
    @classmethod
    def _vllm_is_corrected(cls, given: Any) -> Any:
        """vLLM's kernels round otherwise than the trainer's: unless told otherwise, the trainer's own log-probs
        are the ratio's base, and tokens are weighed by how the two differ."""
        if not isinstance(given, dict) or given.get("rollout", {}).get("engine") != "vllm":
            return given
        policy = given.get("policy", {})
        if not isinstance(policy, dict) or {"ratio_to", "correction"} & policy.keys() or _to_sampler(policy):
            return given
        return given | {"policy": policy | {"ratio_to": "trainer", "correction": "token"}}

    @field_validator("name")
    @classmethod
    def _a_folder_name(cls, name: str) -> str:
        if not re.fullmatch(r"[\w][\w.-]*", name):
            raise ValueError("use letters, digits, '.', '_' and '-': it names the run's folder")
        return name

    @model_validator(mode="before")
    @classmethod
    def _ppo_means_gae(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("algorithm") != "ppo":
            return given
        policy = given.get("policy", {})
        return given | {"policy": {"advantage": "gae", **policy}} if isinstance(policy, dict) else given

    @model_validator(mode="after")
    def _sections_fit_the_algorithm(self) -> Self:
        given = self.model_fields_set
        if self.algorithm == "sft" and self.sft is None:
            raise ValueError('algorithm "sft" needs a section [sft] with data = "rows.jsonl"')
        if self.algorithm == "distill" and self.distill is None:
            raise ValueError('algorithm "distill" needs a section [distill] with teacher = "folder"')
        foreign = {
            "sft": {"policy", "critic", "rollout", "distill"},
            "grpo": {"sft", "critic", "distill"},
            "ppo": {"sft", "distill"},
            "distill": {"sft", "critic"},
        }
        if useless := foreign[self.algorithm] & given:
            raise ValueError(
                f'section [{min(useless)}] does nothing with algorithm "{self.algorithm}": remove it'
            )
        return self

    @model_validator(mode="after")
    def _rollouts_fit_the_policy(self) -> Self:
        policy, rollout = self.policy, self.rollout
        servers = len(rollout.vllm.urls)
        faults = {
            f"policy.minibatches ({policy.minibatches}) cannot exceed rollout.tasks ({rollout.tasks})": (
                policy.minibatches > rollout.tasks
            ),
            'policy.advantage "gae" needs a critic, and algorithm "ppo" is what trains one': (
                (policy.advantage == "gae") != (self.algorithm == "ppo")
            ),
            f'policy.advantage "{policy.advantage}" compares samples of one task: rollout.group_size must be '
            f"at least 2, got {rollout.group_size}": policy.relative and rollout.group_size < 2,
            f'rollout.rounds looks for groups with variance, which advantage "{policy.advantage}" does not '
            "need: rounds = 1": rollout.rounds > 1 and not policy.relative,
            "rollout.deterministic = false bounds how old rollouts may be: rollout.staleness = 1, or more": (
                not rollout.deterministic and not rollout.staleness
            ),
            f"each worker has vLLM servers to itself: rollout.vllm.url names {servers}, rollout.ray.count is "
            f"{rollout.ray.count}": bool(rollout.workers) and 0 < servers < rollout.ray.count,
            "rollout.curriculum draws by the scores of the step before, and rollout.staleness samples ahead of "
            "them: remove one": rollout.curriculum is not None and rollout.staleness > 0,
            f"policy.overlong ({policy.overlong}) cannot exceed rollout.max_tokens ({rollout.max_tokens})": (
                policy.overlong > rollout.max_tokens
            ),
        }
        for reason, wrong in faults.items():
            if wrong:
                raise ValueError(reason)
        return self
