"""The objects of a run: a model and what samples from it, its learners and the algorithm, opened at a step.

`loop` drives them. A checkpoint is their state, and a run goes on from one by opening them at it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch

from vertigym import envs
from vertigym.core.errors import RunError
from vertigym.learner.adapters_off import AdaptersOff
from vertigym.learner.critic import Critic
from vertigym.learner.leader_engine import LeaderEngine
from vertigym.learner.learner import Learner
from vertigym.learner.own_forward import BOUND, loaded_distance
from vertigym.learner.ranks import Ranks
from vertigym.policies import tiny
from vertigym.policies.engine import Engine
from vertigym.policies.full_tensors import load_full_state
from vertigym.policies.lora import add_lora
from vertigym.policies.model_folder import load_model, unreadable_ids
from vertigym.policies.model_source import find_model
from vertigym.trainer import checkpoints, setup
from vertigym.trainer.async_rollouts import FixedLagRollouts
from vertigym.trainer.config import DPOConfig, RunConfig, SFTConfig
from vertigym.trainer.curriculum import Curriculum
from vertigym.trainer.dpo import DPO, PairUpdate
from vertigym.trainer.policy_gradient import PolicyGradient
from vertigym.trainer.run import Rollout, Run
from vertigym.trainer.sft import RowTraining, likelihood

ROLLOUTS = "rollouts"
CURRICULUM = "curriculum"


class Algorithm(Protocol):
    """What the loop runs."""

    def step(self, step: int) -> tuple[dict[str, float], list[Rollout]]:
        """One step of training; its metrics, and the rollouts it was trained on."""
        ...


class TrainingSession:
    """One call of `train`: the objects of a run, opened at a step.

    Args:
        checkpoint: where to go on from; None: the model that the config names.
        on_note: takes a line for the user.
    """

    def __init__(
        self,
        config: RunConfig,
        run: Run,
        env: envs.Env,
        checkpoint: Path | None,
        ranks: Ranks,
        on_note: Callable[[str], None],
    ) -> None:
        self.config, self.run, self.env, self.ranks, self._on_note = config, run, env, ranks, on_note
        if checkpoint is None and config.model == "tiny" and ranks.leader:
            tiny.build(setup.texts(config, env), run.folder / "model", size=config.tiny, seed=config.seed)
        ranks.barrier()
        # With adapters the base model is always the one the run started from; a checkpoint's is merged.
        folder = checkpoint if checkpoint and not config.lora else self._starting_model()
        model, tokenizer = setup.load(folder)
        if config.lora:
            add_lora(model, config.lora, seed=config.seed)
        self.engine = self._engine(folder, model, tokenizer)
        self.learner = self._learner(model)
        self.learners: dict[str, Learner] = {"": self.learner}
        self.rollouts: FixedLagRollouts | None = None
        self.curriculum: Curriculum | None = None
        self.algorithm = self._algorithm()
        self.start, self._exports_to_check = 0, 2
        if checkpoint:
            self._load_learners(checkpoint)
            if self.rollouts:
                self.rollouts.load_state(checkpoint / "trainer" / ROLLOUTS)
            if self.curriculum:
                self.curriculum.load_state(checkpoint / "trainer" / CURRICULUM)
            self.start = checkpoints.verify(checkpoint)
            self.engine.refresh(self.start)

    def save(self, step: int) -> None:
        """Write the checkpoint of `step`, and delete those that need not be kept."""
        parts: dict[str, checkpoints.Stateful] = {**self.learners}
        if self.rollouts and self.ranks.leader:
            parts[ROLLOUTS] = self.rollouts
        if self.curriculum and self.ranks.leader:
            parts[CURRICULUM] = self.curriculum
        folder, tokenizer = self.run.checkpoint(step), self.engine.tokenizer
        self.run.wait()  # a run that resumes here has the rollouts of all steps before
        checkpoints.save(folder, self.learner.model, tokenizer, parts, step=step, ranks=self.ranks)
        if self.ranks.leader:
            promoted = self.run.promoted()
            spared = {promoted.name} if promoted else set()
            checkpoints.prune(folder.parent, keep=self.config.checkpoint.keep, spared=spared)
        self._check_export(folder)
        self.ranks.barrier()

    def roll_back(self, checkpoint: Path) -> None:
        """Take over the weights and the optimizer of an earlier checkpoint."""
        self._on_note(f"rolled back to {checkpoint}")
        if not self.config.lora:  # with adapters they are part of the learner's state
            load_full_state(self.learner.model, setup.load(checkpoint)[0].state_dict())
        self._load_learners(checkpoint)

    def close(self) -> None:
        """Sample no more. One of several ranks may wait for another that is lost: it is left behind."""
        if self.rollouts and self.ranks.size == 1:
            self.rollouts.close()

    def _check_export(self, folder: Path) -> None:
        """Load the first checkpoint again, and the first after it: what ships must be what is trained.

        Raises:
            RunError: it is not.
        """
        if not self._exports_to_check:
            return
        self._exports_to_check -= 1
        far = loaded_distance(self.learner, folder, self.ranks)
        if not far <= BOUND:
            raise RunError(
                f"{folder}: loaded again, the model's log-probs are {far:.2g} nats from those of the model in "
                f"memory (at most {BOUND:g} is allowed): what would ship is not what is trained; "
                "`vertigym model check` says more of a model, and other lora.targets may help"
            )

    def _load_learners(self, checkpoint: Path) -> None:
        for name, learner in self.learners.items():
            learner.load_state(checkpoint / "trainer" / name)

    def _engine(self, folder: Path, model: Any, tokenizer: Any) -> Engine:
        """What samples, by weights that follow `model`, which is as the folder has it."""
        rows = self.config.rollout
        config = setup.with_engine_context(self.config, self.env, model, tokenizer)
        opened = setup.engine_elsewhere(config, folder, model, self._on_note)
        if opened:
            return opened() if self.ranks.size == 1 else LeaderEngine(self.ranks, model, tokenizer, opened)
        copy = rows.staleness > 0 or self.ranks.size > 1
        return setup.shared_engine(self.config, folder, model, tokenizer, copy=copy)

    def _learner(self, model: Any) -> Learner:
        config = self.config
        return Learner(
            model,
            config.optimizer,
            total_steps=config.steps * self._updates(),
            temperature=1.0 if config.rows else config.rollout.temperature,
            banned=unreadable_ids(self.engine.tokenizer, model.get_output_embeddings().weight.shape[0]),
            **self._passes(),
        )

    def _critic(self) -> Critic:
        config = self.config
        return Critic(
            setup.load(self._starting_model())[0],
            config.critic.optimizer,
            total_steps=config.steps * self._updates(),
            **self._passes(),
        )

    def _passes(self) -> dict[str, Any]:
        config = self.config
        return {
            "microbatch_tokens": config.microbatch_tokens,
            "dtype": getattr(torch, config.dtype),
            "head_precision": config.head_precision,
            "checkpointing": config.gradient_checkpointing,
            "ranks": self.ranks,
        }

    def _updates(self) -> int:
        """Optimizer steps a step."""
        return 1 if self.config.rows else self.config.policy.minibatches * self.config.policy.epochs

    def _algorithm(self) -> Algorithm:
        config = self.config
        if config.rows:
            return self._row_training(config.rows)
        reference = self._reference() if config.policy.kl else None
        teacher = (self._teacher(), config.distill) if config.distill else None
        critic = None
        if config.algorithm == "ppo":
            self.learners["critic"] = critic = self._critic()
        policy_gradient = PolicyGradient(
            self.learner,
            self.engine,
            self.env,
            config.rollout,
            config.policy,
            seed=config.seed,
            steps=config.steps,
            critic=(critic, config.critic) if critic else None,
            reference=reference,
            teacher=teacher,
            ranks=self.ranks,
            on_note=self._on_note,
        )
        self.rollouts = policy_gradient.rollouts if config.rollout.staleness else None
        self.curriculum = policy_gradient.curriculum
        return policy_gradient

    def _row_training(self, rows: SFTConfig | DPOConfig) -> Algorithm:
        dpo = PairUpdate(self.learner, self._reference(), rows.beta) if isinstance(rows, DPOConfig) else None
        learnt, held_out = setup.taught_rows(rows, self.engine.renderer)
        training = RowTraining(
            self.learner,
            self.engine,
            learnt,
            dpo or likelihood(self.learner),
            batch=rows.batch,
            seed=self.config.seed,
            name=self.config.algorithm,
            on_note=self._on_note,
        )
        if not isinstance(rows, DPOConfig) or dpo is None:
            return training
        return DPO(training, dpo, held_out, every=rows.every, steps=self.config.steps)

    def _reference(self) -> Learner | AdaptersOff:
        """The starting model, which only scores."""
        if self.config.lora:
            return AdaptersOff(self.learner)
        return self._learner(setup.load(self._starting_model())[0])

    def _teacher(self) -> Learner:
        """A model that only scores.

        Raises:
            ConfigError: its tokens are not the policy's.
        """
        name = self.run.named_model("teacher")
        model, tokenizer = load_model(find_model(name).folder)
        setup.refuse_other_tokens(name, tokenizer, self.engine.tokenizer)
        return self._learner(model)

    def _starting_model(self) -> Path:
        name = self.run.named_model("model")
        return self.run.folder / "model" if name == "tiny" else find_model(name).folder
