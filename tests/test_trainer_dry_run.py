"""A dry run refuses what the run would refuse; so does an eval, before it plays."""

import json
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from vertigym import envs
from vertigym.core.config import parse
from vertigym.core.errors import ConfigError, InputError
from vertigym.core.files import write_jsonl
from vertigym.envs.chat_rows import chat_rows
from vertigym.policies import tiny
from vertigym.trainer.config import RunConfig
from vertigym.trainer.dry_run import plan
from vertigym.trainer.loop import train
from vertigym.trainer.measured_steps import measured_steps
from vertigym.trainer.recipe import load_stages, plan_stages
from vertigym.trainer.setup import texts

from .conftest import CommandLine
from .returns import ENV, IMPROVES, SHORT, SIZE, suite
from .test_cli import one_line

CHAT = {"messages": [{"role": "user", "content": "where is it"}, {"role": "assistant", "content": "here"}]}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a suite, rows, an environment without training tasks, a model and another one."""
    monkeypatch.chdir(tmp_path)
    Path("suite.toml").write_text(suite(24, SHORT, IMPROVES))
    Path("typo.toml").write_text(suite(24, SHORT, IMPROVES).replace('["exact"]', '["exct"]'))
    Path("gate.toml").write_text(suite(24, SHORT, '[[gate]]\nrule = "improves"\nmetric = "fieds"\n'))
    Path("slice.toml").write_text(suite(24, SHORT, IMPROVES + 'slice = "rule=none"\n'))
    Path("env.toml").write_text(suite(24, SHORT, IMPROVES + 'env = "acme/Loan-v0"\n'))
    Path("cost.toml").write_text(
        suite(24, SHORT, '[[gate]]\nrule = "not_worse"\nmetric = "cost"\nmargin = 1.0\n')
    )
    write_jsonl(Path("rows.jsonl"), [CHAT])
    write_jsonl(Path("unanswered.jsonl"), [CHAT, {"messages": CHAT["messages"][:1]}])
    write_jsonl(
        Path("long.jsonl"), [{"messages": [{"role": "user", "content": "so " * 2000}, CHAT["messages"][1]]}]
    )
    Path("empty.jsonl").write_text("")
    Path("held").mkdir()
    write_jsonl(Path("held/test.jsonl"), [{"question": "one and one", "answer": "2"}])
    Path("held/env.toml").write_text(
        tomli_w.dumps(
            {"id": "a/Held-v0", "kind": "rows", "files": {"test": "test.jsonl"}, "reward": {"name": "exact"}}
        )
    )
    for name, words in (("model", "where is it"), ("other", "another one")):
        tiny.build([words, words], Path(name), size=tiny.TinySize.model_validate(SIZE))
    Path("afile").write_text("x")
    return tmp_path


def table(**changes: Any) -> dict[str, Any]:
    return {"name": "run", "env": ENV, "model": "model", "algorithm": "grpo", "steps": 2} | changes


def sft(data: str) -> dict[str, Any]:
    return {"algorithm": "sft", "sft": {"data": data}}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"eval": {"suites": ["typo.toml"]}}, "suite returns: no metric 'exct': there are score, .*exact"),
    ({"eval": {"suites": ["gate.toml"]}}, "suite returns: no metric 'fieds': there are score, .*fields"),
    ({"eval": {"suites": ["slice.toml"]}}, "improves on score of rule=none: no task in rule=none"),
    ({"eval": {"suites": ["env.toml"]}}, "no task in acme/Loan-v0"),
    ({"eval": {"suites": ["cost.toml"]}}, "metric 'cost' needs a price"),
    (sft("unanswered.jsonl"), r"unanswered.jsonl:2: a row is \{\"messages\""),
    (sft("empty.jsonl"), "empty.jsonl: no rows to train on"),
    (sft("none.jsonl"), "no such file"),
    ({"env": "held"}, "held has no tasks in its train split, on which grpo trains"),
    ({"output": "afile"}, "afile.*cannot be written"),
    ({"output": "/proc/runs"}, "/proc/runs.*cannot be written"),
    ({"algorithm": "distill", "distill": {"teacher": "other"}}, "other: its tokenizer is not the policy's"),
    ({"lora": {"rank": 2, "targets": ["nothing"]}}, "nothing"),
]


@pytest.mark.parametrize(("changes", "said"), REFUSED, ids=[said[:30] for _, said in REFUSED])
def test_what_a_run_would_refuse_is_refused_before_it(here: Path, changes: dict[str, Any], said: str) -> None:
    config = parse(RunConfig, table(**changes), source="test")
    before = sorted(here.rglob("*"))
    with pytest.raises(InputError, match=said):
        plan(config)
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize("name", ["typo", "gate", "slice", "env", "cost"])
def test_a_run_refuses_a_suite_before_it_leaves_anything(here: Path, name: str) -> None:
    config = parse(RunConfig, table(eval={"suites": [f"{name}.toml"]}), source="test")
    with pytest.raises(InputError):
        train(config)
    assert not Path("runs").exists()


def test_a_folder_that_holds_a_run_is_refused_unless_it_is_to_go_on(here: Path) -> None:
    Path("run.toml").write_text(tomli_w.dumps(table(**sft("rows.jsonl"), steps=1)))
    stages = load_stages(Path("run.toml"))
    train(stages[0].config)
    with pytest.raises(InputError, match="already holds a run: continue it with --resume"):
        plan_stages(stages)
    assert plan_stages(stages, resume=True)


def test_some_steps_and_tasks_of_the_evals_are_measured_and_nothing_stays(here: Path) -> None:
    before = sorted(here.rglob("*"))
    config = table(eval={"suites": ["suite.toml"], "every": 1}, rollout={"tasks": 2, "group_size": 2})
    found = measured_steps(parse(RunConfig, config, source=""))
    assert set(found) == {
        "seconds a step",
        "seconds an eval",
        "minutes in all",
        "memory in GB",
        "libraries in GB",
    }
    assert 0.1 < found["libraries in GB"] <= found["memory in GB"] < 10
    assert sorted(here.rglob("*")) == before


def test_steps_that_cannot_be_run_are_refused(here: Path) -> None:
    short = {"model": "tiny", "tiny": SIZE | {"context": 64}, "rollout": {"tasks": 2, "group_size": 2}}
    with pytest.raises(ConfigError, match=r"could not be scored.*the model's context is too short"):
        measured_steps(parse(RunConfig, table(**short), source=""))


def test_rows_beyond_the_context_are_said(here: Path) -> None:
    (found,) = plan(parse(RunConfig, table(**sft("long.jsonl")), source="test"))["long prompts"]
    assert "rows to learn from: 1 of 1 are longer than the context of 1024" in found


def test_an_eval_finds_its_faults_before_it_plays_the_baseline(command: CommandLine, here: Path) -> None:
    given = ("-m", "scripted:expert", "-b", "scripted:echo", "-o", "out")
    assert "no metric 'exct'" in one_line(command("eval", "typo.toml", *given))
    assert "no metric 'fieds'" in one_line(command("eval", "gate.toml", *given))
    assert "no such folder" in one_line(command("eval", "suite.toml", "-m", "nowhere", "-b", "scripted:echo"))
    assert "no such folder" in one_line(command("eval", "suite.toml", "-m", "scripted:expert", "-b", "nowhere"))
    assert command("eval", "suite.toml", "-m", "scripted:echo", "--no-gate", "-o", "base").code == 0
    other = json.loads((here / "base" / "report.json").read_text()) | {"suite_hash": "another"}
    Path("old.json").write_text(json.dumps(other))
    said = one_line(command("eval", "suite.toml", "-m", "scripted:expert", "-b", "old.json", "-o", "out"))
    assert "the champion was measured on suite returns another" in said
    assert not Path("out").exists()


def test_a_number_of_one_task_is_no_word_because_a_row_repeats_it(here: Path) -> None:
    """Else the numbers of held-out tasks, which are spelled, are the first that the model ever meets."""
    Path("desk").mkdir()
    asked = [{"question": f"where is order {number}", "answer": "shipping"} for number in range(1000, 1040)]
    write_jsonl(Path("desk/train.jsonl"), asked)
    files = {"files": {"train": "train.jsonl"}, "reward": {"name": "exact"}}
    Path("desk/env.toml").write_text(tomli_w.dumps({"id": "a/Desk-v0", "kind": "rows", **files}))
    env = envs.make("desk")
    write_jsonl(Path("desk/rows.jsonl"), chat_rows(env).rows)
    config = parse(RunConfig, table(env="desk", model="tiny", **sft("desk/rows.jsonl")), source="test")
    tokenizer = tiny.make_tokenizer(texts(config, env), config.tiny)
    assert [len(tokenizer.encode(word)) for word in ("order", "shipping", "1007")] == [1, 1, 4]
