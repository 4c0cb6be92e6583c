"""Generated arithmetic, rows folders, GSM8K's format."""

import json
import re
import sys
from pathlib import Path

import pytest

from vertigym import envs
from vertigym.core.errors import ConfigError, DataError, InputError, UnknownNameError
from vertigym.core.types import SPLITS
from vertigym.envs import rows
from vertigym.envs.env import SingleTurnEnv
from vertigym.envs.folders import EnvFolder
from vertigym.envs.math import arithmetic
from vertigym.envs.math.datasets import gsm8k, questions


def play(env: envs.Env, task: str, reply: str) -> float | None:
    env.reset(seed=0, options={"task": task})
    score = env.step(reply)[4]["score"]
    assert score is not None
    value: float | None = score.value
    return value


@pytest.mark.parametrize("level", arithmetic.LEVELS)
def test_every_level_is_true_and_never_repeats_a_problem(level: int) -> None:
    env = arithmetic.load(level=level)
    prompts = [env.tasks.get(i).prompt for split in SPLITS for i in env.tasks.ids(split)]
    assert len(set(prompts)) == len(prompts)
    for split in SPLITS:
        for task_id in env.tasks.ids(split)[:50]:
            task = env.tasks.get(task_id)
            assert isinstance(task.prompt, str)
            if level < 6:
                assert eval(task.prompt.removeprefix("What is ").removesuffix("?")) == int(task.answer)
            else:
                left, right = task.prompt.removesuffix(". What is x?").split("=")
                assert eval(left, {"x": int(task.answer)}) == int(right)
            assert play(env, task_id, task.answer) == 1.0
            assert play(env, task_id, str(int(task.answer) + 1)) == 0.0


def test_arithmetic_is_registered_and_repeats() -> None:
    one, two = envs.make("vertigym/Arithmetic-v0", level=3), arithmetic.load(level=3)
    assert [one.tasks.get(f"eval-{i}") for i in range(20)] == [two.tasks.get(f"eval-{i}") for i in range(20)]
    with pytest.raises(ConfigError, match="levels are 1 to 6"):
        arithmetic.load(level=9)


def test_numbers_digit_by_digit() -> None:
    env = envs.make("vertigym/Arithmetic-v0?level=4&digits=true")
    for index in range(50):
        plain, spaced = (arithmetic.make_task(4, "test", index, digits=digits) for digits in (False, True))
        assert str(spaced.prompt).replace(" ", "") == str(plain.prompt).replace(" ", "")
        assert not re.search(r"\d\d|-\d", str(spaced.prompt) + spaced.answer)
        assert play(env, spaced.id, spaced.answer) == play(env, spaced.id, plain.answer) == 1.0
        assert play(env, spaced.id, f"{spaced.answer} 0 1") == 0.0


def test_arguments_follow_the_id() -> None:
    assert envs.make("vertigym/Arithmetic-v0?level=6").tasks.get("test-0") == arithmetic.make_task(6, "test", 0)
    system = envs.make("vertigym/Arithmetic-v0?system=Hi there&level=1").reset(seed=0)[1]["messages"][0]
    assert system["content"] == "Hi there"
    with pytest.raises(InputError, match="the form is ID"):
        envs.make("vertigym/Arithmetic-v0?level")


def test_gsm8k(data: Path) -> None:
    env = gsm8k(data / "gsm8k")
    sizes = {split: len(env.tasks.ids(split)) for split in SPLITS}
    assert (sizes["train"] + sizes["eval"], sizes["test"]) == (7473, 1319)
    assert 300 < sizes["eval"] < 450
    assert play(env, "test-1", "16 - 3 - 4 = 9 eggs, 9 * 2 = 18\n#### 18") == 1.0
    assert play(env, "test-1", "#### 19") == 0.0


def test_all_gsm8k_references_score_1_and_shifted_ones_0(data: Path) -> None:
    env = gsm8k(data / "gsm8k")
    ids = [i for split in SPLITS for i in env.tasks.ids(split)]
    assert len(ids) == 8792
    for i in ids:
        answer = env.tasks.get(i).answer
        shifted = str(int(float(answer.replace(",", ""))) + 1)
        assert (play(env, i, f"so\n#### {answer}"), play(env, i, f"so\n#### {shifted}")) == (1.0, 0.0), i


def folder(root: Path, *lines: object, toml: str = "", reward: str = 'name = "exact"') -> Path:
    root.mkdir(exist_ok=True)
    (root / "env.toml").write_text(
        f'id = "acme/Rows-v0"\nkind = "rows"\n{toml}\n[files]\ntrain = "train.jsonl"\n[reward]\n{reward}\n'
    )
    (root / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


def test_a_folder_of_rows_is_an_environment(tmp_path: Path) -> None:
    path = folder(
        tmp_path / "rows",
        {"question": "2 + 2?", "answer": "so\n#### 4", "topic": "sums", "info": '{"n": 2}'},
        {"prompt": [{"role": "user", "content": "3 + 3?"}], "answer": "#### 6", "id": "six", "cluster": "c"},
        toml='reference = "####"\ninstruction = "Number only."\nsystem = "Hi."',
        reward='name = "numeric"\nrelative = 0',
    )
    env = envs.make(str(path))
    assert isinstance(env, SingleTurnEnv)
    assert env.tasks.get("train-1").info == {"topic": "sums", "n": 2}
    assert env.tasks.get("six").cluster == "c"
    _, info = env.reset(options={"task": "six"})
    assert [m["content"] for m in info["messages"]] == ["Hi.", "3 + 3?\n\nNumber only."]
    assert play(env, "six", "6") == 1.0
    assert play(env, "train-1", "5") == 0.0


def test_eval_share_keeps_equal_questions_together(tmp_path: Path) -> None:
    lines = [{"question": f"q{i % 100}", "answer": "a"} for i in range(300)]
    env = rows.load(EnvFolder(folder(tmp_path / "rows", *lines, toml="eval_share = 0.3")))
    seen = [{env.tasks.get(i).prompt for i in env.tasks.ids(split)} for split in ("train", "eval")]
    assert not seen[0] & seen[1]
    assert 15 < len(seen[1]) < 45


@pytest.mark.parametrize(
    ("lines", "toml", "reward", "message"),
    [
        ([{"answer": "1"}], "", 'name = "exact"', "train.jsonl:1: no 'question' or 'prompt'"),
        ([{"question": "q"}], "", 'name = "exact"', "train.jsonl:1: no 'answer'"),
        ([{"question": "q", "answer": "4"}], 'reference = "####"', 'name = "exact"', "no 'answer' at '####'"),
        ([[1]], "", 'name = "exact"', "a row is an object with columns, got int"),
        ([{"question": 5, "answer": "1"}], "", 'name = "exact"', "not a task"),
        (
            [{"question": "q", "answer": "1", "info": "{"}],
            "",
            'name = "exact"',
            "'info' is a string that is not",
        ),
        ([{"question": "q", "answer": "1"}], "", 'name = "exat"', "did you mean 'exact'"),
        ([{"question": "q", "answer": "1"}], "", 'name = "numeric"\nrel = 1', "unknown argument 'rel'"),
        ([{"question": "q", "answer": "1"}], "", 'name = "no.module:f"', "No module named 'no'"),
        ([{"question": "q", "answer": "1"}], "", 'name = "os:getcwd"\nx = 1', "takes no arguments here"),
        ([{"question": "q", "answer": "1"}], "", 'where = "boxed"', r"\[reward\] needs a name"),
        ([{"question": "q", "answer": "1"}], "colour = 1", 'name = "exact"', "unknown key 'colour'"),
        ([{"question": "q", "answer": "1", "id": 1}] * 2, "", 'name = "exact"', "two tasks have the id '1'"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said_in_one_line(
    tmp_path: Path, lines: list[object], toml: str, reward: str, message: str
) -> None:
    path = folder(tmp_path / "rows", *lines, toml=toml, reward=reward)
    with pytest.raises(InputError, match=message) as caught:
        rows.load(EnvFolder(path, trusted=True))
    assert "\n" not in str(caught.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.jsonl: no such file"):
        questions({"test": tmp_path / "nowhere.jsonl"})


def test_a_module_with_load_environment_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_module_env.py").write_text(
        "from vertigym.envs.math import arithmetic\n"
        "def load_environment(level=1):\n"
        "    return arithmetic.load(level=level)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert "( " in str(envs.make("my_module_env", level=5).tasks.get("train-0").prompt)
    assert "* x" in str(envs.make("my_module_env:load_environment", level=6).tasks.get("train-0").prompt)
    with pytest.raises(InputError, match="no function load_environment"):
        envs.make("json")
    with pytest.raises(UnknownNameError):
        envs.make("my_modul_env")
    sys.modules.pop("my_module_env")
