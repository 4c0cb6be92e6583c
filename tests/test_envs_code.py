"""The code environments: references score 1, repair shows failures, the repository's tools, hostile trees."""

from pathlib import Path
from typing import Any

import pytest

from vertigym import envs
from vertigym.core.types import SPLITS, Task
from vertigym.envs.code.repository import RepositoryEnv
from vertigym.envs.tasks import TaskSet
from vertigym.envs.tool_calls import tool_call, write_call
from vertigym.sandboxes import Level, levels

pytestmark = pytest.mark.usefixtures("sandbox")

NAMESPACED = any(row.name is Level.NAMESPACED and row.available for row in levels())
IDS = ["Functions", "Programs", "Repair", *(["Repository"] if NAMESPACED else [])]


def play(env: Any, task: Any, actions: list[str]) -> tuple[Any, str]:
    env.reset(seed=0, options={"task": task})
    for action in actions:
        observation, _, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            break
    return info["score"], observation


@pytest.mark.parametrize("name", IDS)
def test_references_score_1_and_nothing_scores_0(name: str) -> None:
    env = envs.make(f"vertigym/{name}-v0")
    for task in (task for split in SPLITS for task in env.tasks.ids(split)):
        score, _ = play(env, task, list(env.reference(env.tasks.get(task)) or []))
        assert score.value == 1, (task, score)
        assert score.evidence["forgeable"] is False
        wrong = write_call("submit") if name == "Repository" else "pass"
        score, _ = play(env, task, [wrong] * 3)
        assert score.value == 0, (task, score)
    env.close()


def test_repair_shows_the_public_failures_and_the_last_try_counts() -> None:
    env = envs.make("vertigym/Repair-v0")
    (right,) = env.reference(env.tasks.get("functions/depth")) or []
    env.reset(seed=0, options={"task": "functions/depth"})
    observation, _, over, _, _ = env.step("def depth(value): return 0")
    assert not over
    assert "1 of 2 public tests pass" in observation
    assert "expected 1, got 0" in observation
    _, reward, over, _, info = env.step(right)
    assert over
    assert (reward, info["score"].value) == (1, 1)
    score, _ = play(env, "functions/depth", ["def depth(value): return 7"] * 3)
    assert score.value == 0


def test_tool_calls_are_read_in_three_forms() -> None:
    bare = '{"name": "read", "arguments": {"path": "a"}}'
    for text in (f"I look.\n<tool_call>{bare}</tool_call>", f"```json\n{bare}\n```", bare):
        assert tool_call(text) == ("read", {"path": "a"})
    for text in ("", "[]", "{}", '{"name": 1}', "<tool_call>{</tool_call>", "[" * 10_000):
        with pytest.raises(ValueError, match="tool call"):
            tool_call(text)


@pytest.mark.skipif(not NAMESPACED, reason="no namespaces here")
def test_the_tools_of_a_repository() -> None:
    env = envs.make("vertigym/Repository-v0")
    env.reset(seed=0, options={"task": "repositories/slugs"})

    def use(name: str, **arguments: str) -> str:
        return env.step(write_call(name, **arguments))[0]

    assert "web" in use("bash", command="ls; echo to stderr >&2")
    assert "exit status 3" in use("bash", command="exit 3")
    assert "def slug" in use("read", path="web/text.py")
    assert "No such file" in use("read", path="none")
    assert "wrote" in use("edit", path="web/text.py", old="def slug", new="def slugs")
    assert "occurs 0 times" in use("edit", path="web/text.py", old="nowhere", new="x")
    assert "error" in use("edit", path="../x", old="", new="x")
    assert "no tool" in use("fly")
    assert "def slugs" in use("bash", command="cat web/text.py")
    env.close()


@pytest.mark.skipif(not NAMESPACED, reason="no namespaces here")
@pytest.mark.parametrize(
    "tree",
    [
        "class Yes:\n    def __eq__(self, other): return True\ndef slug(title): return Yes()",
        "import os\nos._exit(0)",
        "import builtins\nbuiltins.AssertionError = None\ndef slug(title): return 'x'",
        "import sys\nsys.modules['tests'] = None\ndef slug(title): raise SystemExit(0)",
    ],
)
def test_a_tree_cannot_forge_its_hidden_tests(tree: str) -> None:
    env = envs.make("vertigym/Repository-v0")
    actions = [write_call("edit", path="web/text.py", old="", new=tree), write_call("submit")]
    score, _ = play(env, "repositories/slugs", actions)
    assert score.value == 0
    env.close()


@pytest.mark.skipif(not NAMESPACED, reason="no namespaces here")
def test_a_repository_that_cannot_open_is_unscored(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task(id="t", prompt="p", info={"files": {}, "tests": {"kind": "asserts", "tests": ["assert True"]}})
    env = RepositoryEnv(TaskSet([task]))
    monkeypatch.setattr("vertigym.sandboxes.forkserver_worker.interpreter", lambda: "/bin/false")
    score, _ = play(env, "t", [write_call("submit")])
    assert score.value is None


def test_a_folder_of_kind_code(tmp_path: Path) -> None:
    (tmp_path / "env.toml").write_text(
        'id = "acme/Sums-v0"\nkind = "code"\nfiles = ["t.jsonl"]\nformat = "stdin"\nparts = { share = 1.0 }\n'
    )
    (tmp_path / "t.jsonl").write_text(
        '{"id": 1, "question": "Sum.", "input_output": {"inputs": ["1 2", "3 4"], "outputs": ["3", "0"]}}\n'
    )
    env = envs.make(str(tmp_path))
    score, _ = play(env, "1", ["```python\nprint(sum(map(int, input().split())))\n```"])
    assert score.value == 0.5
