"""Results of lm-eval and verifiers as reports, and gates over results that are there already."""

import json
from pathlib import Path
from typing import Any

import pytest

from vertigym.core.errors import ConfigError, DataError
from vertigym.evals.compare import compare
from vertigym.evals.metrics import Row
from vertigym.interop.formats import load_results
from vertigym.interop.gating import decide_results
from vertigym.interop.results import Reading

from .conftest import CommandLine
from .test_cli import one_line


def written(file: Path, rows: list[Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


# A line as lm-eval 0.4.13 writes it.


def document(number: int, value: Any, filter_: str = "none", **more: Any) -> dict[str, Any]:
    return {
        "doc_id": number, "doc": {"q": f"What is {number}+1?", "topic": f"t{number % 10}"}, "target": str(number + 1),
        "arguments": {"gen_args_0": {"arg_0": "What?", "arg_1": {"until": ["\n"]}}}, "resps": [["2"]],
        "filtered_resps": ["2"], "filter": filter_, "metrics": ["exact_match", *more], "doc_hash": "ae", "prompt_hash": "47",
        "target_hash": "6b", "exact_match": value, **more,
    }  # fmt: skip


def lm_eval(folder: Path, values: list[Any], model: str = "m", **more: Any) -> Path:
    rows = [document(number, value, **more) for number, value in enumerate(values)]
    return written(folder / model / "samples_plus_one_2026-11-29T01-41-20.801259.jsonl", rows)


def test_samples_of_lm_eval_are_compared_by_document(tmp_path: Path) -> None:
    old = load_results(lm_eval(tmp_path, [float(i % 4 == 0) for i in range(80)], "old"))
    new = load_results(lm_eval(tmp_path, [float(i % 4 > 0) for i in range(80)], "new").parent)
    assert (old.model, old.suite, new.started) == ("old", "plus_one", "2026-11-29T01-41-20.801259")
    (found,) = compare([old, new])
    assert found.better is True
    assert found.difference.mean == pytest.approx(0.5)
    assert (len(found.won), len(found.lost)) == (60, 20)
    clustered = load_results(tmp_path / "old", Reading(cluster="topic"))
    assert clustered.score.clusters == 10
    assert clustered.score.mean == old.score.mean
    assert clustered.rows[0].latency_s == (), "nobody measured"
    assert Row.model_validate(clustered.rows[0].model_dump()) == clustered.rows[0]


def test_a_filter_or_a_metric_too_many_is_a_choice(tmp_path: Path) -> None:
    rows = [document(i, float(i > j), name) for j, name in enumerate(("strict", "flexible")) for i in range(3)]
    file = written(tmp_path / "samples_a_x.jsonl", rows)
    with pytest.raises(ConfigError, match="choose one with --score: exact_match,strict, exact_match,flexible"):
        load_results(file)
    assert load_results(file, Reading("exact_match,strict")).score.mean == pytest.approx(2 / 3)
    assert load_results(file, Reading("exact_match,flexible")).score.mean == pytest.approx(1 / 3)
    two = load_results(lm_eval(tmp_path, [1.0, 0.0], f1=0.5, bleu=[1, 2]), Reading("f1,none"))
    assert two.score.mean == 0.5
    assert two.rows[0].parts == {"exact_match,none": 1.0}
    with pytest.raises(ConfigError, match="better when it is less"):
        load_results(lm_eval(tmp_path, [1.0], brier_score=0.3), Reading("brier_score,none"))


def test_a_value_that_is_no_number_is_not_scored(tmp_path: Path) -> None:
    report = load_results(lm_eval(tmp_path, [1.0, float("nan"), None, 0.0]))
    assert (report.score.mean, report.unscored) == (0.5, 2)
    with pytest.raises(DataError, match="no sample has a score"):
        load_results(lm_eval(tmp_path, [[1, 2], "x"]))


# An episode as verifiers 0.4.0 writes it, without what is not read.


def episode(number: int, score: float | None, **changes: Any) -> dict[str, Any]:
    reward = None if score is None else {"score": score, "weight": 2.0}
    trace = {
        "agent": {"name": "agent", "config": {"model": "m"}}, "ok": score is not None, "errors": [], "metrics": {"turns": 1.0},
        "rewards": {"exact": reward, "short": {"score": 1.0, "weight": -0.5}},
        "calls": [{"usage": {"prompt_tokens": 3, "completion_tokens": 1}}, {"usage": {"prompt_tokens": 5, "completion_tokens": 2}}],
        "timing": {"agent": {"start": 10.0, "end": 12.5}},
    } | changes  # fmt: skip
    if score is None:
        trace["errors"] = [{"type": "TaskError", "message": "scoring: RuntimeError: died\nTraceback"}]
    data = {"idx": number, "id": f"t{number}", "prompt": f"say {number}", "book": f"b{number % 2}"}
    return {
        "id": "e",
        "env": {"id": "acme"},
        "task": {"data": data},
        "ok": trace["ok"],
        "errors": [],
        "traces": [trace],
    }


def test_episodes_of_verifiers_are_samples_of_their_task(tmp_path: Path) -> None:
    rows = [episode(number, score) for number, score in ((0, 1.0), (1, 0.0), (0, 0.0), (1, None))]
    report = load_results(written(tmp_path / "traces.jsonl", rows).parent)
    assert [row.scores for row in report.rows] == [(1.5, -0.5), (-0.5, None)]
    assert report.reasons == {"scoring: RuntimeError: died": 1}
    assert report.rows[0].parts == {"turns": 1.0, "exact": 0.5, "short": 1.0}
    assert (report.rows[0].prompt_tokens, report.rows[0].completion_tokens) == ((8, 8), (3, 3))
    assert report.rows[0].latency_s == (2.5, 2.5)
    assert (report.model, report.suite) == ("m", "acme")
    chosen = load_results(tmp_path, Reading("exact", "book"))
    assert chosen.rows[0].scores == (1.0, 0.0)
    assert chosen.rows[0].cluster == "b0"


def test_episodes_of_several_agents_have_no_one_score(tmp_path: Path) -> None:
    two = episode(0, 1.0)
    two["traces"] = [
        *two["traces"],
        *episode(0, 0.0, agent={"name": "judge", "config": {"model": "m"}})["traces"],
    ]
    with pytest.raises(ConfigError, match=r"several agents \(agent, judge\)"):
        load_results(written(tmp_path / "traces.jsonl", [two]))
    with pytest.raises(DataError, match=r"traces\.jsonl:2: not an episode"):
        load_results(written(tmp_path / "traces.jsonl", [episode(0, 1.0), {"a": 1}]))


# Gates.


def test_gates_pass_and_fail_results_that_are_there(command: CommandLine, tmp_path: Path) -> None:
    lm_eval(tmp_path, [float(i % 4 == 0) for i in range(120)], "old")
    lm_eval(tmp_path, [float(i % 4 > 0) for i in range(120)], "new")
    passed = command("gate", "new", "-b", "old", "--junit", "junit.xml", "--summary", "summary.md")
    assert (passed.code, "PROMOTED" in passed.out) == (0, True), passed.err
    assert (tmp_path / "junit.xml").is_file()
    assert "promoted" in (tmp_path / "summary.md").read_text()
    failed = command("gate", "old", "-b", "new", "--json")
    assert (failed.code, json.loads(failed.out)["passed"]) == (1, False)
    (tmp_path / "gates.toml").write_text('[[gate]]\nrule = "at_least"\nthreshold = 0.6\n')
    assert command("gate", "new", "--gates", "gates.toml").code == 0
    assert command("gate", "old", "--gates", "gates.toml").code == 1
    assert "is better than" in command("compare", "old", "new").out
    assert "give a baseline" in one_line(command("gate", "new"))
    assert "no such file" in one_line(command("gate", "new", "-b", "none.eval"))
    (tmp_path / "gates.toml").write_text('[[gate]]\nrule = "at_lest"\n')
    assert "no such rule" in one_line(command("gate", "new", "--gates", "gates.toml"))


def test_a_score_beyond_its_range_shows_nothing_until_the_range_is_said(tmp_path: Path) -> None:
    file = lm_eval(tmp_path, [5.0] * 100)
    gates = tmp_path / "gates.toml"
    gates.write_text('[[gate]]\nrule = "at_least"\nthreshold = 1\n')
    assert "outside [0.0, 1.0]" in decide_results(gates, load_results(file)).reason
    gates.write_text(gates.read_text() + "[ranges]\nscore = [0, 10]\n")
    assert decide_results(gates, load_results(file)).passed


def test_an_inspect_log_is_written_where_there_are_samples_only(command: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text('name = "s"\n[[env]]\nid = "vertigym/Returns-v0"\ntasks = 5\n')
    line = ("eval", "s.toml", "-m", "scripted:expert", "--inspect-log", "logs")
    assert "--inspect-log needs -o" in one_line(command(*line))
    assert command(*line, "-o", "out").code == 0
    assert "every task scores the same in both" in command("compare", "logs", "logs").out
