"""Chat rows of an environment: the expert's, another rule book's; in every kind; and what has none."""

import json
from pathlib import Path

import pytest

from vertigym import envs
from vertigym.core.errors import ConfigError
from vertigym.core.types import Score, Split, Task
from vertigym.decisions.formats import read_model
from vertigym.envs.agent.env import load as load_agent
from vertigym.envs.agent.expert import expert_logs
from vertigym.envs.agent.importer import import_agent
from vertigym.envs.chat_rows import chat_rows
from vertigym.envs.decision.importer import import_decision
from vertigym.envs.env import Env, Turn
from vertigym.envs.folders import EnvFolder
from vertigym.envs.tasks import TaskSet

EXAMPLES = Path(__file__).parents[1] / "examples"
RETURNS = "vertigym/Returns-v0"


def answers(rows: list[dict[str, object]]) -> list[str]:
    return [row["messages"][-1]["content"] for row in rows]  # type: ignore[index]


def test_an_experts_rows_are_the_references_as_an_episode_shows_them() -> None:
    env = envs.make(RETURNS)
    found = chat_rows(env, split="eval", most=5)
    assert (len(found.rows), found.mean, found.left_out) == (5, 1.0, 0)
    for row in found.rows:
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
        json.loads(row["messages"][-1]["content"])
    assert chat_rows(env, split="eval", most=5).rows == found.rows
    assert chat_rows(env, split="eval", most=5, seed=1).rows != found.rows
    assert len(chat_rows(env, split="eval").rows) == len(env.tasks.ids("eval"))


def test_the_rules_are_shown_in_rows_where_they_are_shown_in_episodes() -> None:
    (row,) = chat_rows(envs.make(f"{RETURNS}?rules=shown"), most=1).rows
    assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant"]


def test_old_rules_answer_in_the_form_of_the_new_ones_and_are_mostly_wrong() -> None:
    env = envs.make(RETURNS)
    old, expert = (chat_rows(env, policy, most=60) for policy in ("old-rules", "expert"))
    assert old.mean is not None
    assert old.mean < 0.9
    assert [row["messages"][:-1] for row in old.rows] == [row["messages"][:-1] for row in expert.rows]
    assert {tuple(json.loads(text)) for text in answers(list(old.rows))} == {
        tuple(json.loads(text)) for text in answers(list(expert.rows))
    }


def test_a_file_of_rules_decides_and_what_it_cannot_decide_is_left_out(tmp_path: Path) -> None:
    sizes: dict[Split, int] = {"train": 60, "eval": 15, "test": 15}
    import_decision(EXAMPLES / "lender/loans.csv", "acme/Loan-v0", tmp_path / "loan", sizes=sizes)
    env = envs.make(str(tmp_path / "loan"))
    same = chat_rows(env, str(EXAMPLES / "lender/loans.csv"))
    assert same.rows == chat_rows(env).rows
    old = tmp_path / "old.csv"
    old.write_text("F,score,-> decision,-> rate\n1,< 580,refer,none\n")
    found = chat_rows(env, str(old))
    assert 0 < found.left_out < 60
    assert found.left_out + len(found.rows) == 60
    assert "old.csv cannot decide" in found.reason
    assert {json.dumps(json.loads(text)) for text in answers(list(found.rows))} == {
        '{"decision": "refer", "rate": "none"}'
    }


def test_an_agents_rows_hold_its_whole_work_and_the_tools(tmp_path: Path) -> None:
    sizes: dict[Split, int] = {"train": 6, "eval": 3, "test": 3}
    import_agent(EXAMPLES / "agent/desk.csv", "desk/Desk-v0", tmp_path / "desk", sizes=sizes)
    env = load_agent(EnvFolder(tmp_path / "desk"))
    found = chat_rows(env)
    assert (len(found.rows), found.mean) == (6, 1.0)
    assert all(row["tools"] == list(env.tools) and len(row["messages"]) > 4 for row in found.rows)
    old = EXAMPLES / "agent" / "desk-old.csv"
    assert list(chat_rows(env, str(old)).rows) == expert_logs(env, read_model(old))


class Unknown(Env):
    """Nobody knows an answer to the first task."""

    def reference(self, task: Task) -> list[str] | None:
        return None if task.id == "a" else ["yes"]

    def respond(self, action: str) -> Turn:
        return Turn(score=Score(None))


def test_tasks_without_a_reference_are_left_out_and_what_has_no_score_has_no_mean() -> None:
    tasks = [
        Task(id=name, prompt=name, split=split)
        for name, split in (("a", "train"), ("b", "train"), ("c", "eval"))
    ]
    env = Unknown(TaskSet(tasks))
    found = chat_rows(env)
    assert (len(found.rows), found.mean, found.left_out) == (1, None, 1)
    env = Unknown(TaskSet(tasks[:1]))
    with pytest.raises(
        ConfigError, match="no task of split 'train' has an answer: nobody knows their reference"
    ):
        chat_rows(env)
    with pytest.raises(ConfigError, match="no tasks in split 'test'"):
        chat_rows(env, split="test")


@pytest.mark.parametrize(
    ("env", "policy", "said"),
    [
        (RETURNS, "exprt", "policy 'exprt': no such file; it is expert, old-rules, or a file of rules"),
        ("vertigym/Arithmetic-v0", "old-rules", "is not for this kind of environment, which takes expert"),
        ("vertigym/Arithmetic-v0", "rules.csv", "is not for this kind of environment, which takes expert"),
    ],
)
def test_a_policy_that_is_none_is_refused(env: str, policy: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        chat_rows(envs.make(env), policy)
