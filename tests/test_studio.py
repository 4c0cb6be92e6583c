"""The studio: its views over a folder of runs, that they follow a run, what it refuses, and, where Chromium is
installed, that its pages draw, are played and can be read by everybody."""

import json
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.testclient import TestClient
from typer.testing import CliRunner

from vertigym.cli import app
from vertigym.core.errors import ConfigError, DataError
from vertigym.core.files import append_jsonl, dumps, read_jsonl, write_jsonl, write_text
from vertigym.envs.registry import make
from vertigym.reports.run_curves import MetricColumns, some_steps
from vertigym.studio import server
from vertigym.studio.run_list import RunList
from vertigym.studio.server import Studio, serve

from .browser import Page, browser
from .story_run import story_run

ROOT = Path(__file__).parents[1]
AXE = ROOT / ".cache" / "node_modules" / "axe-core" / "axe.min.js"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's folder with a run of 30 steps."""
    folder = tmp_path_factory.mktemp("project")
    story_run(folder, steps=30, evals=(0, 10, 20, 30))
    return folder


def client(folder: Path) -> TestClient:
    return TestClient(Studio(RunList(folder)).app(), base_url="http://127.0.0.1")


def asked(studio: TestClient, path: str, status: int = 200) -> Any:
    answer = studio.get(path)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_runs_stand_side_by_side_and_a_broken_one_hides_no_other(root: Path, tmp_path: Path) -> None:
    (row,) = asked(client(root), "/runs.json")["runs"]
    assert (row["name"], row["status"], row["steps"]) == ("runs/loans", "finished", "30 of 30")
    assert row["gate"]["verdict"] in ("promoted", "rejected")
    assert row["ships"] == "checkpoints/step-000020"
    assert (row["measure"], len(row["points"])) == ("reward", 30)
    for name, rows in (("fresh", '{"step": 1, "loss": 2.0}\n'), ("broken", "{]\n")):
        write_text(tmp_path / name / "config.toml", 'env = "no/Such-v0"\nsteps = 9\n')
        write_text(tmp_path / name / "metrics.jsonl", rows)
    found = {row["name"]: row for row in asked(client(tmp_path), "/runs.json")["runs"]}
    assert found["fresh"]["status"] == "under way"
    assert "broken/metrics.jsonl:1: not a row of metrics" in found["broken"]["error"]
    os.utime(tmp_path / "fresh" / "metrics.jsonl", (0, 0))
    assert asked(client(tmp_path), "/runs.json")["runs"][-1]["status"] == "stopped"


def test_a_run_is_followed_while_it_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    write_text(folder / "config.toml", "steps = 9\n")
    write_jsonl(folder / "metrics.jsonl", [{"step": 1, "reward": 0.5}])
    studio = client(tmp_path)
    first = studio.get("/run.json?name=r")
    assert first.json()["curves"][0]["points"] == [[1, 0.5, None, None]]
    again = {"If-None-Match": first.headers["ETag"]}
    assert studio.get("/run.json?name=r", headers=again).status_code == 304
    append_jsonl(folder / "metrics.jsonl", {"step": 2, "reward": 7.0})
    fresh = studio.get("/run.json?name=r", headers=again).json()
    assert fresh["curves"][0]["points"][-1] == [2, 7.0, None, None]
    assert fresh["live"] is True


def test_a_file_of_metrics_is_read_on_and_one_in_its_place_from_its_start(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    columns = MetricColumns(file)
    columns.read_on()
    assert columns.rows == 0
    write_jsonl(file, ({"step": i, "a": float(i % 10), "note": None} for i in range(1, 5001)))
    columns.read_on()
    curve = columns.curve("a", 100)
    assert len(curve) == 100
    assert curve[-1] == [5000, 4.5, 0.0, 9.0]
    with file.open("a") as opened:
        opened.write('{"step": 5001, "a": 1')  # half a row
    columns.read_on()
    assert columns.rows == 5000
    with file.open("a") as opened:
        opened.write("1}\n")
    columns.read_on()
    assert (columns.rows, columns.last("a")) == (5001, 11.0)
    write_jsonl(file, [{"step": i, "a": 0.0} for i in range(9000)])  # a resumed run, longer than before
    columns.read_on()
    assert (columns.rows, columns.last_step) == (9000, 8999)
    write_text(file, "[1]\n")
    with pytest.raises(DataError, match=r"metrics\.jsonl:1: not a row of metrics"):
        columns.read_on()


def test_of_many_steps_some_are_shown_the_shipped_one_among_them() -> None:
    assert some_steps(range(5), 3) == [0, 1, 2, 3, 4]
    many = some_steps(range(0, 2000, 10), 470)
    assert (many[0], many[-1], len(many)) == (0, 1990, 25)
    assert 470 in many
    assert 471 not in some_steps(range(0, 2000, 10), 471)


def test_evals_are_compared_task_by_task(root: Path) -> None:
    studio = client(root)
    groups = asked(studio, "/evals.json")["groups"]
    assert [(group["name"], len(group["reports"])) for group in groups] == [
        ("runs/loans/evals/loans", 4),
        ("evals", 4),
    ]
    first, last = (groups[0]["reports"][place][0] for place in (0, 2))
    of_run = asked(studio, f"/compare.json?a={first}&b={last}")
    assert of_run["verdict"]["word"] == "better"
    by_rule = next(table for table in of_run["pairs"] if table["head"][0] == "rule")
    assert any(row[0].startswith("score < 580 -> decision") for row in by_rule["rows"]), "rules in words"
    folders = asked(studio, "/compare.json?a=runs/eval-30&b=runs/eval-90")
    assert {row["outcome"] for row in folders["rollouts"]} >= {"won"}
    metrics = folders["pairs"][0]["rows"]
    assert [row[0] for row in metrics][:2] == ["score", "exact"]
    assert "tokens (less is better)" in {row[0] for row in metrics}
    for wrong in ("a=no&b=runs/eval-90", "a=runs/eval-30", f"a={root}/runs/eval-30&b=runs/eval-90"):
        assert "error" in asked(studio, f"/compare.json?{wrong}", 404)


def test_an_environment_is_played_by_hand(root: Path) -> None:
    studio = client(root)
    rows = asked(studio, "/environments.json")["environments"]
    assert rows[0]["id"] == "acme/Loan-v0"
    assert "vertigym/Returns-v0" in {row["id"] for row in rows}
    name = rows[0]["name"]
    about = asked(studio, f"/environment.json?id={name}")
    assert about["sizes"] == {"train": 60, "eval": 120, "test": 20}
    task = make(name).tasks.get(about["splits"]["eval"][0])

    def played(*actions: str, env: str = name, task: str = task.id) -> Any:
        return studio.post("/play.json", json={"id": env, "task": task, "actions": actions})

    opened = played().json()
    assert not opened["over"]
    assert opened["messages"][-1]["text"] == task.messages()[-1]["content"]
    assert "right" not in opened, "not before the answer"
    right = played(dumps(task.answer)).json()
    assert (right["over"], right["score"], right["mistakes"]) == (True, 1.0, [])
    assert right["rules"]
    assert "->" in right["rules"][0]
    wrong = played(dumps(task.answer | {"decision": "?"})).json()
    assert (wrong["score"], wrong["mistakes"]) == (0.25, ["wrong: decision"])
    assert [field["name"] for field in wrong["fields"] if not field["same"]] == ["decision"]
    assert played("<tool_call>").json()["mistakes"] == ["no JSON that can be read"]
    assert played(task="none").status_code == 404
    assert played(env="os").status_code == 404, "a module that is no environment is not imported"


def test_an_episode_of_several_turns_is_played_from_its_start_each_time(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = """
from vertigym.core.types import Score, Task
from vertigym.envs.env import Env, Turn
from vertigym.envs.tasks import TaskSet

class Count(Env):
    max_turns = 3
    def begin(self, task):
        self.said = []
        return task.messages()
    def respond(self, action):
        self.said.append(action)
        if len(self.said) == 2:
            return Turn(score=Score(None, {}, {"reason": "nobody knows"}))
        return Turn(messages=[{"role": "user", "content": "and " + action}])

def load_environment():
    return Count(TaskSet([Task(id="one", prompt="go")]))
"""
    (tmp_path / "count_env.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    write_text(tmp_path / "runs" / "r" / "config.toml", 'env = "count_env"\n')
    studio = client(tmp_path / "runs")

    def played(*actions: str) -> Any:
        return studio.post("/play.json", json={"id": "count_env", "task": "one", "actions": actions}).json()

    assert played("a")["messages"][-1]["text"] == "and a"
    over = played("b", "c", "d")
    assert (over["over"], over["score"], over["rules"]) == (True, None, [])
    assert over["evidence"]["reason"] == "nobody knows"
    assert played("a")["over"] is False, "nothing is kept of the episode before"


def test_a_decision_model_is_drawn_with_what_hits_its_rules(root: Path) -> None:
    studio = client(root)
    drawn = asked(studio, "/rules.json?id=vertigym/Returns-v0")
    nodes = {node["name"]: node for node in drawn["nodes"]}
    assert nodes["ruling"]["layer"] > nodes["window"]["layer"] > nodes["case"]["layer"] == 0
    by_id = {node["id"]: node["name"] for node in drawn["nodes"]}
    assert {("case", "window"), ("window", "late")} <= {(by_id[a], by_id[b]) for a, b in drawn["edges"]}
    rules = [rule for node in drawn["nodes"] for rule in node["rules"]]
    assert all(len(rule["tasks"]) == len(drawn["splits"]) == 3 and sum(rule["tasks"]) for rule in rules)
    covered = asked(
        studio, f"/coverage.json?id={asked(studio, '/environments.json')['environments'][0]['name']}"
    )
    assert (covered["hit"], covered["rules"], covered["refused"]) == (7, 7, 0)
    assert sum(covered["hits"].values()) == covered["cases"] == 1000
    assert (
        "not made from a decision model" in asked(studio, "/rules.json?id=vertigym/Arithmetic-v0", 404)["error"]
    )


def test_only_this_machine_is_answered_and_nothing_is_sent_elsewhere(root: Path) -> None:
    studio = client(root)
    for host, status in (
        ("localhost:8000", 200),
        ("127.0.0.1", 200),
        ("[::1]:1", 200),
        ("evil.example", 400),
        ("", 400),
    ):
        assert studio.get("/runs.json", headers={"Host": host}).status_code == status, host
    page = studio.get("/")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert page.headers["Cache-Control"] == "no-store"
    text = json.dumps({"id": "x", "task": "y"})
    assert studio.post("/play.json", content=text, headers={"Content-Type": "text/plain"}).status_code == 415
    assert (
        studio.post("/play.json", content="{}", headers={"Content-Type": "application/json"}).status_code == 400
    )
    assert studio.post("/runs.json").status_code == 405, "read-only"
    for path in ("/run?name=../../etc", "/run", "/nowhere", "/environment?id=os", "/rules?id=antigravity"):
        refused = studio.get(path)
        assert refused.status_code == 404
        assert "<title>vertigym" in refused.text, "a page that says why"


def test_what_cannot_be_served_is_refused_in_a_line(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder: name the one that your runs are in"):
        serve(tmp_path / "none")
    for host in ("0.0.0.0", "example.com", "127.0.0.2"):
        with pytest.raises(ConfigError, match="for this machine only"):
            serve(root, host=host)
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(ConfigError, match="--port names another"),
    ):
        serve(root, port=taken.getsockname()[1])


def test_one_run_is_a_studio_too(root: Path) -> None:
    studio = client(root / "runs" / "loans")
    assert [row["name"] for row in asked(studio, "/runs.json")["runs"]] == ["loans"]
    assert asked(studio, "/run.json?name=loans")["title"] == "run loans"
    empty = root / "environment" / "tasks"
    assert asked(client(empty), "/runs.json")["runs"] == []


def test_commands_open_the_folder_or_the_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(server, "serve", lambda *place, **options: calls.append((*place, options)))
    run = root / "runs" / "loans"
    for words in (["studio", str(root), "--port", "1"], ["report", str(run), "--serve", "--port", "2"]):
        assert CliRunner().invoke(app, words).exit_code == 0
    (first, whole), (second, one) = calls
    assert (first, whole["run"], whole["port"]) == (root, "", 1)
    assert (second, one["run"], one["port"]) == (run, "loans", 2)
    refused = CliRunner().invoke(app, ["report", str(root / "environment"), "--serve"])
    assert isinstance(refused.exception, DataError)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    host = uvicorn.Server(uvicorn.Config(Studio(RunList(folder)).app(), log_level="warning", ws="none"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=host.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            host.should_exit = True
            thread.join()


def faults(page: Page) -> list[str]:
    """What axe-core calls serious or critical, with everything opened; nothing where it is not installed."""
    page.ask("for (const node of [...document.querySelectorAll('details')].slice(0, 9)) node.open = true")
    if not AXE.is_file():
        return []
    page.ask(f"{AXE.read_text()};0")
    found = page.ask(
        "axe.run().then((all) => all.violations.map((one) => [one.impact, one.id, one.nodes[0].html]))"
    )
    return [f"{rule}: {where}" for impact, rule, where in found if impact in ("serious", "critical")]


@pytest.mark.slow
def test_chromium_draws_plays_and_follows(root: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(root / "runs", tmp_path / "runs")) / "loans"
    env = f"environment?id={root}/environment"
    pages = {
        "": "article",
        "run?name=runs/loans": "#rollouts",
        "evals": "form",
        "compare?a=runs/eval-30&b=runs/eval-90": "#rollouts",
        "environments": "table",
        env: "#action",
        "rules?id=vertigym/Returns-v0": ".edge",
    }
    with served(tmp_path) as address, browser() as page:
        for path, mark in pages.items():
            page.open(f"{address}/{path}", wait=mark)
            assert faults(page) == [], path
            page.open(f"{address}/{path}", width=360, wait=mark)
            assert page.ask("document.documentElement.scrollWidth") == 360, f"{path} is wider than a telephone"
        page.open(f"{address}/run?name=runs/loans", width=360, wait="#rollouts")
        light = page.ask("getComputedStyle(document.body).backgroundColor")
        page.ask("document.querySelector('header button').click()")
        assert page.ask("getComputedStyle(document.body).backgroundColor") != light
        assert faults(page) == [], "dark"

        page.open(f"{address}/{env}", wait="#action")
        page.ask("document.getElementById('action').value = '{\"decision\": \"?\"}'")
        page.ask("document.querySelector('#stage form').requestSubmit()")
        page.wait("document.querySelector('#score b')?.textContent.startsWith('score 0')")

        page.open(f"{address}/run?name=runs/loans", wait="table button")
        page.ask("document.querySelector('table button').click()")
        assert 0 < page.ask("document.querySelectorAll('.rollout').length") < 60
        assert page.ask("document.activeElement.id") == "by-rule"
        page.ask("document.querySelector('.rollout').open = true")
        last = read_jsonl(run / "metrics.jsonl")[-1]
        append_jsonl(run / "metrics.jsonl", last | {"step": 31, "reward": 4.25})
        page.wait(
            "[...document.querySelectorAll('.card')].some((card) => card.textContent.startsWith('reward 4.25'))"
        )
        assert page.ask("document.querySelectorAll('.rollout[open]').length") == 1, "what is read stays open"
        assert page.errors == []
