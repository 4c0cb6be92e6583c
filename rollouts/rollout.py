"""Play a policy against an environment: many episodes in lock-step, token in and token out.

The one idea: every turn of all active episodes is one `Policy.generate` call, and an episode's random numbers
come from its own seed, so that what an episode does depends neither on the batch it was played in nor on
its neighbours. Tokens are kept as sampled; a later turn's prompt is the earlier ids plus the ids of what
was added. Where the chat template does not allow that, a new Segment starts.

A failure of the engine, the environment or the verifier makes the episode *unscored*, after `retries`; it
never becomes a score of 0.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from vertigym.core.errors import InputError
from vertigym.core.seeds import derive
from vertigym.core.types import (
    Completion,
    Message,
    Policy,
    Prompt,
    Sampling,
    Score,
    Segment,
    StopReason,
    Task,
    Trajectory,
)


class PlayableEnv(Protocol):
    """What a rollout needs of an environment; `vertigym.envs.Env` is one."""

    parallel_steps: int

    def fresh(self) -> "PlayableEnv":
        """Another instance over the same tasks."""
        ...

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Open an episode."""
        ...

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Play one action."""
        ...


class Renderer(Protocol):
    """How an engine turns messages into token ids."""

    def prompt(self, messages: Sequence[Message], tools: Sequence[Any] = ()) -> list[int]:
        """The ids the model is to continue."""
        ...

    def extension(
        self, before: Sequence[Message], reply: str, added: Sequence[Message], tools: Sequence[Any] = ()
    ) -> list[int] | None:
        """The ids that follow a reply (from the end of its text) up to the next generation prompt, or None
        where the template does not extend what came before."""
        ...


@dataclass(frozen=True, slots=True)
class Episode:
    """What to play: a task (or its id) and the seed of everything random in the episode."""

    task: Task | str
    seed: int = 0


@dataclass(slots=True)
class _Play:
    """An episode under way."""

    index: int
    episode: Episode
    env: PlayableEnv
    task: Task
    messages: list[Message]
    tools: Sequence[Any]
    actions: list[str] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    score: Score | None = None
    stop: StopReason = StopReason.STOP
    version: int = 0
    usage: list[int] = field(default_factory=lambda: [0, 0])
    latency_s: float = 0.0


def rollout(
    policy: Policy,
    env: PlayableEnv,
    episodes: Sequence[Episode],
    sampling: Sampling,
    *,
    batch: int = 256,
    retries: int = 1,
    on_done: Callable[[int, Trajectory], None] | None = None,
) -> list[Trajectory]:
    """Play every episode; Trajectories in the order of `episodes`.

    `batch` bounds how many are active at once; a finished one makes room for the next. `on_done(index,
    trajectory)` is called as each ends. `retries`: how often a failed generation or an unscored episode is
    tried again.

    Raises:
        EngineError: the engine failed as a whole.
    """
    renderer: Renderer | None = getattr(policy, "renderer", None)
    done: dict[int, Trajectory] = {}
    waiting = iter(enumerate(episodes))
    active: list[_Play] = []
    with _stepper(env.parallel_steps) as step_all:
        while True:
            for i, episode in _take(waiting, batch - len(active)):
                opened = _open(env, i, episode, renderer)
                if isinstance(opened, _Play):
                    active.append(opened)
                    continue
                done[i] = opened
                if on_done:
                    on_done(i, opened)
            if not active and len(done) == len(episodes):
                return [done[i] for i in range(len(episodes))]
            if not active:
                continue
            completions = _generate(policy, active, sampling, renderer, retries)
            step_all(
                lambda play, completion: _advance(play, completion, renderer, retries), active, completions
            )
            for play in (p for p in active if p.score is not None):
                done[play.index] = _close(play)
                if on_done:
                    on_done(play.index, done[play.index])
            active = [play for play in active if play.score is None]


T = TypeVar("T")


def _take(items: Iterator[T], count: int) -> Iterator[T]:
    for _ in range(count):
        try:
            yield next(items)
        except StopIteration:
            return


@contextmanager
def _stepper(
    workers: int,
) -> Iterator[Callable[[Callable[[Any, Any], None], Sequence[Any], Sequence[Any]], None]]:
    """Map over plays: in this thread, or on a pool where the environment's steps wait on something."""
    if workers <= 1:
        yield lambda f, plays, completions: list(map(f, plays, completions)).clear()
        return
    pool: Executor
    with ThreadPoolExecutor(workers, thread_name_prefix="env-step") as pool:
        yield lambda f, plays, completions: list(pool.map(f, plays, completions)).clear()


def _open(env: PlayableEnv, index: int, episode: Episode, renderer: Renderer | None) -> _Play | Trajectory:
    """The opened episode; a finished, unscored one where the environment fails to open it.

    Raises:
        InputError: the episode's task does not exist.
    """
    own = env.fresh()
    try:
        _, info = own.reset(seed=derive(episode.seed, "env"), options={"task": episode.task})
    except InputError:
        raise
    except Exception as error:  # an environment's fault must not end the run, nor count against the policy
        score = Score.unscored(f"environment: {type(error).__name__}: {error}")
        name = episode.task if isinstance(episode.task, str) else episode.task.id
        return Trajectory(name, (), score, stop_reason=StopReason.ERROR, turns=0, seed=episode.seed)
    play = _Play(index, episode, own, info["task"], info["messages"], info["tools"])
    if renderer:
        _feed(play, renderer.prompt(play.messages, play.tools))
    return play


def _feed(play: _Play, ids: Sequence[int]) -> None:
    """Append ids the policy did not write."""
    play.ids += ids
    play.mask += [0] * len(ids)
    play.logprobs += [0.0] * len(ids)


def _generate(
    policy: Policy, plays: Sequence[_Play], sampling: Sampling, renderer: Renderer | None, retries: int
) -> list[Completion]:
    prompts = [
        Prompt(
            messages=play.messages,
            token_ids=tuple(play.ids) if renderer else None,
            seed=derive(play.episode.seed, "turn", len(play.actions)),
            tools=play.tools,
            task=play.task,
        )
        for play in plays
    ]
    completions = policy.generate(prompts, sampling)
    for _ in range(retries):
        failed = [i for i, c in enumerate(completions) if c.stop_reason is StopReason.ERROR]
        if not failed:
            break
        for i, again in zip(failed, policy.generate([prompts[i] for i in failed], sampling), strict=True):
            completions[i] = again
    return completions


def _advance(play: _Play, completion: Completion, renderer: Renderer | None, retries: int) -> None:
    """Record what was sampled, play it, and prepare the next prompt."""
    play.latency_s += completion.latency_s
    play.version = min(play.version, completion.policy_version) if play.actions else completion.policy_version
    play.usage = [play.usage[0] + completion.prompt_tokens, play.usage[1] + completion.completion_tokens]
    if completion.stop_reason is StopReason.ERROR:
        play.score, play.stop = Score.unscored(f"generation failed: {completion.error}"), StopReason.ERROR
        return
    play.ids += completion.token_ids
    play.mask += [1] * len(completion.token_ids)
    play.logprobs += completion.logprobs
    play.actions.append(completion.text)
    before = play.messages
    try:
        _, reward, terminated, truncated, info = play.env.step(completion.text)
    except Exception as error:  # an environment's fault must not end the run, nor count against the policy
        play.score, play.stop = (
            Score.unscored(f"environment: {type(error).__name__}: {error}"),
            StopReason.ERROR,
        )
        return
    play.messages = info["messages"]
    play.rewards.append(reward)
    if terminated or truncated:
        play.score = (
            info["score"] if info["score"].value is not None else _score_again(play, info["score"], retries)
        )
        play.stop = StopReason.TURNS if truncated else completion.stop_reason
    elif renderer:
        _continue(play, before, completion, renderer)


def _continue(play: _Play, before: Sequence[Message], completion: Completion, renderer: Renderer) -> None:
    """Extend the ids by what the environment said, or start a new segment."""
    added = play.messages[len(before) + 1 :]
    extension = renderer.extension(before, completion.text, added, play.tools)
    if extension is None:
        _cut(play)
        _feed(play, renderer.prompt(play.messages, play.tools))
        return
    if extension and play.ids[-1] == extension[0]:  # the model wrote the end-of-turn token itself
        extension = extension[1:]
    _feed(play, extension)


def _cut(play: _Play) -> None:
    if any(play.mask):
        play.segments.append(Segment(tuple(play.ids), tuple(play.mask), tuple(play.logprobs)))
    play.ids, play.mask, play.logprobs = [], [], []


def _score_again(play: _Play, score: Score, retries: int) -> Score:
    """Play the same actions again: a verifier that failed once may succeed."""
    for _ in range(retries):
        play.env.reset(seed=derive(play.episode.seed, "env"), options={"task": play.episode.task})
        for action in play.actions:
            *_, info = play.env.step(action)
        score = info["score"]
        if score.value is not None:
            break
    return score


def _close(play: _Play) -> Trajectory:
    assert play.score is not None
    _cut(play)
    return Trajectory(
        task_id=play.task.id,
        messages=tuple(play.messages),
        score=play.score,
        segments=tuple(play.segments),
        stop_reason=play.stop,
        policy_version=play.version,
        turns=len(play.actions),
        turn_rewards=tuple(play.rewards),
        prompt_tokens=play.usage[0],
        completion_tokens=play.usage[1],
        latency_s=play.latency_s,
        cluster=play.task.cluster,
        seed=play.episode.seed,
    )
