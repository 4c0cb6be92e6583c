"""GRPO and PPO, two configurations of one step: sample episodes, score them, make the better ones likelier.

    tasks × group_size episodes ─▶ rewards ─▶ advantages ─▶ epochs × minibatches optimizer steps

The baseline is the mean of a group (GRPO and its relatives; groups without variance are left out, they carry no
gradient) or a critic's value (PPO). `objective` composes advantage, loss, normaliser, KL and correction; a
minibatch is normalised as a whole, however it is split to fit in memory.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from statistics import fmean

import torch
from torch import Tensor

from vertigym.core.errors import RunError
from vertigym.core.seeds import generator
from vertigym.core.types import Prompt, Sampling
from vertigym.envs.env import Env
from vertigym.learner import losses
from vertigym.learner.adapters_off import AdaptersOff
from vertigym.learner.clock import peak_memory, phases
from vertigym.learner.config import CriticConfig, DistillConfig, PolicyConfig
from vertigym.learner.critic import Critic, critic_loss
from vertigym.learner.episodes import ScoredEpisode, column, episode_rewards, samples_of, set_column
from vertigym.learner.learner import Learner
from vertigym.learner.objective import informative, policy_loss, token_advantages, token_weights
from vertigym.learner.own_forward import settle
from vertigym.learner.ranks import SINGLE_RANK, Ranks
from vertigym.learner.samples import TrainingSample
from vertigym.policies.agreement import greedy_departure
from vertigym.policies.engine import Engine
from vertigym.trainer.async_rollouts import open_rollouts
from vertigym.trainer.collect import Collector
from vertigym.trainer.config import RolloutConfig
from vertigym.trainer.curriculum import Curriculum
from vertigym.trainer.logprob_mismatch import MismatchProbe
from vertigym.trainer.run import Rollout

_GREEDY = 16  # tokens: what differs between two ways to decode shows soon


class PolicyGradient:
    """The algorithm's state is its learners' and its curriculum's; all else follows from the seed and the step.

    Args:
        steps: how many the run has.
        ranks: who share the sampling; the learners know by themselves.
        critic: for PPO, with its settings.
        reference: the starting model, for the KL term; None where its weight is 0.
        teacher: for distillation, with its settings.
        on_note: takes a line for the user.
    """

    def __init__(
        self,
        learner: Learner,
        engine: Engine,
        env: Env,
        rollouts: RolloutConfig,
        config: PolicyConfig,
        *,
        seed: int,
        steps: int,
        ranks: Ranks = SINGLE_RANK,
        critic: tuple[Critic, CriticConfig] | None = None,
        reference: Learner | AdaptersOff | None = None,
        teacher: tuple[Learner, DistillConfig] | None = None,
        on_note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._learner, self._engine = learner, engine
        self._rollouts, self._config, self._seed = rollouts, config, seed
        self._collector = Collector(engine, env, rollouts, config, seed=seed, ranks=ranks)
        self.rollouts = open_rollouts(self._collector.sample, rollouts, steps=steps, has_copy=engine.has_copy)
        self._critic: Critic | None
        self._critic, self._critic_config = critic or (None, CriticConfig())
        self._reference = reference
        self._teacher = teacher
        self._loss = policy_loss(config)
        self._mismatch = MismatchProbe(learner, engine, rollouts)
        self._settled, self._on_note = False, on_note
        exact = rollouts.probe is None and rollouts.dtype == "float32"
        self._greedy_is_compared = exact and ranks.size == 1

    def step(self, step: int) -> tuple[dict[str, float], list[Rollout]]:
        """Sample, reward, train."""
        began = time.perf_counter()
        rounds = self.rollouts.take(step)
        taken = time.perf_counter()
        trajectories, episodes, metrics = self._collector.score(step, rounds)
        if episodes:
            self._settle(samples_of(episodes))
            metrics |= self._mismatch.of_rollouts(step, samples_of(episodes))
        metrics |= self._train(step, self._set_advantages(episodes))
        metrics["seconds_training"] = time.perf_counter() - taken
        self.rollouts.advance(self._engine.refresh, step + 1)
        if episodes and self._rollouts.staleness:
            metrics |= self._mismatch.of_fresh_samples(step, samples_of(episodes))
        advantages = {e.index: float(column([e], "advantage").mean()) for e in episodes}
        metrics |= self._performance(episodes) | {"seconds": time.perf_counter() - began}
        return metrics, [Rollout(t, advantages.get(i, 0.0)) for i, t in enumerate(trajectories)]

    @property
    def curriculum(self) -> Curriculum | None:
        """What draws the tasks, where the config has one."""
        return self._collector.curriculum

    def _performance(self, episodes: Sequence[ScoredEpisode]) -> dict[str, float]:
        """Time by phase, speed, memory. Sampling beside training is part of no other phase."""
        found = phases([learner.clock for learner in self._learners()])
        fed = sum(len(sample.token_ids) for episode in episodes for sample in episode.samples)
        found["tokens_per_second_training"] = fed / max(sum(found.values()), 1e-9)
        seconds, tokens = self.rollouts.sampling_cost()
        if tokens:
            found |= {"seconds_sampling": seconds, "tokens_per_second_sampling": tokens / seconds}
        return found | {"memory_mib": peak_memory()}

    def _learners(self) -> Iterator[Learner]:
        """Every model that a step runs."""
        yield self._learner
        others = (self._critic, self._reference, self._teacher and self._teacher[0])
        yield from (other for other in others if isinstance(other, Learner))

    def _settle(self, samples: Sequence[TrainingSample]) -> None:
        """Before the first step: let no learner compute anything but its model.

        Raises:
            InputError: one does.
        """
        if self._settled:
            return
        notes = [
            note
            for learner in self._learners()
            if learner is not self._critic
            for note in settle(learner, samples)
        ]
        if self._greedy_is_compared:
            notes += self._compare_greedy(samples[0])
        for note in dict.fromkeys(notes):
            self._on_note(note)
        if self._critic:  # on a trunk like the policy's
            self._critic.share_rows = self._learner.share_rows
        self._settled = True

    def _compare_greedy(self, sample: TrainingSample) -> list[str]:
        """How the model's `generate` departs from the engine, on one prompt.

        Raises:
            InputError: the engine decodes another model.
        """
        engine, prompt = self._engine, sample.token_ids[: sample.prompt_length]
        (done,) = engine.generate([Prompt((), token_ids=prompt)], Sampling(temperature=0, max_tokens=_GREEDY))
        stop, banned = sorted(engine.renderer.stop), self._learner.banned.tolist()
        departure = greedy_departure(self._learner.model, done, stop=stop, banned=banned)
        return [f"greedy decoding is not generate's: {departure}"] if departure else []

    # Advantages.

    def _set_advantages(self, episodes: list[ScoredEpisode]) -> list[list[ScoredEpisode]]:
        """Give every token its advantage (and the critic its returns); the groups worth training on."""
        if not episodes:
            return []
        config, samples = self._config, samples_of(episodes)
        if self._critic:
            _score(self._critic, samples, "old_value")
        if self._reference and config.kl_in == "reward":
            _score(self._reference, samples, "reference_logp")
            self._subtract_kl_from_rewards(episodes)
        numbers = {group: n for n, group in enumerate(dict.fromkeys(episode.group for episode in episodes))}
        rewards = episode_rewards(episodes, [numbers[episode.group] for episode in episodes])
        advantage_T, return_T = token_advantages(config, rewards)
        set_column(episodes, "advantage", advantage_T)
        if return_T is not None:
            set_column(episodes, "returns", return_T)
        if self._teacher:
            self._add_teacher_advantages(*self._teacher, episodes, advantage_T)
        groups: dict[int, list[ScoredEpisode]] = defaultdict(list)
        for episode in episodes:
            groups[episode.group].append(episode)
        if self._teacher or not config.relative:
            return list(groups.values())
        return [
            groups[group] for group, keep in zip(numbers, informative(rewards).tolist(), strict=True) if keep
        ]

    def _add_teacher_advantages(
        self, teacher: Learner, config: DistillConfig, episodes: list[ScoredEpisode], advantage_T: Tensor
    ) -> None:
        """Advantages from a teacher's log-prob of every token, with or without those from the rewards."""
        _score(teacher, samples_of(episodes), "teacher_logp")
        gap_T = column(episodes, "sampler_logp") - column(episodes, "teacher_logp")
        base_T = advantage_T if config.rewards else torch.zeros_like(advantage_T)
        set_column(episodes, "advantage", base_T - config.weight * gap_T)

    def _subtract_kl_from_rewards(self, episodes: list[ScoredEpisode]) -> None:
        """Take the KL from the starting model off the rewards; it is then no part of the loss."""
        for episode in episodes:
            cost_T = losses.kl(
                column([episode], "sampler_logp"),
                column([episode], "reference_logp"),
                self._config.kl_estimator,
            )
            costs = (self._config.kl * cost_T).tolist()
            episode.rewards = [reward - cost for reward, cost in zip(episode.rewards, costs, strict=True)]
            for sample in episode.samples:
                sample.columns.reference_logp = None

    # Training.

    def _train(self, step: int, groups: list[list[ScoredEpisode]]) -> dict[str, float]:
        """The optimizer steps; metrics averaged over them."""
        config = self._config
        order = generator(self._seed, "groups", step).permutation(len(groups))
        groups = [groups[i] for i in order][: config.max_groups or self._most_groups()]
        samples = samples_of(episode for group in groups for episode in group)
        if self._reference and config.kl_in == "loss":
            _score(self._reference, samples, "reference_logp")
        parts = [groups[part :: config.minibatches] for part in range(min(config.minibatches, len(groups)))]
        if config.ratio_to == "trainer" and config.epochs * len(parts) > 1:  # else the update's pass says it
            _score(self._learner, samples, "trainer_logp")
        rows = [
            self._update(step, [episode for group in part for episode in group])
            for _ in range(config.epochs)
            for part in parts
        ]
        if any(not math.isfinite(value) for row in rows for name, value in row.items() if "grad_norm" in name):
            raise RunError(f"step {step}: the gradient is not finite; lower optimizer.lr")
        return {name: fmean(row[name] for row in rows) for name in rows[0]} if rows else {"grad_norm": 0.0}

    def _most_groups(self) -> int | None:
        """Dynamic sampling may have found more groups than were asked for."""
        return self._rollouts.tasks if self._rollouts.rounds > 1 else None

    def _update(self, step: int, episodes: list[ScoredEpisode]) -> dict[str, float]:
        """One optimizer step of the policy, and of the critic where there is one."""
        weights = token_weights(self._config, torch.tensor([episode.trained for episode in episodes])).tolist()
        for episode, weight in zip(episodes, weights, strict=True):
            for sample in episode.samples:
                sample.columns.weight = [weight] * sample.trained
        samples = samples_of(episodes)
        metrics: dict[str, float] = {}
        if self._critic:
            got = self._critic.forward_backward(samples, critic_loss(self._critic_config.clip))
            metrics |= {f"critic/{name}": value for name, value in (got | self._critic.optim_step()).items()}
        if not self._critic or step >= self._critic_config.warmup_steps:
            metrics |= self._learner.forward_backward(samples, self._loss, entropy=self._config.entropy > 0)
            metrics |= self._learner.optim_step()
        return metrics


def _score(learner: Learner | AdaptersOff, samples: Sequence[TrainingSample], name: str) -> None:
    """Set a column to a learner's score of each trained token."""
    for sample, values in zip(samples, learner.score(samples), strict=True):
        setattr(sample.columns, name, values)
