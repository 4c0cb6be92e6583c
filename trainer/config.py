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

from pydantic import ConfigDict, Field, create_model, field_validator, model_validator

from vertigym.core.config import Config
from vertigym.core.errors import InputError
from vertigym.learner.config import CriticConfig, DistillConfig, OptimizerConfig, PolicyConfig
from vertigym.learner.registry import find_advantage, find_loss
from vertigym.policies.lora import LoRAConfig
from vertigym.policies.registry import ProbedConfig, find_engine
from vertigym.policies.tiny import TinySize
from vertigym.policies.vllm_backend import VLLMConfig
from vertigym.rollouts.distributed import WorkersConfig
from vertigym.trainer.alarms import AlarmConfig
from vertigym.trainer.curriculum import CurriculumConfig
from vertigym.trainer.trackers import TrackingConfig


class RolloutConfig(Config):
    """How episodes are sampled."""

    model_config = ConfigDict(extra="allow")  # the sections of engines from elsewhere

    tasks: int = Field(32, ge=1, description="tasks a step; each is one group")
    group_size: int = Field(8, ge=1, description="samples a task")
    rounds: int = Field(1, ge=1, description="dynamic sampling: sample anew up to so many times, till all vary")
    temperature: float = Field(1.0, gt=0, description="1: the policy as it is")
    max_tokens: int = Field(256, ge=1, description="a turn")
    batch: int = Field(512, ge=1, description="episodes played at once; with workers, the most in a share")
    engine: str = Field(
        "transformers", description="or vllm, or another engine by its name or import path, module:ENGINE"
    )
    vllm: VLLMConfig = VLLMConfig()
    workers: str = Field(
        "", description="ray://auto, ray://local or ray://host:10001: play episodes in workers of a Ray cluster"
    )
    ray: WorkersConfig = WorkersConfig()
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "float32", description="of the engine's weights; auto: bfloat16 where the processor has it"
    )
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

    @field_validator("engine")
    @classmethod
    def _a_trainable_engine(cls, engine: str) -> str:
        try:
            kind = find_engine(engine)
        except InputError as error:
            raise ValueError(str(error)) from None
        if kind.open is None:
            raise ValueError("this engine cannot follow a model in training, it is for evals only")
        return engine

    @model_validator(mode="before")
    @classmethod
    def _sections_of_engines(cls, given: Any) -> Any:
        """An engine from elsewhere has a section of its own, too; any other unknown key is refused here."""
        if not isinstance(given, dict):
            return given
        try:
            kind = find_engine(str(given.get("engine", "transformers")))
        except InputError:
            return given  # refused below
        extra = {name: value for name, value in given.items() if name not in cls.model_fields}
        fields: dict[str, Any] = {kind.name: (kind.config, Field(default_factory=kind.config))}
        found = create_model("Sections", __base__=Config, **fields).model_validate(extra)
        return given | {name: getattr(found, name) for name in extra}

    @property
    def engine_config(self) -> Config:
        """The settings of the engine, `[rollout.NAME]`."""
        kind = find_engine(self.engine)
        found: Config = getattr(self, kind.name, None) or kind.config()
        return found

    @property
    def probe(self) -> ProbedConfig | None:
        """When to compare the engine's log-probs with the trainer's; None: they are the trainer's own."""
        config = self.engine_config
        return config if isinstance(config, ProbedConfig) else None

    def misfit(self, ranks: int = 1) -> str:
        """Why the engine's settings do not fit so many ranks, or ""."""
        workers = self.ray.count if self.workers else 0
        return find_engine(self.engine).misfit(self.engine_config, ranks, workers)


class SFTConfig(Config):
    """Supervised fine-tuning on chat rows, loss on the assistant's tokens. `data`: a file (JSONL, CSV,
    Parquet) or `hf://owner/name` with rows of `{"messages": [...]}`, of `question` and `answer`, or of traces,
    whose completion is the last message (a larger model's logged answers, for example)."""

    data: Path = Field(description="chats or traces: a file, a folder that datasets saved, hf://owner/name")
    batch: int = Field(64, ge=1, description="rows a step")


class DPOConfig(Config):
    """Direct preference optimisation on pairs of answers, JSONL of `{"messages", "chosen", "rejected"}`, as
    `vertigym traces pairs` makes them out of logs."""

    data: Path = Field(description="pairs, likewise")
    held_out: Path | None = Field(None, description="pairs to tell apart now and then, none of them trained on")
    every: int = Field(10, ge=1, description="steps between two looks at held_out; the last step has one")
    batch: int = Field(32, ge=1, description="pairs a step")
    beta: float = Field(0.1, gt=0, description="how dear it is to leave the starting model")


class EvalConfig(Config):
    """Evals along the way, which decide what is promoted: a checkpoint must pass the gates of every suite."""

    suites: tuple[Path, ...] = Field(min_length=1, description="TOML files")
    every: int = Field(10, ge=1, description="steps between two evals")
    error: Literal["run", "look"] = Field(
        "run", description="what keeps the gates' error: the whole run, shared out over its evals, or each eval"
    )
    patience: int = Field(0, ge=0, description="end the run after so many rejections in a row; 0: never")
    roll_back: bool = Field(False, description="after a rejection, go on from the champion's weights")


class CheckpointConfig(Config):
    """Which checkpoints are written and kept; the first, the last and the promoted one always are."""

    every: int = Field(0, ge=0, description="also between evals; 0: only with evals and at the end")
    keep: int = Field(3, ge=1, description="how many of the latest to keep")


def _is_probed(rollout: Any) -> bool:
    """Whether the engine of a `[rollout]` section computes log-probs by other code than the trainer's."""
    try:
        return issubclass(find_engine(str(rollout.get("engine", "transformers"))).config, ProbedConfig)
    except (AttributeError, InputError):
        return False  # refused where the section is read


class RunConfig(Config):
    """One training run."""

    name: str = Field(description="names the run's folder")
    env: str = Field(description="an environment's id or folder")
    model: str = Field(
        description="a model folder, a run's folder (what was promoted in it), org/name on the Hugging Face "
        "hub, or `tiny`: build one from the environment's text"
    )
    revision: str = Field("", description="branch, tag or commit of a model on the hub; or org/name@REVISION")
    algorithm: Literal["sft", "dpo", "grpo", "ppo", "distill"] = Field(
        description="imitate rows, preferences, RL with groups, RL with a critic, or a teacher's log-probs"
    )
    steps: int = Field(ge=0, description="optimizer steps of sft and dpo; else batches of rollouts")
    seed: int = Field(0, description="of all random numbers")
    output: Path = Field(Path("runs"), description="the folder of runs")
    threads: int = Field(0, ge=0, description="torch threads; 0 leaves torch's own choice")
    microbatch_tokens: int = Field(16384, ge=1, description="tokens in one forward and backward pass")
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="of the trunk's forward and backward passes; weights stay float32"
    )
    head_precision: Literal["float32", "tf32", "bfloat16"] = Field(
        "float32", description="of the output head's products, whose sums stay float32; tf32: on GPUs"
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
    dpo: DPOConfig | None = None
    distill: DistillConfig | None = None
    eval: EvalConfig | None = None
    checkpoint: CheckpointConfig = CheckpointConfig()
    alarms: AlarmConfig = AlarmConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="before")
    @classmethod
    def _learning_rate_of_what_is_trained(cls, given: Any) -> Any:
        """RL takes smaller steps than imitation, and a whole model smaller ones than adapters."""
        if not isinstance(given, dict) or not isinstance(optimizer := given.get("optimizer", {}), dict):
            return given
        whole, adapters = (1e-5, 1e-4) if given.get("algorithm") == "sft" else (1e-6, 1e-5)
        lr = whole if given.get("lora") is None else adapters
        return given | {"optimizer": {"lr": lr} | optimizer}

    @model_validator(mode="before")
    @classmethod
    def _correct_other_engines(cls, given: Any) -> Any:
        """Another engine's kernels (vLLM's) round otherwise than the trainer's: unless told otherwise, the
        trainer's own log-probs are the ratio's base, and tokens are weighed by how the two differ."""
        if not isinstance(given, dict) or not _is_probed(given.get("rollout", {})):
            return given
        policy = given.get("policy", {})
        if not isinstance(policy, dict) or {"ratio_to", "correction"} & policy.keys():
            return given
        if "loss" in policy and find_loss(str(policy["loss"])).corrects_sampler:
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
    def _a_revision_of_the_hub(self) -> Self:
        if self.revision and "/" not in self.model:
            raise ValueError(f"revision is of a model on the hub, org/name, and model is {self.model!r}")
        return self

    @model_validator(mode="after")
    def _tf32_for_the_head_alone(self) -> Self:
        if self.head_precision == "tf32" and self.dtype == "float32":
            raise ValueError(
                'head_precision "tf32" is set for all float32 products, those of the trunk too: '
                'dtype = "bfloat16", or head_precision = "float32"'
            )
        return self

    @property
    def rows(self) -> SFTConfig | DPOConfig | None:
        """The rows that it learns from; None where it samples episodes."""
        return self.sft or self.dpo

    @property
    def starting_model(self) -> str:
        """The name of the model to train, its revision included."""
        return f"{self.model}@{self.revision}" if self.revision else self.model

    @model_validator(mode="after")
    def _sections_fit_the_algorithm(self) -> Self:
        given = self.model_fields_set
        needed = {"sft": 'data = "rows.jsonl"', "dpo": 'data = "pairs.jsonl"', "distill": 'teacher = "folder"'}
        name = self.algorithm
        if name in needed and getattr(self, name) is None:
            raise ValueError(f'algorithm "{name}" needs a section [{name}] with {needed[name]}')
        sampled = {"policy", "critic", "rollout"}
        foreign = {
            "sft": {"dpo", "distill", *sampled},
            "dpo": {"sft", "distill", *sampled},
            "grpo": {"sft", "dpo", "critic", "distill"},
            "ppo": {"sft", "dpo", "distill"},
            "distill": {"sft", "dpo", "critic"},
        }
        if useless := foreign[self.algorithm] & given:
            raise ValueError(
                f'section [{min(useless)}] does nothing with algorithm "{self.algorithm}": remove it'
            )
        return self

    @model_validator(mode="after")
    def _rollouts_fit_the_policy(self) -> Self:
        policy, rollout = self.policy, self.rollout
        critic = find_advantage(policy.advantage).critic
        faults = {
            f"policy.minibatches ({policy.minibatches}) cannot exceed rollout.tasks ({rollout.tasks})": (
                policy.minibatches > rollout.tasks
            ),
            f'policy.advantage "{policy.advantage}" needs a critic, and algorithm "ppo" is what trains one': (
                critic and self.algorithm != "ppo"
            ),
            f'policy.advantage "{policy.advantage}" reads no critic, and algorithm "ppo" is what trains one': (
                not critic and self.algorithm == "ppo"
            ),
            f'policy.advantage "{policy.advantage}" compares samples of one task: rollout.group_size must be '
            f"at least 2, got {rollout.group_size}": policy.relative and rollout.group_size < 2,
            f'rollout.rounds looks for groups with variance, which advantage "{policy.advantage}" does not '
            "need: rounds = 1": rollout.rounds > 1 and not policy.relative,
            "rollout.deterministic = false bounds how old rollouts may be: rollout.staleness = 1, or more": (
                not rollout.deterministic and not rollout.staleness
            ),
            (misfit := rollout.misfit()): bool(misfit),
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
