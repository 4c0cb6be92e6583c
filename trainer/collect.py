"""The sampling half of a policy-gradient step: which tasks, how many rounds, and what may be trained on.

A step's rollouts follow from the seed, the step and the engine's weights, whoever asks for them and when.
Nothing here looks at the trainer, so a step can be sampled while another is trained on (`async_rollouts`). Each
rank plays its part of the episodes, whose seeds do not depend on the rank, and gets all of them.
"""

import math
from collections.abc import Sequence
from statistics import fmean

import torch

from vertigym.core.errors import RunError
from vertigym.core.seeds import derive, generator
from vertigym.core.types import Sampling, Score, StopReason, Trajectory
from vertigym.envs.env import Env
from vertigym.learner.advantages import with_variance
from vertigym.learner.config import PolicyConfig
from vertigym.learner.episodes import ScoredEpisode, scored_episode
from vertigym.learner.leader_engine import LeaderEngine
from vertigym.learner.ranks import SINGLE_RANK, Ranks
from vertigym.policies.engine import Engine
from vertigym.rollouts.distributed import DistributedEngine
from vertigym.rollouts.rollout import Episode, rollout
from vertigym.trainer.config import RolloutConfig
from vertigym.trainer.curriculum import Curriculum
from vertigym.trainer.stream import Shuffled

Rounds = list[list[Trajectory]]  # a step's episodes by round of dynamic sampling; one round without it


class Collector:
    """Samples the episodes of a step, and scores them."""

    def __init__(
        self,
        engine: Engine,
        env: Env,
        rollouts: RolloutConfig,
        config: PolicyConfig,
        *,
        seed: int,
        ranks: Ranks = SINGLE_RANK,
    ) -> None:
        self._engine, self._env, self._ranks = engine, env, ranks
        self._rollouts, self._config, self._seed = rollouts, config, seed
        self._ids = env.tasks.ids("train")
        if not self._ids:
            raise RunError("the environment has no tasks in its train split")
        self._order = Shuffled(len(self._ids), seed, "tasks")
        self.curriculum: Curriculum | None = None
        if rollouts.curriculum:
            self.curriculum = Curriculum([env.tasks.get(i) for i in self._ids], rollouts.curriculum, seed=seed)

    def sample(self, step: int) -> Rounds:
        """The step's episodes. With `rollout.rounds`, tasks are sampled until `rollout.tasks` groups have
        variance, or the rounds are used up (Yu et al. 2025, DAPO, eq. 11); a later round is of as many tasks as
        are still lacking.

        Raises:
            RunError: too many episodes could not be scored.
        """
        rounds: Rounds = []
        lacking = self._rollouts.tasks
        while lacking > 0 and len(rounds) < self._rollouts.rounds:
            rounds.append(self._sample(step, len(rounds), lacking))
            lacking = self._rollouts.tasks - len(self._groups_with_variance(self._scores(step, rounds)))
        return rounds

    def score(
        self, step: int, rounds: Rounds
    ) -> tuple[list[Trajectory], list[ScoredEpisode], dict[str, float]]:
        """The step's episodes, those of them that can be trained on, and their metrics.

        Raises:
            RunError: no group of any round has variance.
        """
        rows, size = self._rollouts, self._rollouts.group_size
        trajectories = [t for one in rounds for t in one]
        scores = self._scores(step, rounds)
        varied = self._groups_with_variance(scores)
        metrics = _describe(trajectories, scores) | {"groups_with_variance": len(varied) * size / len(scores)}
        if rows.rounds > 1:
            metrics["sampling_rounds"] = float(len(rounds))
            if not varied:
                raise RunError(
                    f"step {step}: {rows.rounds} rounds of {rows.tasks} tasks gave no group whose samples "
                    f"score differently (mean reward {metrics['reward']:.3f}): the tasks are all solved or "
                    "all too hard by now; stop here, change the tasks, or set rollout.rounds = 1"
                )
        if self.curriculum:
            self.curriculum.learn(trajectories)
            metrics |= self.curriculum.metrics()
        if rows.staleness:
            metrics["staleness"] = fmean(step - t.policy_version for t in trajectories)
        episodes = [
            scored_episode(t, score, self._config, index=i, group=i // size, max_tokens=rows.max_tokens)
            for i, (t, score) in enumerate(zip(trajectories, scores, strict=True))
        ]
        return trajectories, [episode for episode in episodes if episode], metrics

    def _sample(self, step: int, number: int, tasks: int) -> list[Trajectory]:
        """One round of `tasks` groups.

        Raises:
            RunError: too many could not be scored.
        """
        rows = self._rollouts
        if self.curriculum:
            chosen = self.curriculum.draw(tasks, step, number)
        else:
            first = (step * rows.rounds + number) * rows.tasks
            chosen = [self._ids[self._order[first + i]] for i in range(tasks)]
        name = (step,) if number == 0 else (step, number)
        episodes = [
            Episode(task, derive(self._seed, "rollout", *name, task, place, sample))
            for place, task in enumerate(chosen)
            for sample in range(rows.group_size)
        ]
        sampling = Sampling(temperature=rows.temperature, max_tokens=rows.max_tokens)
        trajectories = self._ranks.gather(self._roll_out(episodes, sampling))
        unscored = [t for t in trajectories if t.score.value is None]
        if len(unscored) > rows.max_unscored * len(trajectories):
            raise RunError(
                f"step {step}: {len(unscored)} of {len(trajectories)} episodes could not be scored, more than "
                f"rollout.max_unscored = {rows.max_unscored}; the last said: "
                f"{unscored[-1].score.evidence.get('reason', unscored[-1].score.evidence)}"
            )
        return trajectories

    def _roll_out(self, episodes: Sequence[Episode], sampling: Sampling) -> list[Trajectory]:
        """This rank's part; all of them where the leader has the only engine."""
        engine, part = self._engine, self._ranks.part_of(episodes)
        if isinstance(engine, LeaderEngine):
            if not engine.inner:
                return []
            engine, part = engine.inner, episodes
        if isinstance(engine, DistributedEngine):
            return engine.play(part, sampling)
        return rollout(engine, self._env, part, sampling, batch=self._rollouts.batch)

    def _scores(self, step: int, rounds: Rounds) -> list[Score]:
        """One an episode; under the control `shuffle_rewards`, another episode's of its round."""
        found: list[Score] = []
        for number, trajectories in enumerate(rounds):
            scores = [t.score for t in trajectories]
            if self._config.shuffle_rewards:
                order = generator(self._seed, "shuffle", step, number).permutation(len(scores))
                scores = [scores[i] for i in order]
            found += scores
        return found

    def _groups_with_variance(self, scores: Sequence[Score]) -> set[int]:
        """Groups whose samples do not all score the same."""
        rewards = torch.tensor([math.nan if s.value is None else s.value for s in scores])
        groups_N = torch.arange(len(scores)) // self._rollouts.group_size
        return set(with_variance(rewards, groups_N).nonzero()[:, 0].tolist())


def _describe(trajectories: Sequence[Trajectory], scores: Sequence[Score]) -> dict[str, float]:
    """Metrics of the sampled episodes."""
    scored = [score for score in scores if score.value is not None]
    parts = sorted({name for score in scored for name in score.parts})
    turns = [t.turns for t in trajectories]
    written = [
        logp
        for t in trajectories
        for one in t.segments
        for logp, sampled in zip(one.logprobs, one.loss_mask, strict=True)
        if sampled
    ]
    return {
        "reward": fmean(score.value or 0.0 for score in scored) if scored else math.nan,
        **{f"reward/{name}": fmean(score.parts.get(name, 0.0) for score in scored) for name in parts},
        "unscored": 1 - len(scored) / len(trajectories),
        "sampled_entropy": -fmean(written) if written else math.nan,
        "truncated": fmean(t.stop_reason is StopReason.LENGTH for t in trajectories),
        "completion_tokens": fmean(t.completion_tokens for t in trajectories),
        **({"turns": fmean(turns)} if max(turns) > 1 else {}),
    }
