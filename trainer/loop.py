"""The loop every algorithm shares: step, log, and every K steps checkpoint, eval, and decide what ships.

    train(config)                one run, from its config to its promoted checkpoint

What ships is the gatekeeper's business; this loop asks it, and may go on from the champion when it says no.
Several ranks (`ranks`) all run this loop; the leader alone writes the run's folder, watches and gates.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from vertigym import envs
from vertigym.core.errors import ConfigError, RunError
from vertigym.core.files import is_disk_full
from vertigym.core.seeds import derive
from vertigym.evals.suite import Suite
from vertigym.policies import tiny
from vertigym.policies.engine import Engine, TransformersEngine, load_model
from vertigym.policies.lora import add_lora
from vertigym.policies.shards import load_whole
from vertigym.trainer import checkpoints, starting, trust
from vertigym.trainer.ahead import Ahead
from vertigym.trainer.alarms import Alarms
from vertigym.trainer.config import RunConfig
from vertigym.trainer.critic import Critic
from vertigym.trainer.curriculum import Curriculum
from vertigym.trainer.gatekeeper import Evaluation, Gatekeeper, evidence, open_suites
from vertigym.trainer.learner import Learner
from vertigym.trainer.led import Led
from vertigym.trainer.policy_gradient import PolicyGradient
from vertigym.trainer.ranks import Ranks, joined
from vertigym.trainer.run import Rollout, Run
from vertigym.trainer.samples import choose
from vertigym.trainer.sft import SFT
from vertigym.trainer.trackers import Trackers, open_trackers

AHEAD = "ahead"
CURRICULUM = "curriculum"


class Algorithm(Protocol):
    """What the loop runs."""

    def step(self, step: int) -> tuple[dict[str, float], list[Rollout]]:
        """One step of training; its metrics, and the rollouts it was trained on."""
        ...


@dataclass(slots=True)
class Progress:
    """What a caller may watch."""

    on_step: Callable[[int, dict[str, float]], None] = lambda step, metrics: None
    on_eval: Callable[[Evaluation], None] = lambda evaluation: None
    on_note: Callable[[str], None] = lambda text: None


@dataclass(slots=True)
class Outcome:
    """What came of a run. `promoted` is None where no checkpoint beat the champion it started from."""

    run: Run
    last: Path
    promoted: Path | None
    evaluations: Sequence[Evaluation] = ()


def train(config: RunConfig, *, resume: bool = False, progress: Progress | None = None) -> Outcome:
    """Run (or go on with) the training that `config` describes.

    Raises:
        InputError: something the config names is missing or does not fit. RunError: the run cannot go on.
    """
    with joined() as ranks:
        return _train(config, ranks, resume=resume, progress=progress or Progress())


def _train(config: RunConfig, ranks: Ranks, *, resume: bool, progress: Progress) -> Outcome:
    if config.threads:
        torch.set_num_threads(config.threads)
    if ranks.size > 1:
        starting.fits_several_ranks(config)
    env = envs.make(config.env)
    suites = open_suites(config.eval)  # before the run: a fault in a suite is to leave nothing behind
    run, checkpoint = ranks.led(lambda: Run.resume(config) if resume else (Run.start(config), None))
    trackers, progress = Trackers({}, progress.on_note), progress if ranks.leader else Progress()
    for warning in (*run.warnings, *evidence(config, suites)):
        progress.on_note(warning)
    if ranks.leader:
        settings = config.model_dump(mode="json", exclude_none=True)
        trackers = open_trackers(config.tracking, config.name, run.folder, settings, on_note=progress.on_note)
    try:
        session = _Session(config, run, env, suites, checkpoint, progress, trackers, ranks)
        with closing(session.engine), closing(session):
            return session.go()
    except Exception as error:
        if not is_disk_full(error):
            raise
        raise RunError(
            f"{run.folder}: the disk is full ({type(error).__name__}); what was finished is kept: make room "
            "and go on with --resume"
        ) from error
    finally:
        trackers.close()


class _Session:
    """One call of `train`: the objects of a run, opened at a step."""

    def __init__(
        self,
        config: RunConfig,
        run: Run,
        env: envs.Env,
        suites: Sequence[Suite],
        checkpoint: Path | None,
        progress: Progress,
        trackers: Trackers,
        ranks: Ranks,
    ) -> None:
        self.config, self.run, self.env, self.progress = config, run, env, progress
        self.trackers, self.ranks = trackers, ranks
        if checkpoint is None and config.model == "tiny" and ranks.leader:
            tiny.build(starting.texts(config, env), run.folder / "model", size=config.tiny, seed=config.seed)
        ranks.meet()
        # With adapters the base model is always the one the run started from; a checkpoint's is merged.
        folder = checkpoint if checkpoint and not config.lora else self._starting_model()
        model, tokenizer = starting.load(folder)
        if config.lora:
            add_lora(model, config.lora, seed=config.seed)
        self.engine = self._engine(folder, model, tokenizer)
        self.learner = self._learner(model)
        self.learners: dict[str, Learner] = {"": self.learner}
        self.ahead: Ahead | None = None
        self.curriculum: Curriculum | None = None
        self.algorithm = self._algorithm()
        self.start = 0
        if checkpoint:
            self._load_learners(checkpoint)
            if self.ahead:
                self.ahead.load_state(checkpoint / "trainer" / AHEAD)
            if self.curriculum:
                self.curriculum.load_state(checkpoint / "trainer" / CURRICULUM)
            self.start = checkpoints.verify(checkpoint)
            self.engine.refresh(self.start)
        self.alarms = Alarms(config.alarms)
        self.gatekeeper: Gatekeeper | None = None
        if config.eval and ranks.leader:
            judged = self.engine.mine if isinstance(self.engine, Led) else self.engine
            assert judged
            self.gatekeeper = Gatekeeper(
                suites, config.eval, run, judged, seed=derive(config.seed, "eval"), steps=config.steps
            )
        self.evaluations: list[Evaluation] = []

    def go(self) -> Outcome:
        """Run the steps that are left."""
        config = self.config
        if self.start == 0:
            self._checkpoint(0)
        if self._is_evaluated(self.start):
            self._gate(self.start)
        done = self.start
        while done < config.steps and not self._is_hopeless():
            found, rollouts = self.algorithm.step(done)
            metrics = self.ranks.led(lambda found=found: found)  # type: ignore[misc]
            done += 1
            last = done == config.steps
            if self.ranks.leader:
                self._record(
                    done, metrics, rollouts if last or self._due(done, config.rollout.save_every) else ()
                )
            self._sound_alarms(done, metrics)
            if last or self._is_evaluated(done) or self._due(done, config.checkpoint.every):
                self._checkpoint(done)
            if self._is_evaluated(done):
                self._gate(done)
        return Outcome(self.run, self.run.checkpoint(done), self.ranks.led(self.run.promoted), self.evaluations)

    def _record(self, step: int, metrics: dict[str, float], rollouts: Sequence[Rollout]) -> None:
        """Write down what came of a step, and show it."""
        if rollouts:
            self.trackers.show(step, choose(self.run.save_rollouts(step, rollouts)))
        self.run.log(step, metrics)
        self.trackers.log(step, metrics)
        self.progress.on_step(step, metrics)

    def _is_hopeless(self) -> bool:
        """Whether the gatekeeper has seen enough."""
        if not self.config.eval:
            return False
        return self.ranks.led(lambda: self.gatekeeper is not None and self.gatekeeper.is_hopeless())

    def close(self) -> None:
        """Sample no more. One of several ranks may wait for another that is lost: it is left behind."""
        if self.ahead and self.ranks.size == 1:
            self.ahead.close()

    def _sound_alarms(self, step: int, metrics: dict[str, float]) -> None:
        """Warn, or end the run where the config says so.

        Raises:
            RunError: an alarm named in `alarms.stop`.
        """
        if warning := trust.doubt(metrics, self.config.rollout.vllm):
            self.progress.on_note(f"step {step}: {warning}")
        for kind, text in self.alarms.watch(metrics).items():
            self.progress.on_note(f"step {step}: alarm: {text}")
            if kind in self.config.alarms.stop:
                raise RunError(f"step {step}: stopped by the alarm {text}")

    def _engine(self, folder: Path, model: Any, tokenizer: Any) -> Engine:
        """What samples, by weights that follow `model`, which is as the folder has it."""
        rows = self.config.rollout
        opened = starting.engine_elsewhere(self.config, folder, model, self.progress.on_note)
        if opened:
            return opened() if self.ranks.size == 1 else Led(self.ranks, model, tokenizer, opened)
        copy = rows.staleness > 0 or self.ranks.size > 1
        return TransformersEngine(model, tokenizer, dtype=rows.dtype, copy=copy)

    def _learner(self, model: Any) -> Learner:
        config = self.config
        return Learner(
            model,
            config.optimizer,
            total_steps=config.steps * self._updates(),
            temperature=1.0 if config.sft else config.rollout.temperature,
            **self._passes(),
        )

    def _critic(self) -> Critic:
        config = self.config
        return Critic(
            starting.load(self._starting_model())[0],
            config.critic.optimizer,
            total_steps=config.steps * self._updates(),
            **self._passes(),
        )

    def _passes(self) -> dict[str, Any]:
        config = self.config
        return {
            "microbatch_tokens": config.microbatch_tokens,
            "dtype": getattr(torch, config.dtype),
            "checkpointing": config.gradient_checkpointing,
            "ranks": self.ranks,
        }

    def _updates(self) -> int:
        """Optimizer steps a step."""
        return 1 if self.config.sft else self.config.policy.minibatches * self.config.policy.epochs

    def _algorithm(self) -> Algorithm:
        config = self.config
        if config.sft:
            return SFT(
                self.learner, self.engine.renderer, config.sft.data, batch=config.sft.batch, seed=config.seed
            )
        reference = self._learner(starting.load(self._starting_model())[0]) if config.policy.kl else None
        teacher = (self._teacher(config.distill.teacher), config.distill) if config.distill else None
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
        )
        self.ahead = policy_gradient.ahead if config.rollout.staleness else None
        self.curriculum = policy_gradient.curriculum
        return policy_gradient

    def _teacher(self, folder: Path) -> Learner:
        """A model that only scores.

        Raises:
            ConfigError: its tokens are not the policy's.
        """
        model, tokenizer = load_model(folder)
        if tokenizer.get_vocab() != self.engine.tokenizer.get_vocab():
            raise ConfigError(f"distill.teacher {folder}: its tokenizer is not the policy's")
        return self._learner(model)

    def _starting_model(self) -> Path:
        return self.run.folder / "model" if self.config.model == "tiny" else Path(self.config.model)

    def _is_evaluated(self, step: int) -> bool:
        """Whether the suites are run on the weights after this step."""
        rules = self.config.eval
        return rules is not None and (step in (0, self.config.steps) or self._due(step, rules.every))

    def _due(self, step: int, every: int) -> bool:
        return every > 0 and step % every == 0

    def _checkpoint(self, step: int) -> None:
        parts: dict[str, checkpoints.Stateful] = {**self.learners}
        if self.ahead and self.ranks.leader:
            parts[AHEAD] = self.ahead
        if self.curriculum and self.ranks.leader:
            parts[CURRICULUM] = self.curriculum
        folder, tokenizer = self.run.checkpoint(step), self.engine.tokenizer
        checkpoints.save(folder, self.learner.model, tokenizer, parts, step=step, ranks=self.ranks)
        if self.ranks.leader:
            promoted = self.run.promoted()
            spared = {promoted.name} if promoted else set()
            checkpoints.prune(folder.parent, keep=self.config.checkpoint.keep, spared=spared)
        self.ranks.meet()

    def _gate(self, step: int) -> None:
        """Let the gatekeeper judge the current weights; a rejected challenger may have to make way."""
        self.engine.refresh(step)
        if champion := self.ranks.led(lambda: self._judge(step)):
            self._roll_back(champion)
            self.engine.refresh(step)

    def _judge(self, step: int) -> Path | None:
        """The leader's part in a gate; the checkpoint to go back to, if so."""
        assert self.gatekeeper
        assert self.config.eval
        evaluation = self.gatekeeper.evaluate(step, self.progress.on_eval)
        if evaluation:
            self.evaluations.append(evaluation)
        rejected = self.config.eval.roll_back and self.gatekeeper.was_rejected(step)
        return self.gatekeeper.champion() if rejected else None

    def _roll_back(self, checkpoint: Path) -> None:
        """Take over the weights and the optimizer of an earlier checkpoint."""
        self.progress.on_note(f"rolled back to {checkpoint}")
        if not self.config.lora:  # with adapters they are part of the learner's state
            load_whole(self.learner.model, starting.load(checkpoint)[0].state_dict())
        self._load_learners(checkpoint)

    def _load_learners(self, checkpoint: Path) -> None:
        for name, learner in self.learners.items():
            learner.load_state(checkpoint / "trainer" / name)
