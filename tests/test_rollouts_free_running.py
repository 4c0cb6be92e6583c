"""Episodes of several turns that wait for no other: the same bits whatever tools take."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from vertigym.core.types import Completion, Message, Prompt, Sampling, Score, Task, Trajectory
from vertigym.envs import Env, SingleTurnEnv, TaskSet, Turn
from vertigym.policies.transformers_engine import TransformersEngine
from vertigym.rewards.rubric import Rubric
from vertigym.rollouts.rollout import Episode, rollout

from .programs import engine_of_few_words

TASKS = [Task(id=f"t{n}", prompt=f"say {n}", answer=n) for n in range(9)]
SAMPLING = Sampling(max_tokens=8)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> TransformersEngine:
    return engine_of_few_words(tmp_path_factory.mktemp("m"), "say that was long", hidden=32, layers=2, ffn=32)


class Tool(Env):
    """Task n has 2 to 5 turns; `wait` says what its tool does before it answers."""

    max_turns = 6

    def __init__(
        self, wait: Callable[[int, int], None] = lambda task, turn: None, side_by_side: int = 4
    ) -> None:
        super().__init__(TaskSet(TASKS))
        self.wait, self.parallel_steps, self.turn = wait, side_by_side, 0

    def begin(self, task: Task) -> Sequence[Message]:
        self.turn = 0
        return task.messages()

    def respond(self, action: str) -> Turn:
        self.turn += 1
        self.wait(self.task.answer, self.turn)
        if self.turn == 2 + self.task.answer % 4:
            return Turn(score=Score(float(len(action))))
        return Turn(messages=[{"role": "user", "content": f"that was {len(action)} long"}], reward=0.25)


def episodes() -> list[Episode]:
    return [Episode(task.id, seed=n) for n, task in enumerate(TASKS)]


def what(played: Sequence[Trajectory]) -> list[object]:
    """Everything of them but times."""
    return [
        (t.task_id, t.messages, t.score, t.segments, t.turns, t.turn_rewards, t.stop_reason) for t in played
    ]


def test_tools_times_and_the_batch_change_no_bit(engine: TransformersEngine) -> None:
    expected = what(rollout(engine, Tool(side_by_side=1), episodes(), SAMPLING))
    for batch, late in ((100, 0), (100, 1), (4, 2), (3, 0)):
        env = Tool(lambda task, turn, late=late: time.sleep(0.004 * ((task + turn + late) % 3)))  # type: ignore[misc]
        assert what(rollout(engine, env, episodes(), SAMPLING, batch=batch)) == expected
    alone = [rollout(engine, Tool(), [episode], SAMPLING)[0] for episode in episodes()]
    assert what(alone) == expected


def test_a_slow_tool_holds_nobody_else(engine: TransformersEngine) -> None:
    others, heard = threading.Event(), list[bool]()

    def wait(task: int, turn: int) -> None:
        if task == 0 and turn == 1:
            heard.append(others.wait(60))

    ended: list[int] = []

    def on_done(index: int, trajectory: Trajectory) -> None:
        ended.append(index)
        if len(ended) == len(TASKS) - 1:
            others.set()

    played = rollout(engine, Tool(wait), episodes(), SAMPLING, batch=3, on_done=on_done)
    assert heard == [True], "the tool answered after all other episodes had ended, most of them not yet open"
    assert ended[-1] == 0
    assert what(played) == what(rollout(engine, Tool(), episodes(), SAMPLING))


def test_an_environment_that_steps_one_by_one_does_so_in_the_callers_thread(engine: TransformersEngine) -> None:
    threads = set[int]()
    env = Tool(lambda task, turn: threads.add(threading.get_ident()), side_by_side=1)
    rollout(engine, env, episodes(), SAMPLING)
    assert threads == {threading.get_ident()}


def test_no_more_steps_side_by_side_than_the_environment_allows(engine: TransformersEngine) -> None:
    lock, now, most = threading.Lock(), [0], [0]

    def wait(task: int, turn: int) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.003)
        with lock:
            now[0] -= 1

    rollout(engine, Tool(wait, side_by_side=2), episodes(), SAMPLING)
    assert most == [2]


def test_a_tool_that_fails_loses_its_own_episode_and_is_no_zero(engine: TransformersEngine) -> None:
    def wait(task: int, turn: int) -> None:
        if (task, turn) == (3, 2):
            raise ConnectionError("the machine is gone")

    played = rollout(engine, Tool(wait), episodes(), SAMPLING)
    assert played[3].score.value is None
    assert "the machine is gone" in str(played[3].score.evidence["reason"])
    others = [t for n, t in enumerate(played) if n != 3]
    whole = rollout(engine, Tool(), episodes(), SAMPLING)
    assert what(others) == what([t for n, t in enumerate(whole) if n != 3])


def test_episodes_of_one_turn_are_whole_batches_as_before(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    generate = engine.generate

    def counting(prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        asked.append(len(prompts))
        return generate(prompts, sampling)

    monkeypatch.setattr(engine, "generate", counting)
    env = SingleTurnEnv(TaskSet(TASKS), Rubric(lambda completion: 1.0))
    rollout(engine, env, episodes(), SAMPLING, batch=4)
    assert asked == [4, 4, 1]


def test_a_policy_of_which_nothing_but_generate_is_known_goes_in_lock_step(engine: TransformersEngine) -> None:
    class Plain:
        renderer = engine.renderer

        def __init__(self) -> None:
            self.asked: list[int] = []

        def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
            self.asked.append(len(prompts))
            return engine.generate(prompts, sampling)

    plain = Plain()
    played = rollout(plain, Tool(), episodes(), SAMPLING)
    assert plain.asked == [9, 9, 6, 4, 2]
    free = rollout(engine, Tool(), episodes(), SAMPLING)
    assert [t.messages for t in played] == [t.messages for t in free], "the same tokens but for rounding"


def test_an_engine_that_fails_as_a_whole_ends_the_rollout_and_lets_go_of_the_weights(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait(task: int, turn: int) -> None:
        if (task, turn) == (2, 2):
            monkeypatch.setattr(engine, "completion", None)

    with pytest.raises(TypeError):
        rollout(engine, Tool(wait, side_by_side=1), episodes(), SAMPLING)
    monkeypatch.undo()
    with ThreadPoolExecutor(1) as other:
        played = other.submit(rollout, engine, Tool(), episodes(), SAMPLING).result(60)
    assert all(t.score.value is not None for t in played)
