"""TRL's datasets and reward functions on our side, our environments on TRL's."""

from typing import Any

import pytest

import vertigym
from vertigym import envs
from vertigym.core.errors import DataError, InputError
from vertigym.core.types import Sampling, Task
from vertigym.envs import Env, SingleTurnEnv, TaskSet
from vertigym.policies.scripted import constant, expert
from vertigym.rewards.rubric import Rubric
from vertigym.rollouts.rollout import Episode, rollout

ROWS = [{"prompt": "2+2?", "answer": "4", "hint": "even"}, {"prompt": "2+3?", "answer": "5", "hint": "odd"}]


def right(prompts: list[Any], completions: list[Any], answer: list[str], **_: Any) -> list[float]:
    return [float(text == reference) for text, reference in zip(completions, answer, strict=True)]


def hinted(completions: list[Any], hint: list[str], **_: Any) -> list[float | None]:
    return [None if given == "odd" else 1.0 for given in hint]


def test_a_trl_dataset_and_its_reward_functions_become_an_environment() -> None:
    env = vertigym.from_trl({"train": ROWS, "validation": ROWS[:1]}, [right, hinted], weights=[1.0, 0.0])
    assert [len(env.tasks.ids(split)) for split in ("train", "eval", "test")] == [2, 1, 0]
    episodes = [Episode(task) for task in env.tasks.ids("train")]
    assert [t.score.value for t in rollout(expert(), env, episodes, Sampling())] == [1.0, 1.0]
    assert [t.score.value for t in rollout(constant("4"), env, episodes, Sampling())] == [1.0, 0.0]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match="row 0 of train has no 'prompt'; its columns are question"):
        vertigym.from_trl([{"question": "x"}], [right])
    with pytest.raises(InputError, match="as many weights"):
        vertigym.from_trl(ROWS, [right], weights=[1.0, 2.0])


def test_an_environment_gives_trl_its_dataset_and_reward() -> None:
    pytest.importorskip("datasets")
    env = envs.make("vertigym/Returns-v0")
    given = vertigym.to_trl(env)
    row = given["train_dataset"][0]
    assert row["prompt"][-1]["role"] == "user"
    assert len(given["eval_dataset"]) == 300
    (reward,) = given["reward_funcs"]
    task = env.tasks.get(row["task_id"])
    reference = [{"role": "assistant", "content": env.reference(task)[0]}]  # type: ignore[index]
    empty = [{"role": "assistant", "content": ""}]
    assert reward([reference, empty], task_id=[task.id, task.id], prompts=[row["prompt"]] * 2) == [1.0, 0.0]


def test_what_could_not_be_scored_is_none_for_trl_and_never_zero() -> None:
    pytest.importorskip("datasets")
    env = SingleTurnEnv(TaskSet([Task(id="a", prompt="x")]), Rubric(lambda: None))
    assert vertigym.to_trl(env)["reward_funcs"][0](["y"], task_id=["a"]) == [None]


def test_several_turns_are_refused() -> None:
    class Chat(Env):
        max_turns = 2

    with pytest.raises(InputError, match="several turns and no tools"):
        vertigym.to_trl(Chat(TaskSet([])))


def test_the_package_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = vertigym.nothing
