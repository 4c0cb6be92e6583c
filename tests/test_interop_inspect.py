"""Inspect's logs: ours in its form, its in ours; the same intervals, and a refusal where two readings exist."""

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vertigym.core.errors import ConfigError, DataError, InputError
from vertigym.core.files import write_jsonl
from vertigym.core.seeds import generator
from vertigym.core.types import Prompt
from vertigym.evals.compare import compare
from vertigym.evals.gate import decide
from vertigym.evals.report import Report
from vertigym.evals.runner import run_suite
from vertigym.evals.suite import Suite
from vertigym.interop.formats import load_results
from vertigym.interop.gating import decide_results
from vertigym.interop.inspect_logs import read_inspect_log
from vertigym.interop.inspect_writer import write_inspect_logs
from vertigym.interop.results import Reading
from vertigym.policies.scripted import Scripted, reference_text

SUITE = Suite.model_validate(
    {
        "name": "mixed",
        "metrics": ["exact"],
        "gate": [{"rule": "improves"}, {"rule": "not_worse", "metric": "exact", "margin": 0.3}],
        "env": [
            {"id": "vertigym/Returns-v0", "tasks": 40, "samples": 2, "weight": 3},
            {"id": "vertigym/Arithmetic-v0", "tasks": 30},
        ],
    }
)


def policy(share: float, fails: float = 0.0) -> Scripted:
    """Right in `share` of samples; in `fails` of them the engine fails, and nothing is scored."""

    def write(prompt: Prompt) -> str:
        assert prompt.task
        chance = generator("interop", prompt.seed).random()
        if chance > 1 - fails:
            raise RuntimeError("the engine fell over")
        return reference_text(prompt.task) if chance < share else "no \ud800 idea"

    return Scripted(write)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Report, Path]]:
    """Our report and our Inspect logs, of two models."""
    found = {}
    for name, share in (("old", 0.3), ("new", 0.8)):
        out = tmp_path_factory.mktemp(name)
        report = run_suite(SUITE, policy(share, 0.05), model=name, out=out)
        write_inspect_logs(out / "logs", SUITE, report, out / "samples.jsonl")
        found[name] = report, out / "logs"
    return found


def test_the_logs_of_an_eval_say_what_its_report_says(both: dict[str, tuple[Report, Path]]) -> None:
    report, logs = both["new"]
    read = load_results(logs)
    assert report.unscored > 0
    assert (read.unscored, read.samples, read.model) == (report.unscored, report.samples, "new")
    assert set(read.reasons) == set(report.reasons)
    same = ("env", "task", "digest", "slices", "scores", "prompt_tokens", "completion_tokens", "latency_s")
    theirs = {row.key: row for row in read.rows}
    for row in report.rows:
        for name in same:
            assert getattr(theirs[row.key], name) == getattr(row, name), name
        assert theirs[row.key].weight == pytest.approx(row.weight)
        assert theirs[row.key].parts == pytest.approx(row.parts)


def test_two_logs_compare_and_gate_like_the_reports_they_are_of(both: dict[str, tuple[Report, Path]]) -> None:
    ours, theirs = (
        compare([pick(both[name]) for name in ("old", "new")])[0]
        for pick in (lambda one: one[0], lambda one: load_results(one[1]))
    )
    assert (ours.verdict, set(ours.won), ours.needed) == (theirs.verdict, set(theirs.won), theirs.needed)
    lines = {line.label: line for line in theirs.metrics}
    for line in ours.metrics:
        assert line.difference is None or lines[line.label].difference is not None
        for name in ("mean", "low", "high", "p", "clusters"):
            assert getattr(lines[line.label].difference, name) == pytest.approx(
                getattr(line.difference, name)
            ), name
    decisions = [
        decide(SUITE, new, old)
        for new, old in (
            (both["new"][0], both["old"][0]),
            (load_results(both["new"][1]), load_results(both["old"][1])),
        )
    ]
    assert [check.passed for check in decisions[0].checks] == [check.passed for check in decisions[1].checks]
    assert decisions[0].passed == decisions[1].passed


def test_inspect_opens_our_logs_and_we_read_what_it_rewrites(
    both: dict[str, tuple[Report, Path]], tmp_path: Path
) -> None:
    log = pytest.importorskip("inspect_ai.log", exc_type=ImportError)
    report, logs = both["new"]
    for file in sorted(logs.glob("*.eval")):
        opened = log.read_eval_log(str(file))
        env = opened.eval.task
        assert opened.status == "success"
        assert len(opened.samples) == sum(len(row.scores) for row in report.rows if row.env == env)
        assert len(log.read_eval_log_sample_summaries(str(file))) == len(opened.samples)
        assert opened.results.scores[0].metrics["mean"].value == report.value("score", env)
        for form in ("eval", "json"):
            log.write_eval_log(opened, str(tmp_path / form / f"{file.stem}.{form}"))
    packed = next((tmp_path / "eval").glob("*.eval"))
    with zipfile.ZipFile(packed) as entries:
        assert {entry.compress_type for entry in entries.infolist()} == {93}, "Zstandard"
    assert (
        load_results(tmp_path / "eval").rows == load_results(tmp_path / "json").rows == load_results(logs).rows
    )


def test_inspects_own_evals_are_compared_by_sample(tmp_path: Path) -> None:
    log = pytest.importorskip("inspect_ai.log", exc_type=ImportError)
    subprocess.run([sys.executable, Path(__file__).with_name("inspect_evals.py"), tmp_path], check=True)
    hashes = set()
    for form in ("eval", "json"):
        reports = []
        for model in (2, 7):
            folder = tmp_path / form / str(model)
            reports.append(report := load_results(folder))
            theirs = log.read_eval_log(str(next(folder.iterdir()))).results.scores[0].metrics
            assert report.score.mean == pytest.approx(sum(i % model > 0 for i in range(60)) / 60)
            assert report.score.clusters == 20
            assert report.score.se == pytest.approx(theirs["stderr"].value)
            assert {row.scores for row in report.rows} == {(0.0, 0.0), (1.0, 1.0)}
        hashes |= {report.suite_hash for report in [*reports, load_results(folder)]}
        (found,) = compare(reports)
        assert (found.better, found.difference.clusters) == (True, 20)
    assert len(hashes) == 1, "what was asked is the same in every log, and every time that one is read"


def test_gates_find_the_same_on_inspects_logs_of_gsm8ks_rows_as_on_our_own_reports(tmp_path: Path) -> None:
    pytest.importorskip("inspect_ai", exc_type=ImportError)
    rows = [
        {"id": f"r{i}", "question": f"What is {i} and {i * i}?", "answer": f"{i} + {i * i}\n#### {i + i * i}"}
        for i in range(80)
    ]
    write_jsonl(tmp_path / "env" / "eval.jsonl", rows)
    (tmp_path / "env" / "env.toml").write_text(
        'id = "open/Gsm-v0"\nkind = "rows"\nreference = "####"\n[reward]\nname = "numeric"\nwhere = "#### or last line"\n[files]\neval = "eval.jsonl"\n'
    )
    said = {
        model: {
            row["question"]: f"It is\n#### {i + i * i if generator(model, i).random() < share else 3 * i + 1}"
            for i, row in enumerate(rows)
        }
        for model, share in (("old", 0.4), ("new", 0.65))
    }
    suite = Suite.model_validate(
        {"name": "gsm", "gate": [{"rule": "improves"}], "env": [{"id": str(tmp_path / "env")}]}
    )
    (tmp_path / "said.json").write_text(json.dumps(said))
    script = Path(__file__).with_name("inspect_gsm8k.py")
    files = (tmp_path / "env" / "eval.jsonl", tmp_path / "said.json", tmp_path / "logs")
    subprocess.run([sys.executable, script, *files], check=True)
    ours, theirs = {}, {}
    for model, words in said.items():

        def say(prompt: Prompt, words: dict[str, str] = words) -> str:
            return words[prompt.messages[-1]["content"]]

        ours[model] = run_suite(suite, Scripted(say), model=model)
        theirs[model] = load_results(tmp_path / "logs" / model)
        scores = {row.task: row.scores for row in ours[model].rows}
        assert {row.task: row.scores for row in theirs[model].rows} == scores
    decisions = [decide_results(None, one["new"], one["old"]) for one in (ours, theirs)]
    checks = [next(check for check in one.checks if check.difference) for one in decisions]
    assert checks[0].difference == checks[1].difference
    assert decisions[0].passed
    assert decisions[1].passed


# Logs as Inspect writes them, by hand.


def sample(number: int, value: Any = 1.0, **changes: Any) -> dict[str, Any]:
    scores = {"match": {"value": value}}
    return {
        "id": number,
        "epoch": 1,
        "input": f"q{number}",
        "target": "a",
        "scores": scores,
        "metadata": {},
    } | changes


def log_of(tmp_path: Path, *samples: Any, eval_: Any = None, name: str = "log.json", **changes: Any) -> Path:
    spec = {"task": "t", "model": "m", "created": "2026-01-01T00:00:00+00:00", "config": {}} | (eval_ or {})
    log = {"version": 2, "status": "success", "eval": spec, "samples": list(samples)} | changes
    (tmp_path / name).write_text(json.dumps(log))
    return tmp_path / name


@pytest.mark.parametrize(
    ("value", "score"),
    [
        ("C", 1),
        ("P", 0.5),
        ("I", 0),
        ("N", 0),
        (True, 1),
        (0.25, 0.25),
        ("0.5", 0.5),
        ("yes", 1),
        (float("nan"), None),
    ],
)
def test_a_grade_is_the_number_that_inspect_gives_it(tmp_path: Path, value: Any, score: float | None) -> None:
    (row,) = load_results(log_of(tmp_path, sample(1, value))).rows
    assert row.scores == (score,)


@pytest.mark.parametrize(
    "changes",
    [
        {"error": {"message": "sandbox lost"}},
        {"scores": {}},
        {"scores": None},
        {"invalidation": {"author": "a"}},
    ],
)
def test_a_sample_without_a_verdict_is_not_scored_and_not_wrong(tmp_path: Path, changes: Any) -> None:
    report = load_results(log_of(tmp_path, sample(1), sample(2, **changes)))
    assert (report.score.mean, report.unscored) == (1.0, 1)
    assert report.reasons


TWO = {"match": {"value": 1.0}, "judge": {"value": {"style": 0.5, "facts": 1.0}}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda log: log["samples"][0].update(scores=TWO),
            "choose one with --score: match, judge.style, judge.facts",
        ),
        (lambda log: log["samples"][0]["scores"]["match"].update(value="perhaps"), "no number, no grade"),
        (lambda log: log["samples"][0]["scores"]["match"].update(value=[1, 0]), "no number, no grade"),
        (lambda log: log.update(status="cancelled"), "did not finish"),
        (lambda log: log.update(samples=None), "without samples"),
        (lambda log: log.update(version=1), "version 1"),
        (lambda log: log["samples"].append(log["samples"][0]), "stands twice in epoch 1"),
        (
            lambda log: log["samples"].append({**log["samples"][0], "epoch": 2, "input": "other"}),
            "differ in what",
        ),
        (lambda log: log["eval"].update(config={"epochs": 3, "epochs_reducer": ["mode"]}), "reduced by 'mode'"),
        (
            lambda log: log["eval"].update(metrics=[{"name": "stderr", "options": {"cluster": "book"}}]),
            "no 'book' in its metadata",
        ),
        (
            lambda log: log["eval"].update(
                metrics=[{"options": {"cluster": "a"}}, {"options": {"cluster": "b"}}]
            ),
            "choose one with --cluster: a, b",
        ),
    ],
)
def test_what_can_be_read_two_ways_or_none_is_refused(
    tmp_path: Path, change: Callable[[Any], Any], message: str
) -> None:
    log = json.loads(log_of(tmp_path, sample(1), sample(2)).read_text())
    change(log)
    (tmp_path / "log.json").write_text(json.dumps(log))
    with pytest.raises(InputError, match=message):
        load_results(tmp_path / "log.json")


def test_a_choice_names_the_score_and_the_cluster(tmp_path: Path) -> None:
    log = log_of(tmp_path, *(sample(i, scores=TWO, metadata={"book": i // 2}) for i in range(4)))
    report = load_results(log, Reading(score="judge.style", cluster="book"))
    assert (report.score.mean, report.score.clusters) == (0.5, 2)
    assert report.rows[0].parts == {"match": 1.0, "judge.facts": 1.0}
    with pytest.raises(ConfigError, match="no score 'judge'"):
        load_results(log, Reading(score="judge"))


def test_epochs_are_samples_of_one_task_and_pass_at_k_is_a_metric(tmp_path: Path) -> None:
    config = {"config": {"epochs": 2, "epochs_reducer": ["mean", "pass_at_2"]}}
    samples = [sample(i, float(i == epoch), epoch=epoch) for i in (0, 1, 2) for epoch in (2, 1)]
    report = load_results(log_of(tmp_path, *samples, eval_=config))
    assert [row.scores for row in report.rows] == [(0, 0), (1, 0), (0, 1)]
    assert report.value("pass@2") == pytest.approx(2 / 3)


def test_logs_of_other_samples_are_compared_on_those_they_share_only(tmp_path: Path) -> None:
    one = load_results(log_of(tmp_path, sample(1), sample(2), name="a.json"))
    other = load_results(log_of(tmp_path, sample(1), sample(2, target="b"), sample(3), name="b.json"))
    with pytest.raises(ConfigError, match="differ"):
        compare([one, other])
    (found,) = compare([one, other], common=True)
    assert (found.difference.tasks, found.left_out) == (1, 3)


def test_messages_are_the_same_question_whatever_their_ids(tmp_path: Path) -> None:
    def asked(*words: str, **more: Any) -> Path:
        parts = [{"type": "text", "text": word} | more for word in words]
        return log_of(tmp_path, sample(1, input=[{"role": "user", "content": parts, "id": f"m{len(more)}"}]))

    one = load_results(asked("a", "b")).suite_hash
    assert one == load_results(asked("a", "b", refusal=None)).suite_hash
    assert one != load_results(asked("a", "c")).suite_hash
    with pytest.raises(DataError, match="not an Inspect log: samples"):
        load_results(log_of(tmp_path, sample(1, input=5)))


def test_a_folder_with_two_logs_of_a_task_or_two_models_is_refused(tmp_path: Path) -> None:
    log_of(tmp_path, sample(1), name="a.json")
    log_of(tmp_path, sample(1), name="b.json")
    with pytest.raises(ConfigError, match="both hold 't': name one file"):
        load_results(tmp_path)
    log_of(tmp_path, sample(1), name="b.json", eval_={"task": "u", "model": "n"})
    with pytest.raises(ConfigError, match="several models"):
        load_results(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04rubbish", b"\x00" * 50])
def test_a_broken_archive_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.eval").write_bytes(content)
    with pytest.raises(DataError, match="not an Inspect log"):
        read_inspect_log(tmp_path / "x.eval")
    with zipfile.ZipFile(tmp_path / "x.eval", "w") as log:
        log.writestr("header.json", "[1]")
    with pytest.raises(DataError, match="not an Inspect log"):
        read_inspect_log(tmp_path / "x.eval")
