"""The HTML page: its data, that it needs no network, that nothing a model wrote becomes markup, and, where
Chromium is installed, that it draws."""

import json
import re
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from vertigym.core.errors import DataError
from vertigym.core.files import append_jsonl, jsonable, write_json, write_jsonl, write_text
from vertigym.core.seeds import generator
from vertigym.core.types import Prompt, Score, Segment, Task, Trajectory
from vertigym.envs.env import Env, SingleTurnEnv
from vertigym.envs.tasks import TaskSet
from vertigym.evals.gate import decide
from vertigym.evals.report import Report
from vertigym.evals.runner import run_suite
from vertigym.evals.suite import Suite
from vertigym.policies.scripted import Scripted
from vertigym.reports.page import report_data, report_page
from vertigym.reports.rollout_view import Rollouts, RolloutView, calibration, from_run, lengths
from vertigym.reports.run_page import page_of, run_data, run_page
from vertigym.rewards.rubric import Rubric

NASTY = "</script><img src=x onerror=alert(1)><!-- \ud83d\ude00"
SUITE = Suite.model_validate(
    {
        "name": "echo",
        "env": [{"id": "t/Echo-v0", "name": "echo", "samples": 2}],
        "gate": [{"rule": "improves"}],
    }
)


def exact(completion: str, answer: str) -> float | None:
    return None if completion == "break" else float(completion == answer)


def make(env_id: str, **_: Any) -> Env:
    tasks = [
        Task(id=f"t{i}", prompt=NASTY, answer=f"a{i}", split="eval", info={"rules": [f"r{i % 3}"]})
        for i in range(60)
    ]
    return SingleTurnEnv(TaskSet(tasks), Rubric(exact))


def run(share: float, out: Path | None = None, model: str = "m") -> Report:
    def write(prompt: Prompt) -> str:
        assert prompt.task is not None
        if prompt.task.id == "t7":
            return "break"
        right = generator(int(prompt.task.id[1:]), "right").random() < share
        return str(prompt.task.answer) if right else NASTY

    return run_suite(SUITE, Scripted(write), make=make, out=out, model=model)


class Letters:
    """A tokenizer of one letter a token."""

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return bytes(ids).decode("utf-8", "replace")


def run_folder(folder: Path) -> Path:
    """What a run of twenty steps with two evals leaves behind."""
    reports = {step: run(share, model=f"step-{step}") for step, share in ((0, 0.4), (10, 0.8), (20, 0.3))}
    for step, report in reports.items():
        report.save(folder / "evals" / "echo" / f"step-{step:06d}.json")
    for step, champion in ((10, 0), (20, 10)):
        decision = decide(SUITE, reports[step], reports[champion])
        row = {"step": step, "verdict": decision.verdict, "reason": decision.reason}
        append_jsonl(folder / "gates.jsonl", row | {"decisions": [decision.model_dump(mode="json")]})
    for step in range(1, 21):
        append_jsonl(folder / "metrics.jsonl", {"step": step, "reward": step / 20, "note": None})
    segment = Segment((72, 105, 33), (0, 1, 1), (0.0, -0.1, -2.0))
    messages = ({"role": "user", "content": "</script>"}, {"role": "assistant", "content": "i!"})
    trajectory = Trajectory("t1", messages, Score(1.0), (segment,), completion_tokens=2, cluster="c")  # type: ignore[arg-type]
    write_jsonl(folder / "rollouts" / "step-000020.jsonl", [jsonable(asdict(trajectory)) | {"advantage": -0.5}])
    write_json(
        folder / "promoted.json", {"step": 10, "checkpoint": "checkpoints/step-000010", "reason": "better"}
    )
    write_text(folder / "config.toml", 'name = "x"\n')
    return folder


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_a_page_needs_no_network_and_nothing_written_becomes_markup(tmp_path: Path) -> None:
    report = run(0.5, tmp_path)
    page = report_page(report, samples=tmp_path / "samples.jsonl")
    assert "onerror=alert" in json.dumps(data_of(page))
    assert "<img" not in page
    assert page.count("</script>") == 2
    assert not re.search(r'(src|href)="?(https?:)?//|@import|url\(', page)


def test_the_verdict_comes_first() -> None:
    before, after = run(0.4), run(0.8)
    data = report_data(after, baseline=before, decision=decide(SUITE, after, before))
    assert data["verdict"]["word"] in ("promoted", "rejected")
    assert data["verdict"]["text"].startswith(("improves", "2 of 120"))
    assert report_data(after, baseline=before)["verdict"]["word"] == "better"
    assert report_data(after)["verdict"]["text"].startswith("score 0.")


def test_rollouts_are_won_lost_and_not_scored(tmp_path: Path) -> None:
    before, after = run(0.4), run(0.8, tmp_path)
    data = report_data(after, baseline=before, samples=tmp_path / "samples.jsonl")
    assert data["rollouts_in_all"] == 120
    first = data["rollouts"][0]
    assert (first["score"], first["count"]) == (None, 2)  # what a reader looks for first
    assert sum(row["count"] for row in data["rollouts"]) == 120
    won = {row["task"] for row in data["rollouts"] if row["outcome"] == "won"}
    assert len(won) == round((after.score.mean or 0) * 59) - round((before.score.mean or 0) * 59)
    assert data["rollouts"][5]["slices"][0].startswith("rule=r")
    (heat,) = data["heat"]
    assert heat["columns"] == ["before", "after"]
    assert heat["rows"][0]["cells"][0]["mean"] == pytest.approx(before.per_rule["r0"].mean)


def test_the_page_of_a_run_tells_its_story(tmp_path: Path) -> None:
    data = run_data(run_folder(tmp_path))
    assert data["verdict"] == {"passed": True, "word": "promoted", "text": "checkpoints/step-000010: better"}
    assert [(gate["step"], gate["verdict"]) for gate in data["gates"]][1] == (20, "rejected")
    names = {curve["name"]: curve["points"] for curve in data["curves"]}
    assert len(names["echo: score"]) == 3
    assert len(names["reward"]) == 20
    assert data["heat"][0]["marked"] == 1
    assert data["rollouts"][0]["advantage"] == -0.5
    assert data["calibration"] == [{"confidence": pytest.approx(0.35, abs=0.01), "score": 1.0, "count": 1}]
    (tmp_path / "promoted.json").unlink()
    first = run_data(tmp_path)["verdict"]
    assert first["word"] == "nothing promoted"
    assert first["text"].startswith("step 20: improves on score: worse: ")
    with pytest.raises(DataError, match=r"no config\.toml"):
        run_page(tmp_path / "elsewhere")


def test_a_path_is_a_run_an_eval_or_a_report(tmp_path: Path) -> None:
    run_folder(tmp_path / "run")
    run(0.5, tmp_path / "eval", model="x")
    report = tmp_path / "run" / "evals" / "echo" / "step-000010.json"
    assert data_of(page_of(tmp_path / "run"))["title"] == "run run"
    assert data_of(page_of(tmp_path / "eval", report))["rollouts_in_all"] == 120
    assert data_of(page_of(report))["rollouts_in_all"] == 0
    with pytest.raises(DataError, match="no such file"):
        page_of(tmp_path / "none")


def test_a_report_without_its_rows_says_the_same_of_them(tmp_path: Path) -> None:
    report, file = run(0.5), tmp_path / "report.json"
    report.save(file)
    head = Report.load(file, rows=False)
    assert head == report.model_copy(update={"rows": ()})
    file.write_text(report.model_dump_json())  # as another program might write it
    assert Report.load(file, rows=False) == report
    file.write_text('{"suite": 1,\n "rows": [')
    with pytest.raises(DataError, match="not a report: suite"):
        Report.load(file, rows=False)


def test_every_token_of_a_run_is_shown_with_its_loss_mask() -> None:
    """A tool's answer between two calls: given, not trained; a character of two tokens stays whole."""
    ids = (*b"i!i", *"é".encode(), *b"i!")
    segment = Segment(ids, (0, 1, 1, 0, 0, 1, 1), (0.0, -0.5, -0.25, 0.0, 0.0, -1.0, -2.0))
    messages = [
        {"role": "user", "content": "i"},
        {"role": "assistant", "content": "!i"},
        {"role": "tool", "content": "é"},
        {"role": "assistant", "content": "i!"},
    ]
    trajectory = Trajectory("t1", messages, Score(1.0), (segment,), completion_tokens=4)  # type: ignore[arg-type]
    (row,) = Rollouts(from_run([jsonable(asdict(trajectory))], 1), Letters()).shown()
    (runs,) = row["stream"]
    assert [(run["trained"], [piece for piece, _ in run["tokens"]]) for run in runs] == [
        (False, ["i"]),
        (True, ["!", "i"]),
        (False, ["é"]),
        (True, ["i", "!"]),
    ]
    assert [logprob for _, logprob in runs[3]["tokens"]] == [-1.0, -2.0]


def test_tokens_are_cut_where_characters_are_whole() -> None:
    ids = [105, *"é".encode(), 33]
    turn = [(token, -0.5) for token in ids]
    messages: Any = [{"role": "assistant", "content": "shot"}, {"role": "assistant", "content": "ié!"}]
    shown = RolloutView("t", "e", 1.0, {}, "", messages, [turn], 4)
    (row,) = Rollouts([shown], Letters()).shown()
    assert "tokens" not in row["messages"][0]  # an example in the prompt, not written by the policy
    assert row["messages"][1]["tokens"] == [("i", -0.5), ("é", -1.0), ("!", -0.5)]


def test_the_budget_keeps_a_page_small() -> None:
    many = [
        RolloutView(str(i), "e", 1.0, {}, "", [{"role": "user", "content": "x" * 1000}], [], 1)
        for i in range(50)
    ]
    assert 5 < len(Rollouts(many, None).shown(budget=10_000)) < 10


def test_plots_of_nothing_are_nothing() -> None:
    assert calibration([]) == []
    assert lengths([]) is None
    assert from_run([], 1) == []
    wide = lengths([RolloutView("t", "e", None, {}, "r", [], [], n) for n in (0, 5000)])
    assert wide is not None
    assert sum(wide["counts"]["not scored"]) == 2
    assert len(wide["counts"]["right"]) <= 24


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["report", "run"])
def test_chromium_draws_every_section(tmp_path: Path, kind: str) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium here")
    if kind == "run":
        page = run_page(run_folder(tmp_path))
        wanted = ["Evals", "Gates", "Score by rule", "Training", "Rollouts"]
    else:
        report = run(0.6, tmp_path)
        page = report_page(report, baseline=run(0.4), samples=tmp_path / "samples.jsonl")
        wanted = ["Score by rule", "Metrics", "Lengths and calibration", "Rollouts", "What was measured"]
    file = tmp_path / "page.html"
    file.write_text(page)
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", file.as_uri()]
    drawn = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    body = drawn.partition('<main id="page">')[2].partition("</main>")[0]
    for heading in wanted:
        assert f"<h2>{heading}" in body
    assert 'id="verdict"' in body
    assert "<img" not in body
