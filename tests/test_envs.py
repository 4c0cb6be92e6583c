"""The environment contract and the registry."""

import math
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

from vertigym import envs
from vertigym.core.config import read_toml
from vertigym.core.errors import ConfigError, DataError, InputError, UnknownNameError
from vertigym.core.files import write_jsonl
from vertigym.core.types import Message, Score, Split, Task
from vertigym.envs import Env, GeneratedTasks, SingleTurnEnv, TaskSet, Turn, folders, registry
from vertigym.rewards.rubric import Rubric

from .installed import install

TASKS = [
    Task(id="a", prompt="2+2?", answer="4"),
    Task(id="b", prompt="2+3?", answer="5"),
    Task(id="c", prompt="1+1?", answer="2", split="eval", cluster="small"),
]


def exact(completion: str, answer: str) -> float:
    return float(completion == answer)


class Countdown(Env):
    """Ends when the policy has said `n`, `n - 1`, … 1."""

    max_turns = 3

    def begin(self, task: Task) -> Sequence[Message]:
        self.left = int(task.answer)
        return task.messages()

    def respond(self, action: str) -> Turn:
        if action != str(self.left):
            return Turn(score=Score(0.0))
        self.left -= 1
        if self.left == 0:
            return Turn(score=Score(1.0))
        return Turn(messages=[{"role": "user", "content": f"{self.left} to go"}], reward=0.5)


@pytest.fixture
def single() -> SingleTurnEnv:
    return SingleTurnEnv(TaskSet(TASKS), Rubric(exact), system="Be brief.")


@pytest.fixture
def countdown() -> Countdown:
    tasks = [Task(id=str(n), prompt=f"count down from {n}", answer=str(n)) for n in (1, 2, 5)]
    return Countdown(TaskSet(tasks))


@pytest.mark.filterwarnings("ignore:.*Not able to test alternative render modes")
def test_gymnasiums_checker_passes(single: SingleTurnEnv, countdown: Countdown) -> None:
    for env in (single, countdown):
        check_env(env)


def test_a_single_turn_episode(single: SingleTurnEnv) -> None:
    observation, info = single.reset(options={"task": "b"})
    assert observation == "2+3?"
    assert [m["role"] for m in info["messages"]] == ["system", "user"]
    assert info["score"] is None
    observation, reward, terminated, truncated, info = single.step("5")
    assert (observation, reward, terminated, truncated) == ("", 1.0, True, False)
    assert info["messages"][-1] == {"role": "assistant", "content": "5"}
    with pytest.raises(gymnasium.error.ResetNeeded):
        single.step("5")


def test_a_multi_turn_episode_and_its_turn_limit(countdown: Countdown) -> None:
    countdown.reset(options={"task": "2"})
    observation, reward, terminated, truncated, info = countdown.step("2")
    assert (observation, reward, terminated, truncated, info["score"]) == ("1 to go", 0.5, False, False, None)
    assert countdown.step("1")[1:4] == (1.0, True, False)
    countdown.reset(options={"task": "5"})
    countdown.step("5")
    countdown.step("4")
    _, reward, terminated, truncated, info = countdown.step("3")
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert "within 3 turns" in info["score"].evidence["reason"]


def test_an_unscored_episode_has_no_number_for_a_reward() -> None:
    env = SingleTurnEnv(TaskSet(TASKS), Rubric(lambda: None))
    env.reset(options={"task": "a"})
    _, reward, terminated, _, info = env.step("4")
    assert math.isnan(reward)
    assert terminated
    assert info["score"].value is None


def test_tasks_are_chosen_by_id_by_split_and_by_seed(single: SingleTurnEnv) -> None:
    assert single.reset(options={"split": "eval"})[1]["task"].id == "c"
    drawn = [single.reset(seed=seed)[1]["task"].id for seed in range(20)]
    assert drawn == [single.reset(seed=seed)[1]["task"].id for seed in range(20)]
    assert set(drawn) == {"a", "b"}, "without a split, tasks come from train"
    with pytest.raises(UnknownNameError, match="task 'd'"):
        single.reset(options={"task": "d"})
    with pytest.raises(ValueError, match="no split 'dev'"):
        single.reset(options={"split": "dev"})
    with pytest.raises(ValueError, match="has no tasks"):
        single.reset(options={"split": "test"})


def test_fresh_instances_do_not_share_an_episode(countdown: Countdown) -> None:
    other = countdown.fresh()
    countdown.reset(options={"task": "2"})
    other.reset(options={"task": "5"})
    countdown.step("2")
    assert other.step("5")[0] == "4 to go"
    assert [m["content"] for m in countdown.messages] == ["count down from 2", "2", "1 to go"]


def test_an_action_that_is_not_text_is_a_programming_error(single: SingleTurnEnv) -> None:
    single.reset()
    with pytest.raises(TypeError, match="an action is a string, got int"):
        single.step(4)  # type: ignore[arg-type]


def test_task_sets_refuse_two_tasks_with_one_id_and_name_broken_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two tasks have the id 'a'"):
        TaskSet([TASKS[0], TASKS[0]])
    write_jsonl(tmp_path / "t.jsonl", [TASKS[0].model_dump(mode="json"), {"id": 3}])
    with pytest.raises(DataError, match=r"t\.jsonl:2: not a task: id"):
        TaskSet.read(tmp_path / "t.jsonl")


def test_generated_tasks_are_made_when_asked_for() -> None:
    made: list[tuple[Split, int]] = []

    def make(split: Split, index: int) -> Task:
        made.append((split, index))
        return Task(id=f"{split}-{index}", prompt="x", split=split)

    tasks = GeneratedTasks(make, {"train": 1000})
    assert len(tasks.ids("train")) == 1000
    assert list(tasks.ids("test")) == []
    assert tasks.get("train-7").id == "train-7"
    assert made == [("train", 7)]
    for wrong in ("train-1000", "eval-0", "train-x", "7"):
        with pytest.raises(UnknownNameError):
            tasks.get(wrong)


class TestRegistry:
    def test_built_in_environments_are_listed_described_and_made(self) -> None:
        assert "vertigym/Returns-v0" in envs.ids()
        spec = envs.spec("vertigym/Returns-v0")
        assert (spec.source, bool(spec.description)) == ("vertigym", True)
        assert isinstance(envs.make("vertigym/Returns-v0"), Env)

    def test_gymnasiums_own_make_works_too(self) -> None:
        envs.ids()
        env = gymnasium.make("vertigym/Returns-v0")
        assert isinstance(env.reset(seed=0)[0], str)

    @pytest.mark.parametrize("wrong", ["Loan", "a/b/Loan-v0", "acme/Loan", "acme/Loan-vx"])
    def test_an_id_without_namespace_or_version_is_refused(self, wrong: str) -> None:
        with pytest.raises(ValueError, match="namespace/Name-v0"):
            envs.register(wrong, "x:y")

    def test_a_folder_is_found_on_the_search_path_and_by_its_path(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / "mine"
        folder.mkdir()
        (folder / "env.toml").write_text('id = "acme/Mine-v0"\nkind = "decison"\ndescription = "d"')
        monkeypatch.setenv(registry.SEARCH_PATH, str(tmp_path))
        assert envs.spec("acme/Mine-v0").source == str(folder)
        assert envs.spec(str(folder)).id == "acme/Mine-v0"
        with pytest.raises(UnknownNameError, match=r"kind .*'decison'; did you mean 'decision'"):
            envs.make("acme/Mine-v0")
        (folder / "env.toml").write_text("kind = 3")
        with pytest.warns(UserWarning, match="key 'id' is missing"):
            assert "acme/Mine-v0" not in envs.ids()

    def test_an_installed_package_adds_a_kind_of_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = """
            from vertigym.envs import SingleTurnEnv, TaskSet
            from vertigym.core.types import Task
            from vertigym.rewards.rubric import Rubric
            from vertigym.rewards.text import exact

            def load(folder, **changes):
                words = {**folder.table, **changes}["words"]
                tasks = TaskSet(Task(id=word, prompt=f"say {word}", answer=word) for word in words)
                return SingleTurnEnv(tasks, Rubric(exact()))
            """
        install(tmp_path / "site", monkeypatch, "acme_words", source, registry.KINDS, words="load", rows="load")
        folder = tmp_path / "mine"
        folder.mkdir()
        (folder / "env.toml").write_text('id = "acme/Words-v0"\nkind = "words"\nwords = ["yes", "no"]\n')
        assert envs.make(str(folder)).tasks.ids("train") == ["yes", "no"]
        assert envs.make(f"{folder}?words=['maybe']").tasks.ids("train") == ["maybe"]
        (folder / "env.toml").write_text('id = "acme/Words-v0"\nkind = "rows"\nwords = ["yes"]\n')
        with pytest.raises(ConfigError, match="unknown key 'words'"):  # a name of ours is not taken
            envs.make(str(folder))
        install(tmp_path / "broken", monkeypatch, "acme_broken", "", registry.KINDS, broken="load")
        (folder / "env.toml").write_text('id = "acme/Words-v0"\nkind = "broken"\n')
        with pytest.raises(InputError, match=r"vertigym.kinds 'broken' \(acme_broken:load\) does not load"):
            envs.make(str(folder))

    def test_making_a_folder_reads_its_env_toml_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened: list[Path] = []

        def counted(path: Path) -> dict[str, Any]:
            opened.append(path)
            return read_toml(path)

        monkeypatch.setattr(folders, "read_toml", counted)
        monkeypatch.setenv(registry.SEARCH_PATH, str(tmp_path))
        write_jsonl(tmp_path / "mine" / "train.jsonl", [{"question": "1 + 1", "answer": "2"}])
        text = (
            'id = "acme/Mine-v0"\nkind = "rows"\nfiles = {train = "train.jsonl"}\nreward = {name = "exact"}\n'
        )
        (tmp_path / "mine" / "env.toml").write_text(text)
        for name in ("acme/Mine-v0", str(tmp_path / "mine")):
            envs.make(name)
            assert opened == [tmp_path / "mine" / "env.toml"]
            opened.clear()

    @pytest.mark.parametrize("name", ["acme/Mine-v0", "environments/mine"])
    def test_a_folder_is_found_from_elsewhere_by_its_full_path(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / "here" / "environments" / "mine"
        folder.mkdir(parents=True)
        (folder / "env.toml").write_text('id = "acme/Mine-v0"\nkind = "decision"\n')
        monkeypatch.chdir(tmp_path / "here")
        found = envs.absolute(f"{name}?a=1")
        assert found == f"{folder}?a=1"
        monkeypatch.chdir(tmp_path)
        assert envs.spec(found).id == "acme/Mine-v0"
        assert envs.absolute("vertigym/Returns-v0?a=1") == "vertigym/Returns-v0?a=1"

    def test_something_else_in_the_registry_is_not_an_environment_of_ours(self) -> None:
        envs.register("acme/CartPole-v0", "gymnasium.envs.classic_control:CartPoleEnv")
        with pytest.raises(InputError, match=r"not a vertigym\.envs\.Env"):
            envs.make("acme/CartPole-v0")


def test_a_thread_that_asks_while_environments_are_found_waits_for_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun = threading.Event()

    def slow() -> None:
        begun.set()
        time.sleep(0.05)
        found.append("all")

    found: list[str] = []
    monkeypatch.setattr(registry, "_discovered", False)
    monkeypatch.setattr(registry, "_register_all", slow)
    first = threading.Thread(target=registry.ids)
    first.start()
    begun.wait()
    registry.ids()
    assert found == ["all"]
    first.join()
