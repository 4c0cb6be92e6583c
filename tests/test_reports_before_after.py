"""What a rule owner reads: what ships and how much better it is, rules in words, right answers beside wrong."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from vertigym import envs
from vertigym.core.files import jsonable, write_json, write_jsonl, write_text
from vertigym.core.types import Prompt, Score, Split, Trajectory
from vertigym.envs.decision.importer import import_decision
from vertigym.evals.report import Report
from vertigym.evals.runner import run_suite
from vertigym.evals.suite import Suite
from vertigym.policies.scripted import Scripted, reference_text
from vertigym.reports.before_after import answer_fields, gain_text, grouped
from vertigym.reports.run_page import run_data
from vertigym.trainer.explained_run import explain
from vertigym.trainer.run import Run

RULES = """F,score,-> decision,-> fee
1,< 500,decline,0
2,[500..700),refer,5
3,>= 700,approve,10
4,< 400,never,99
"""
SIZES: dict[Split, int] = {"train": 30, "eval": 30, "test": 30}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A recipe's run in which the first stage was promoted, and the last one promoted nothing."""
    (tmp_path / "rules.csv").write_text(RULES)
    import_decision(tmp_path / "rules.csv", "acme/Loan-v0", tmp_path / "loan", sizes=SIZES)
    suite = Suite.model_validate(
        {
            "name": "loan",
            "metrics": ["exact"],
            "env": [{"id": str(tmp_path / "loan")}],
            "gate": [{"rule": "improves"}],
        }
    )

    def decides(*known: str) -> Scripted:
        def write(prompt: Prompt) -> str:
            assert prompt.task
            right: Any = prompt.task.answer
            return (
                reference_text(prompt.task)
                if right["decision"] in known
                else '{"decision": "approve", "fee": 10}'
            )

        return Scripted(write)

    last, first = tmp_path / "runs/loan", tmp_path / "runs/loan/stages/warm-start"
    for place, model, policy in (
        (first, "tiny", decides()),
        (last, str(first / "checkpoints/step-000009"), decides("refer")),
    ):
        table = {"name": "loan", "env": str(tmp_path / "loan"), "model": model}
        write_text(place / "config.toml", tomli_w.dumps(table))
        run_suite(suite, policy, model="m").save(place / "evals/loan/step-000000.json")
    run_suite(suite, decides("refer", "decline"), model="m").save(last / "evals/loan/step-000010.json")
    write_json(
        last / "promoted.json", {"step": 10, "checkpoint": "checkpoints/step-000010", "reason": "better"}
    )
    env = envs.make(str(tmp_path / "loan"))
    task = next(t for i in env.tasks.ids("train") if (t := env.tasks.get(i)).answer["decision"] == "refer")
    messages = (*task.messages(), {"role": "assistant", "content": '{"decision": "approve", "fee": 5}'})
    trajectory = Trajectory(task.id, messages, Score(0.5), ())  # type: ignore[arg-type]
    write_jsonl(last / "rollouts/step-000010.jsonl", [jsonable(asdict(trajectory))] * 3)
    return last


def test_the_page_opens_with_what_ships_and_how_much_better_it_is_than_the_start(folder: Path) -> None:
    top = dict(run_data(folder)["top"])
    assert top["environment"].endswith("/loan")
    assert top["started from"] == "tiny", "the start of the whole recipe"
    assert top["ships"] == str(folder / "checkpoints/step-000010")
    assert top["start → shipped"].startswith("exact 0.3")
    assert "→ 1.000: +0." in top["start → shipped"]
    assert top["next"] == f"vertigym serve {folder}"
    (folder / "promoted.json").unlink()
    top = dict(run_data(folder)["top"])
    assert top["ships"] == "nothing: the champion stays"
    assert "start → last" in top
    assert "next" not in top


def test_every_rule_stands_there_in_words_before_and_after(folder: Path) -> None:
    (table,) = run_data(folder)["rules"]
    assert table["title"] == "Rules: exact · loan"
    known = {row[0]: row[1:] for row in table["rows"]}
    assert known["score < 500 -> decision 'decline', fee 0"][1:] == [0.0, 1.0]
    assert known["score >= 700 -> decision 'approve', fee 10"][1:] == [1.0, 1.0]
    assert known["score < 400 -> decision 'never', fee 99"] == ["no task", "", ""]
    assert sum(int(row[0]) for row in known.values() if row[0] != "no task") == 30
    assert table["rows"][-1][1] == "no task"
    (heat,) = run_data(folder)["heat"]
    assert {row["label"] for row in heat["rows"]} == known.keys() - {"score < 400 -> decision 'never', fee 99"}


def test_the_chart_shows_what_the_gate_is_on(folder: Path) -> None:
    (curve,) = [curve for curve in run_data(folder)["curves"] if curve["eval"]]
    assert curve["name"] == "loan: exact"
    assert [point[0] for point in curve["points"]] == [0, 10]
    assert curve["marked"] == [10]
    start = {"step": 0, "checkpoint": "checkpoints/step-000000", "reason": "an earlier stage's"}
    write_json(folder / "promoted.json", start)
    (curve,) = [curve for curve in run_data(folder)["curves"] if curve["eval"]]
    assert curve["marked"] == [0]


def test_a_wrong_rollout_has_the_right_answer_beside_it_and_stands_once(folder: Path) -> None:
    data = run_data(folder)
    (row,) = data["rollouts"]
    assert (row["count"], data["rollouts_in_all"]) == (3, 3)
    assert row["fields"] == [
        {"name": "decision", "wrote": "approve", "right": "refer", "same": False},
        {"name": "fee", "wrote": "5", "right": "5", "same": True},
    ]


def test_a_page_stands_where_the_environment_is_gone_or_broken(folder: Path) -> None:
    (folder.parents[1] / "loan").rename(folder.parents[1] / "moved")
    table = {"name": "loan", "env": str(folder.parents[1] / "gone"), "model": "tiny"}
    write_text(folder / "config.toml", tomli_w.dumps(table))
    assert explain(Run(folder)).rules == {}
    data = run_data(folder)
    assert data["rules"][0]["rows"][0][0].startswith("rules:"), "the rule's id"
    assert "fields" not in data["rollouts"][0]


@pytest.mark.parametrize(
    ("wrote", "right", "differing", "same"),
    [
        ('{"a": 1, "b": 2}', '{"a": 1.0, "b": 3}', {"b": ("2", "3")}, {"a"}),
        ('{"a": 1, "c": 2}', '{"a": 1, "b": null}', {"b": (None, "null"), "c": ("2", None)}, {"a"}),
        ('{"x": {"a": 1, "b": 2}}', '{"x": {"a": 1, "b": 3}}', {"x.b": ("2", "3")}, {"x.a"}),
        ("no JSON", '{"a": 1}', {"answer": ("no JSON", '{"a": 1}')}, set()),
        ("[1]", "[2]", {"answer": ("[1]", "[2]")}, set()),
        ("shipping ", "shipping", {}, {"answer"}),
        ("{}", '{"a": {}}', {"a": (None, "{}")}, set()),
        ("[" * 100_000, "{}", {"answer": ("[" * 100_000, "{}")}, set()),
    ],
    ids=range(8),
)
def test_answers_are_set_side_by_side(
    wrote: str, right: str, differing: dict[str, tuple[str | None, str | None]], same: set[str]
) -> None:
    found = answer_fields(wrote, right)
    assert {one["name"]: (one["wrote"], one["right"]) for one in found if not one["same"]} == differing
    assert {one["name"] for one in found if one["same"]} == same


def test_rollouts_that_differ_in_anything_a_reader_sees_are_not_one() -> None:
    row = {
        "env": "",
        "task": "t",
        "step": 1,
        "score": 0.0,
        "reason": "",
        "messages": [{"role": "user", "text": "a"}],
    }
    others = [row | {"task": "u"}, row | {"score": 0.5}, row | {"messages": [{"role": "user", "text": "b"}]}]
    assert [one["count"] for one in grouped([row, *others, row])] == [2, 1, 1, 1]


def test_a_gain_is_said_metric_by_metric(folder: Path) -> None:
    before, after = (Report.load(Run(folder).eval_file("loan", step)) for step in (0, 10))
    text = gain_text(before, after)
    assert text.startswith("exact ")
    assert text.endswith("on 30 tasks")
