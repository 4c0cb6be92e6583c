"""Play a policy against an environment: many episodes at once, token in and token out.

The one idea: an episode's random numbers come from its own seed, so that what an episode does depends neither
on the batch it was played in nor on its neighbours. Tokens are kept as sampled; a later turn's prompt is the
earlier ids plus the ids of what was added. Where the chat template does not allow that, a new Segment starts.

Where an engine can take prompts whenever they are ready (`policies/running_batch.py`), no episode of several
turns waits for another: it is sampled from while others step. Else, and where episodes have one turn, all that
are active are one `Policy.generate` call, once all of them have stepped (`rollouts/turn_batches.py`).

A failure of the engine, the environment or the verifier makes the episode *unscored*, after `retries`; it
never becomes a score of 0.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ParamSpec, Protocol, TypeVar

from vertigym.core.errors import InputError
from vertigym.core.seeds import derive
from vertigym.core.types import (
    Completion,
    Decoding,
    Message,
    Policy,
    Prompt,
    Sampling,
    Score,
    StopReason,
    Task,
    Trajectory,
)
from vertigym.rollouts.turn_batches import OpenTurns, TurnBatches
from vertigym.rollouts.turn_tree import Renderer, TurnTree

P = ParamSpec("P")
T = TypeVar("T")


class PlayableEnv(Protocol):
    """What a rollout needs of an environment; `vertigym.envs.Env` is one."""

    max_turns: int
    parallel_steps: int
    most_episodes: int | None
    repeatable: bool
    completion: Completion | None

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


@dataclass(frozen=True, slots=True)
class Episode:
    """What to play: a task (or its id) and the seed of everything random in the episode."""

    task: Task | str
    seed: int = 0


@dataclass(slots=True)
class _State:
    """A running episode."""

    index: int
    episode: Episode
    env: PlayableEnv
    task: Task
    messages: list[Message]
    tools: Sequence[Any]
    decoding: Decoding
    place: str
    tree: TurnTree
    ids: tuple[int, ...] | None = None
    actions: list[str] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
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

    `batch` and the environment bound how many are active at once; a finished one makes room for the next.
    `on_done(index, trajectory)` is called as each ends. `retries`: how often a failed generation or an unscored
    episode is tried again.

    Raises:
        EngineError: the engine failed as a whole.
    """
    renderer: Renderer | None = getattr(policy, "renderer", None)
    batch = min(batch, env.most_episodes or batch)
    done: dict[int, Trajectory] = {}
    opened = 0
    states: dict[int, _State] = {}
    jobs: dict[Future[_State | Trajectory], int] = {}  # the episodes that open or step, in order

    def finish(index: int, trajectory: Trajectory) -> None:
        done[index] = trajectory
        turns.leave(index)
        if on_done:
            on_done(index, trajectory)

    with (
        _steps(env.parallel_steps) as pool,
        closing(_turns(policy, env, sampling, min(batch, len(episodes)), retries)) as turns,
    ):
        step = partial(_step, sampling=sampling, renderer=renderer, retries=retries)
        while len(done) < len(episodes):
            while opened < len(episodes) and opened - len(done) < batch:
                jobs[pool.submit(_open, env, renderer, opened, episodes[opened])] = opened
                opened += 1
            for job in _ended(jobs, turns):
                index, found = jobs.pop(job), job.result()
                if isinstance(found, Trajectory):
                    finish(index, found)
                elif found.score is not None:
                    finish(index, _trajectory(states.pop(index)))
                else:
                    states[index] = found
                    turns.add(index, _prompt(found))
            refill = opened < len(episodes) and opened - len(done) < batch
            if turns.busy and not refill:
                for index, completion in turns.collect():
                    jobs[pool.submit(step, states[index], completion)] = index
    return [done[i] for i in range(len(episodes))]


def _turns(policy: Policy, env: PlayableEnv, sampling: Sampling, rows: int, retries: int) -> OpenTurns:
    """Turns that wait for no other where there are several and the engine knows how."""
    running = getattr(policy, "running_batch", None) if env.max_turns > 1 else None
    return (running and running(sampling, rows)) or TurnBatches(policy, sampling, retries)


def _ended(jobs: Mapping[Future[T], int], turns: OpenTurns) -> list[Future[T]]:
    """Jobs that have ended: all, where turns go in lock-step; else those that have by now, and one at least
    where there is nothing else to do."""
    if not turns.free_running:
        wait(jobs)
    elif not turns.busy:
        wait(jobs, return_when=FIRST_COMPLETED)
    return [job for job in jobs if job.done()]


def _steps(workers: int) -> Executor:
    """What runs steps: a pool where the environment waits for something, else this thread."""
    return ThreadPoolExecutor(workers, thread_name_prefix="env-step") if workers > 1 else _SameThread()


class _SameThread(Executor):
    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run it."""
        future = Future[T]()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # told to whoever asks for the result
            future.set_exception(error)
        return future


def _open(env: PlayableEnv, renderer: Renderer | None, index: int, episode: Episode) -> _State | Trajectory:
    """The opened episode; a finished, unscored one where the environment fails to open it.

    Raises:
        InputError: the episode's task does not exist.
    """
    own = env.fresh()
    try:
        _, info = own.reset(seed=derive(episode.seed, "env"), options={"task": episode.task})
    except InputError:
        raise
    except Exception as error:  # an environment's fault ends no run and is no score
        score = Score.unscored(f"environment: {type(error).__name__}: {error}")
        name = episode.task if isinstance(episode.task, str) else episode.task.id
        return Trajectory(name, (), score, stop_reason=StopReason.ERROR, turns=0, seed=episode.seed)
    said = info["messages"], info["tools"], *_asked(info)
    state = _State(index, episode, own, info["task"], *said, TurnTree(renderer))
    state.ids = state.tree.ask(state.messages, state.tools, state.place)
    return state


def _asked(info: dict[str, Any]) -> tuple[Decoding, str]:
    """What an environment asks of the next action, and its place."""
    return info.get("decoding", Decoding()), info.get("place", "")


def prompt_length(env: PlayableEnv, task: Task, renderer: Renderer) -> int:
    """How many tokens the first prompt of an episode has; 0 where the environment fails to open it."""
    opened = _open(env, renderer, 0, Episode(task))
    return len(opened.ids or ()) if isinstance(opened, _State) else 0


def _prompt(state: _State) -> Prompt:
    return Prompt(
        messages=state.messages,
        token_ids=state.ids,
        seed=derive(state.episode.seed, "turn", state.place or len(state.actions)),
        tools=state.tools,
        task=state.task,
        decoding=state.decoding,
    )


def _step(
    state: _State, completion: Completion, sampling: Sampling, renderer: Renderer | None, retries: int
) -> _State:
    """Record the completion, play it, and prepare the next prompt; the same state."""
    state.latency_s += completion.latency_s
    state.version = (
        min(state.version, completion.policy_version) if state.actions else completion.policy_version
    )
    state.usage = [state.usage[0] + completion.prompt_tokens, state.usage[1] + completion.completion_tokens]
    if completion.stop_reason is StopReason.ERROR:
        state.score, state.stop = Score.unscored(f"generation failed: {completion.error}"), StopReason.ERROR
        return state
    wrote = len(completion.token_ids)
    most = min(sampling.max_tokens, state.decoding.max_tokens or sampling.max_tokens)
    if renderer and completion.stop_reason is StopReason.LENGTH and wrote < most:
        state.stop = StopReason.ERROR
        state.score = Score.unscored(
            f"the model's context is too short: a prompt of {completion.prompt_tokens} tokens leaves room for "
            f"{wrote} of max_tokens = {most}"
        )
        return state
    state.tree.add(completion)
    state.actions.append(completion.text)
    try:
        state.env.completion = completion
        _, reward, terminated, truncated, info = state.env.step(completion.text)
    except Exception as error:  # an environment's fault ends no run and is no score
        state.score, state.stop = (
            Score.unscored(f"environment: {type(error).__name__}: {error}"),
            StopReason.ERROR,
        )
        return state
    state.messages, state.tools = info["messages"], info["tools"]
    state.decoding, state.place = _asked(info)
    state.rewards.append(reward)
    if terminated or truncated:
        state.score = (
            info["score"] if info["score"].value is not None else _score_again(state, info["score"], retries)
        )
        state.stop = StopReason.TURNS if truncated else completion.stop_reason
    else:
        try:
            state.ids = state.tree.ask(state.messages, state.tools, state.place)
        except InputError as error:  # the template refuses what the environment says
            state.score, state.stop = Score.unscored(f"environment: {error}"), StopReason.ERROR
    return state


def _score_again(state: _State, score: Score, retries: int) -> Score:
    """Play the same actions again: a verifier that failed once may succeed."""
    for _ in range(retries if state.env.repeatable else 0):
        state.env.reset(seed=derive(state.episode.seed, "env"), options={"task": state.episode.task})
        for action in state.actions:
            *_, info = state.env.step(action)
        score = info["score"]
        if score.value is not None:
            break
    return score


def _trajectory(state: _State) -> Trajectory:
    assert state.score is not None
    return Trajectory(
        task_id=state.task.id,
        messages=tuple(state.messages),
        score=state.score,
        segments=tuple(state.tree.segments()),
        stop_reason=state.stop,
        policy_version=state.version,
        turns=len(state.actions),
        turn_rewards=tuple(state.rewards),
        prompt_tokens=state.usage[0],
        completion_tokens=state.usage[1],
        latency_s=state.latency_s,
        cluster=state.task.cluster,
        seed=state.episode.seed,
    )
