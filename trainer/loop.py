"""The loop every algorithm shares: step, log, and every K steps checkpoint, eval, and decide what ships.

    train(config)                one run, from its config to its promoted checkpoint

`training_session` holds the objects of the run. The gatekeeper decides what ships; after a rejection the loop
may go on from the champion. Several ranks all run this loop; the leader alone writes the run's folder, logs and
gates.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from vertigym import envs
from vertigym.core.errors import RunError
from vertigym.core.files import is_disk_full, locked
from vertigym.core.seeds import derive
from vertigym.evals.suite import Suite
from vertigym.learner.leader_engine import LeaderEngine
from vertigym.learner.ranks import Ranks, join_ranks
from vertigym.trainer import logprob_mismatch, setup
from vertigym.trainer.alarms import Alarms, Knobs
from vertigym.trainer.config import RunConfig
from vertigym.trainer.device_defaults import device_type, for_device
from vertigym.trainer.gatekeeper import CheckpointEvaluation, Gatekeeper, evidence, open_suites
from vertigym.trainer.rollout_samples import pick_samples
from vertigym.trainer.run import Rollout, Run
from vertigym.trainer.trackers import Trackers, open_trackers
from vertigym.trainer.training_session import TrainingSession


@dataclass(slots=True)
class Progress:
    """What a caller may watch."""

    on_step: Callable[[int, dict[str, float]], None] = lambda step, metrics: None
    on_eval: Callable[[CheckpointEvaluation], None] = lambda evaluation: None
    on_note: Callable[[str], None] = lambda text: None


@dataclass(slots=True)
class RunOutcome:
    """The result of a run. `promoted` is None where no checkpoint beat the champion it started from."""

    run: Run
    last: Path
    promoted: Path | None
    evaluations: Sequence[CheckpointEvaluation] = ()

    @property
    def gated(self) -> bool:
        """Whether any checkpoint was judged."""
        return bool(self.run.gates())


def train(config: RunConfig, *, resume: bool = False, progress: Progress | None = None) -> RunOutcome:
    """Run (or go on with) the training that `config` describes.

    Raises:
        InputError: something the config names is missing or does not fit. RunError: the run cannot go on.
    """
    with join_ranks() as ranks:
        config = for_device(config, device_type())
        return _train(config, ranks, resume=resume, progress=progress or Progress())


def _train(config: RunConfig, ranks: Ranks, *, resume: bool, progress: Progress) -> RunOutcome:
    if config.threads:
        torch.set_num_threads(config.threads)
    if ranks.size > 1:
        setup.fits_several_ranks(config)
    env = envs.make(config.env)
    suites = open_suites(config.eval)  # before the run: a fault in a suite is to leave nothing behind
    with locked(config.output / config.name) if ranks.leader else nullcontext():
        return _in_folder(config, ranks, env, suites, resume=resume, progress=progress)


def _in_folder(
    config: RunConfig,
    ranks: Ranks,
    env: envs.Env,
    suites: Sequence[Suite],
    *,
    resume: bool,
    progress: Progress,
) -> RunOutcome:
    """Train in a folder that no other process writes to."""
    run, checkpoint = ranks.on_leader(lambda: Run.resume(config) if resume else _start(config))
    trackers, progress = Trackers({}, progress.on_note), progress if ranks.leader else Progress()
    for warning in (*run.warnings, *evidence(config, suites)):
        progress.on_note(warning)
    if ranks.leader:
        settings = config.model_dump(mode="json", exclude_none=True)
        trackers = open_trackers(config.tracking, config.name, run.folder, settings, on_note=progress.on_note)
    try:
        session = TrainingSession(config, run, env, checkpoint, ranks, progress.on_note)
        with closing(session.engine), closing(session):
            return _Loop(session, suites, progress, trackers).run_steps()
    except Exception as error:
        if not is_disk_full(error):
            raise
        raise RunError(
            f"{run.folder}: the disk is full ({type(error).__name__}); what was finished is kept: make room "
            "and go on with --resume"
        ) from error
    finally:
        trackers.close()
        run.wait()


def _start(config: RunConfig) -> tuple[Run, None]:
    return Run.start(config, setup.models_of(config)), None


class _Loop:
    """Steps a session, records what comes of it, and lets the gatekeeper decide."""

    def __init__(
        self, session: TrainingSession, suites: Sequence[Suite], progress: Progress, trackers: Trackers
    ) -> None:
        self.session, self.progress, self.trackers = session, progress, trackers
        self.config, self.run, self.ranks = session.config, session.run, session.ranks
        self.alarms = self._open_alarms()
        self.gatekeeper: Gatekeeper | None = None
        if self.config.eval and self.ranks.leader:
            engine = session.engine
            policy = engine.inner if isinstance(engine, LeaderEngine) else engine
            assert policy
            seed, steps = derive(self.config.seed, "eval"), self.config.steps
            self.gatekeeper = Gatekeeper(suites, self.config.eval, self.run, policy, seed=seed, steps=steps)
        self.evaluations: list[CheckpointEvaluation] = []

    def run_steps(self) -> RunOutcome:
        """Run the steps that are left."""
        config = self.config
        if self.session.start == 0:
            self.session.save(0)
        if self._is_evaluated(self.session.start):
            self._gate(self.session.start)
        done = self.session.start
        while done < config.steps and not self._is_hopeless():
            found, rollouts = self.session.algorithm.step(done)
            metrics = self.ranks.on_leader(lambda found=found: found)  # type: ignore[misc]
            done += 1
            last = done == config.steps
            if self.ranks.leader:
                self._record(
                    done, metrics, rollouts if last or self._due(done, config.rollout.save_every) else ()
                )
            self._sound_alarms(done, metrics)
            if last or self._is_evaluated(done) or self._due(done, config.checkpoint.every):
                self.session.save(done)
            if self._is_evaluated(done):
                self._gate(done)
        return RunOutcome(
            self.run, self.run.checkpoint(done), self.ranks.on_leader(self.run.promoted), self.evaluations
        )

    def _open_alarms(self) -> Alarms:
        """Alarms that have seen the steps of a resumed run."""
        config = self.config
        knobs = Knobs(
            config.optimizer.lr, config.policy.entropy, config.rollout.group_size, config.rollout.max_tokens
        )
        best = self.session.env.ranges.get("score", (0.0, 1.0))[1]
        if config.distill and not config.distill.rewards:
            best = math.inf
        alarms = Alarms(config.alarms, knobs, best)
        for row in self.run.iter_metrics():
            alarms.watch(row)
        return alarms

    def _record(self, step: int, metrics: dict[str, float], rollouts: Sequence[Rollout]) -> None:
        """Write down the results of a step, and show them."""
        if rollouts:
            self.trackers.log_rollouts(step, pick_samples(self.run.save_rollouts(step, rollouts)))
        self.run.log(step, metrics)
        self.trackers.log(step, metrics)
        self.progress.on_step(step, metrics)

    def _is_hopeless(self) -> bool:
        """Whether the gatekeeper has rejected too many in a row."""
        if not self.config.eval:
            return False
        return self.ranks.on_leader(lambda: self.gatekeeper is not None and self.gatekeeper.is_hopeless())

    def _sound_alarms(self, step: int, metrics: dict[str, float]) -> None:
        """Warn, or end the run where the config says so.

        Raises:
            RunError: an alarm named in `alarms.stop`.
        """
        if warning := logprob_mismatch.mismatch_warning(metrics, self.config.rollout.probe):
            self.progress.on_note(f"step {step}: {warning}")
        for kind, text in self.alarms.watch(metrics).items():
            self.progress.on_note(f"step {step}: alarm: {text}")
            if kind in self.config.alarms.stop:
                raise RunError(f"step {step}: stopped by the alarm {text}")

    def _is_evaluated(self, step: int) -> bool:
        """Whether the suites are run on the weights after this step."""
        rules = self.config.eval
        return rules is not None and (step in (0, self.config.steps) or self._due(step, rules.every))

    def _due(self, step: int, every: int) -> bool:
        return every > 0 and step % every == 0

    def _gate(self, step: int) -> None:
        """Let the gatekeeper decide about the current weights; a rejected challenger may be rolled back."""
        self.session.engine.refresh(step)
        if champion := self.ranks.on_leader(lambda: self._evaluate(step)):
            self.session.roll_back(champion)
            self.session.engine.refresh(step)

    def _evaluate(self, step: int) -> Path | None:
        """The leader's part in a gate; the checkpoint to go back to, if so."""
        assert self.gatekeeper
        assert self.config.eval
        evaluation = self.gatekeeper.evaluate(step, self.progress.on_eval)
        if evaluation:
            self.evaluations.append(evaluation)
        rejected = self.config.eval.roll_back and self.gatekeeper.was_rejected(step)
        return self.gatekeeper.champion() if rejected else None
