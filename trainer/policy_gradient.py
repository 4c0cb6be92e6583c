"""GRPO and PPO, two configurations of one step: sample episodes, reward them, push up what did better than
expected.

    tasks × group_size episodes ─▶ rewards ─▶ advantages ─▶ epochs × minibatches optimizer steps

What is expected is the mean of a group (GRPO and its relatives; groups without variance are left out, they
carry no gradient) or a critic's value (PPO). Which advantage, loss, normaliser, KL and correction is
`objective`'s business; a minibatch is normalised as a whole, however it is split to fit in memory.
"""

import math
import time
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

import torch
from torch import Tensor

from vertigym.core.errors import RunError
from vertigym.core.seeds import derive, generator
from vertigym.core.types import Sampling, Score, StopReason, Trajectory
from vertigym.envs.env import Env
from vertigym.policies.engine import TransformersEngine
from vertigym.policies.rollout import Episode, rollout
from vertigym.trainer import losses
from vertigym.trainer.advantages import with_variance
from vertigym.trainer.batch import Sample
from vertigym.trainer.config import CriticConfig, DistillConfig, PolicyConfig, RolloutConfig
from vertigym.trainer.credit import Played, column, earned, played, samples_of, set_column
from vertigym.trainer.critic import Critic, critic_loss
from vertigym.trainer.learner import Learner
from vertigym.trainer.objective import informative, policy_loss, token_advantages, token_weights
from vertigym.trainer.run import Rollout
from vertigym.trainer.stream import Shuffled


class PolicyGradient:
    """The algorithm's state is its learners'; everything else follows from the seed and the step.

    Args:
        critic: for PPO, with its settings.
        reference: the starting model, for the KL term; None where its weight is 0.
        teacher: for distillation, with its settings.
    """

    def __init__(
        self,
        learner: Learner,
        engine: TransformersEngine,
        env: Env,
        rollouts: RolloutConfig,
        config: PolicyConfig,
        *,
        seed: int,
        critic: tuple[Critic, CriticConfig] | None = None,
        reference: Learner | None = None,
        teacher: tuple[Learner, DistillConfig] | None = None,
    ) -> None:
        self._learner, self._engine, self._env = learner, engine, env
        self._rollouts, self._config, self._seed = rollouts, config, seed
        self._critic: Critic | None
        self._critic, self._critic_config = critic or (None, CriticConfig())
        self._reference = reference
        self._teacher = teacher
        self._loss = policy_loss(config)
        self._ids = list(env.tasks.ids("train"))
        if not self._ids:
            raise RunError("the environment has no tasks in its train split")
        self._order = Shuffled(len(self._ids), seed, "tasks")

    def step(self, step: int) -> tuple[dict[str, float], list[Rollout]]:
        """Sample, reward, train."""
        began = time.perf_counter()
        trajectories, plays, metrics = self._collect(step)
        sampled = time.perf_counter()
        groups = self._weigh(plays)
        metrics |= self._train(step, groups)
        self._engine.refresh(version=step + 1)
        metrics["seconds_sampling"] = sampled - began
        metrics["seconds_training"] = time.perf_counter() - sampled
        worth = {play.index: float(column([play], "advantage").mean()) for play in plays}
        return metrics, [Rollout(t, worth.get(i, 0.0)) for i, t in enumerate(trajectories)]

    # Sampling.

    def _collect(self, step: int) -> tuple[list[Trajectory], list[Played], dict[str, float]]:
        """The step's episodes, those of them that can be trained on, and what they were like.

        With `rollout.rounds`, tasks are sampled until `rollout.tasks` groups have variance, or the rounds are
        used up (Yu et al. 2025, DAPO, eq. 11).

        Raises:
            RunError: too many episodes could not be scored; or no group of any round has variance.
        """
        rows, size = self._rollouts, self._rollouts.group_size
        trajectories: list[Trajectory] = []
        scores: list[Score] = []
        varied: set[int] = set()
        for number in range(rows.rounds):
            new = self._sample(step, number)
            scores += self._scores(step, number, new)
            trajectories += new
            rewards = torch.tensor([math.nan if s.value is None else s.value for s in scores])
            groups_N = torch.arange(len(scores)) // size
            varied = set(with_variance(rewards, groups_N).nonzero()[:, 0].tolist())
            if len(varied) >= rows.tasks:
                break
        metrics = _describe(trajectories, scores) | {"groups_with_variance": len(varied) * size / len(scores)}
        if rows.rounds > 1:
            metrics["sampling_rounds"] = float(number + 1)
            if not varied:
                raise RunError(
                    f"step {step}: {rows.rounds} rounds of {rows.tasks} tasks gave no group whose samples "
                    f"score differently (mean reward {metrics['reward']:.3f}): the tasks are all solved or "
                    "all too hard by now; stop here, change the tasks, or set rollout.rounds = 1"
                )
        plays = [
            played(t, score, self._config, index=i, group=i // size, max_tokens=rows.max_tokens)
            for i, (t, score) in enumerate(zip(trajectories, scores, strict=True))
        ]
        return trajectories, [play for play in plays if play], metrics

    def _sample(self, step: int, number: int) -> list[Trajectory]:
        """One round of groups."""
        rows = self._rollouts
        first = (step * rows.rounds + number) * rows.tasks
        chosen = [self._ids[self._order[first + i]] for i in range(rows.tasks)]
        name = (step,) if number == 0 else (step, number)
        episodes = [
            Episode(task, derive(self._seed, "rollout", *name, task, place, sample))
            for place, task in enumerate(chosen)
            for sample in range(rows.group_size)
        ]
        sampling = Sampling(temperature=rows.temperature, max_tokens=rows.max_tokens)
        return rollout(self._engine, self._env, episodes, sampling, batch=rows.batch)

    def _scores(self, step: int, number: int, trajectories: Sequence[Trajectory]) -> list[Score]:
        """One an episode; under the control `shuffle_rewards`, somebody else's.

        Raises:
            RunError: too many could not be scored.
        """
        unscored = [t for t in trajectories if t.score.value is None]
        if len(unscored) > self._rollouts.max_unscored * len(trajectories):
            raise RunError(
                f"step {step}: {len(unscored)} of {len(trajectories)} episodes could not be scored, more than "
                f"rollout.max_unscored = {self._rollouts.max_unscored}; the last said: "
                f"{unscored[-1].score.evidence.get('reason', unscored[-1].score.evidence)}"
            )
        scores = [t.score for t in trajectories]
        if self._config.shuffle_rewards:
            order = generator(self._seed, "shuffle", step, number).permutation(len(scores))
            scores = [scores[i] for i in order]
        return scores

    # Credit.

    def _weigh(self, plays: list[Played]) -> list[list[Played]]:
        """Give every token its advantage (and the critic its returns); the groups worth training on."""
        if not plays:
            return []
        config, samples = self._config, samples_of(plays)
        if self._critic:
            _score(self._critic, samples, "old_value")
        if self._reference and config.kl_in == "reward":
            _score(self._reference, samples, "reference_logp")
            self._pay_for_divergence(plays)
        numbers = {group: n for n, group in enumerate(dict.fromkeys(play.group for play in plays))}
        gain = earned(plays, [numbers[play.group] for play in plays])
        advantage_T, return_T = token_advantages(config, gain)
        set_column(plays, "advantage", advantage_T)
        if return_T is not None:
            set_column(plays, "return", return_T)
        if self._teacher:
            self._learn_from(*self._teacher, plays, advantage_T)
        groups: dict[int, list[Played]] = defaultdict(list)
        for play in plays:
            groups[play.group].append(play)
        if self._teacher or not config.relative:
            return list(groups.values())
        return [
            groups[group]
            for group, keep in zip(numbers, informative(config, gain).tolist(), strict=True)
            if keep
        ]

    def _learn_from(
        self, teacher: Learner, config: DistillConfig, plays: list[Played], advantage_T: Tensor
    ) -> None:
        """Advantages from a teacher's opinion of every token, with or without those from the rewards."""
        _score(teacher, samples_of(plays), "teacher_logp")
        gap_T = column(plays, "sampler_logp") - column(plays, "teacher_logp")
        base_T = advantage_T if config.rewards else torch.zeros_like(advantage_T)
        set_column(plays, "advantage", base_T - config.weight * gap_T)

    def _pay_for_divergence(self, plays: list[Played]) -> None:
        """Take the KL from the starting model off the rewards; it is then no part of the loss."""
        for play in plays:
            cost_T = losses.kl(
                column([play], "sampler_logp"), column([play], "reference_logp"), self._config.kl_estimator
            )
            costs = (self._config.kl * cost_T).tolist()
            play.rewards = [reward - cost for reward, cost in zip(play.rewards, costs, strict=True)]
            for sample in play.samples:
                del sample.columns["reference_logp"]

    # Training.

    def _train(self, step: int, groups: list[list[Played]]) -> dict[str, float]:
        """The optimizer steps; metrics averaged over them."""
        config = self._config
        order = generator(self._seed, "groups", step).permutation(len(groups))
        groups = [groups[i] for i in order][: config.max_groups or self._most_groups()]
        samples = samples_of(play for group in groups for play in group)
        if self._reference and config.kl_in == "loss":
            _score(self._reference, samples, "reference_logp")
        if config.ratio_to == "trainer":
            _score(self._learner, samples, "old_logp")
        rows = [
            self._update(step, [play for group in groups[part :: config.minibatches] for play in group])
            for _ in range(config.epochs)
            for part in range(min(config.minibatches, len(groups)))
        ]
        if any(not math.isfinite(value) for row in rows for name, value in row.items() if "grad_norm" in name):
            raise RunError(f"step {step}: the gradient is not finite; lower optimizer.lr")
        return {name: fmean(row[name] for row in rows) for name in rows[0]} if rows else {"grad_norm": 0.0}

    def _most_groups(self) -> int | None:
        """Dynamic sampling may have found more groups than were asked for."""
        return self._rollouts.tasks if self._rollouts.rounds > 1 else None

    def _update(self, step: int, plays: list[Played]) -> dict[str, float]:
        """One optimizer step of the policy, and of the critic where there is one."""
        weights = token_weights(self._config, torch.tensor([play.trained for play in plays])).tolist()
        for play, weight in zip(plays, weights, strict=True):
            for sample in play.samples:
                sample.columns["weight"] = [weight] * sample.trained
        samples = samples_of(plays)
        metrics: dict[str, float] = {}
        if self._critic:
            got = self._critic.forward_backward(samples, critic_loss(self._critic_config.clip))
            metrics |= {f"critic/{name}": value for name, value in (got | self._critic.optim_step()).items()}
        if not self._critic or step >= self._critic_config.warmup_steps:
            metrics |= self._learner.forward_backward(samples, self._loss, entropy=self._config.entropy > 0)
            metrics |= self._learner.optim_step()
        return metrics


def _score(learner: Learner, samples: Sequence[Sample], name: str) -> None:
    """Add what a learner says of each trained token as a column."""
    for sample, values in zip(samples, learner.score(samples), strict=True):
        sample.columns[name] = values


def _describe(trajectories: Sequence[Trajectory], scores: Sequence[Score]) -> dict[str, float]:
    """What the sampled episodes were like."""
    scored = [score for score in scores if score.value is not None]
    parts = sorted({name for score in scored for name in score.parts})
    turns = [t.turns for t in trajectories]
    return {
        "reward": fmean(score.value or 0.0 for score in scored) if scored else math.nan,
        **{f"reward/{name}": fmean(score.parts.get(name, 0.0) for score in scored) for name in parts},
        "unscored": 1 - len(scored) / len(trajectories),
        "truncated": fmean(t.stop_reason is StopReason.LENGTH for t in trajectories),
        "completion_tokens": fmean(t.completion_tokens for t in trajectories),
        **({"turns": fmean(turns)} if max(turns) > 1 else {}),
    }
