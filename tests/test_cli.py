"""The command line as a user meets it: output, exit codes, one-line errors, and how quickly it starts."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vertigym import __version__

from . import returns
from .conftest import CommandLine, Ended

SUITE = returns.suite(12)
IMPROVES = '[[gate]]\nrule = "improves"\nmetric = "exact"\n'
THRESHOLD = '[[gate]]\nrule = "at_least"\nthreshold = 0.5\nmetric = "exact"\n'


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "suite.toml"
    path.write_text(SUITE)
    return path


def one_line(result: Ended) -> str:
    """The error of a command that could not run."""
    assert result.code == 2, result
    assert result.err.count("\n") == 1, result.err
    assert "Traceback" not in result.err
    return result.err


def test_help_names_every_command(command: CommandLine) -> None:
    result = command("--help")
    assert result.code == 0
    for name in ("train", "eval", "compare", "rebase", "report", "env", "sandbox"):
        assert name in result.out


def test_importing_the_package_and_asking_for_help_loads_no_torch() -> None:
    code = (
        "import sys, vertigym, vertigym.cli; sys.argv = ['vertigym', '--help']\n"
        "try: vertigym.cli.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'gymnasium', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_env_list_and_show(command: CommandLine) -> None:
    listed = json.loads(command("env", "list", "--json").out)
    assert "vertigym/Returns-v0" in {row["id"] for row in listed}
    assert "vertigym/Returns-v0" in command("env", "list").out
    shown = command("env", "show", "vertigym/Returns-v0")
    assert shown.code == 0
    assert "1200 train" in shown.out
    assert "[reference answer of" in shown.out
    data = json.loads(command("env", "show", "vertigym/Returns-v0", "--json").out)
    assert data["tasks"]["eval"] == 300


def test_env_list_has_what_is_ours_before_what_packages_bring(command: CommandLine) -> None:
    Path("environments/z").mkdir(parents=True)
    Path("environments/z/env.toml").write_text('id = "zoo/Z-v0"\nkind = "rows"\n')
    listed = [(row["id"], row["source"]) for row in json.loads(command("env", "list", "--json").out)]
    assert listed[0] == ("zoo/Z-v0", "environments/z")
    sources = [source for _, source in listed[1:]]
    assert sources == sorted(sources, key=lambda source: source != "vertigym")


def test_env_show_takes_a_split_or_a_task(command: CommandLine) -> None:
    name = "vertigym/Returns-v0"
    shown = [
        json.loads(command("env", "show", name, "--json", *more).out)["example"]["task"]
        for more in ([], ["--split", "test"])
    ]
    assert [task["split"] for task in shown] == ["train", "test"]
    again = command("env", "show", name, "--json", "--task", shown[1]["id"])
    assert json.loads(again.out)["example"]["task"] == shown[1]
    assert "unknown task 'nope'" in one_line(command("env", "show", name, "--task", "nope"))


def test_the_version_names_what_it_stands_on(command: CommandLine) -> None:
    said = command("--version")
    assert (said.code, command("-h").code) == (0, 0)
    for name in (f"vertigym {__version__}", "Python 3.", "torch ", "transformers "):
        assert name in said.out


def test_an_unknown_environment_says_where_it_was_looked_for(
    command: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VERTIGYM_PATH", "ours")
    said = one_line(command("env", "show", "nobodys/Own-v0"))
    assert "Looked among the built-in ones, installed packages, folders under ./environments and ours" in said


def test_an_unknown_environment_suggests_the_right_one(command: CommandLine) -> None:
    for wrong in ("vertigym/Return-v0", "returns", "acme/Returns-v3"):
        assert "did you mean 'vertigym/Returns-v0'" in one_line(command("env", "show", wrong))


def test_a_decision_model_becomes_an_environment_that_is_found_by_id_and_by_folder(
    command: CommandLine,
) -> None:
    from vertigym.envs.decision.builtin import RETURNS, folder_of

    source = folder_of(RETURNS) / "decision.json"
    made = command("env", "import", source, "--id", "acme/Returns-v0", "--rules", "hidden")
    assert made.code == 0, made.err
    assert "18 of 18 hit" in made.out
    for name in ("acme/Returns-v0", "environments/returns"):
        assert "acme/Returns-v0" in command("env", "show", name).out
    assert "acme/Returns-v0" in command("env", "list").out


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not JSON"), ("[]", "model"), ('{"nodes": [], "edges": []}', "cannot load")],
)
def test_a_broken_decision_file_is_one_line(
    command: CommandLine, tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "bad.json"
    file.write_text(text)
    result = one_line(command("env", "import", file, "--id", "acme/Bad-v0"))
    assert message in result
    assert not (tmp_path / "environments").exists()
    assert "no such file" in one_line(command("env", "import", "none.json", "--id", "acme/Bad-v0"))
    assert "namespace/Name-v0" in one_line(command("env", "import", file, "--id", "bad"))


def test_eval_passes_and_fails_by_its_gates(command: CommandLine, suite: Path, tmp_path: Path) -> None:
    assert command("eval", suite, "-m", "scripted:expert").code == 0, "no gates: nothing to fail"
    suite.write_text(SUITE + THRESHOLD)
    passed = command("eval", suite, "-m", "scripted:expert")
    assert (passed.code, "PROMOTED" in passed.out) == (0, True)
    failed = command("eval", suite, "-m", "scripted:constant:{}")
    assert (failed.code, "REJECTED" in failed.out) == (1, True)


def test_eval_against_a_baseline_writes_what_ci_reads(
    command: CommandLine, suite: Path, tmp_path: Path
) -> None:
    suite.write_text(SUITE + IMPROVES)
    base = command("eval", suite, "-m", "scripted:constant:{}", "-b", "scripted:constant:{}", "-o", "base")
    assert base.code == 1
    measured = command("eval", suite, "-m", "scripted:constant:{}", "--no-gate", "-o", "measured")
    assert (measured.code, (tmp_path / "measured" / "report.json").is_file()) == (0, True)
    files = ["--junit", "junit.xml", "--summary", "summary.md", "--json", "all.json"]
    better = command("eval", suite, "-m", "scripted:expert", "-b", "base", *files)
    assert better.code == 0, better.err
    assert "<testsuite" in (tmp_path / "junit.xml").read_text()
    assert "promoted" in (tmp_path / "summary.md").read_text()
    written: dict[str, Any] = json.loads((tmp_path / "all.json").read_text())
    assert written["decision"]["passed"] is True
    out = json.loads(command("eval", suite, "-m", "scripted:expert", "-b", "base", "--json", "-").out)
    assert out["report"]["suite"] == "returns"


def test_an_eval_that_cannot_run_is_one_line(command: CommandLine, suite: Path) -> None:
    assert "no such folder" in one_line(command("eval", suite, "-m", "no/model"))
    assert "no such file" in one_line(command("eval", "none.toml", "-m", "scripted:expert"))
    assert "did you mean 'expert'" in one_line(command("eval", suite, "-m", "scripted:exprt"))
    assert "either -m MODEL" in one_line(command("eval", suite))
    assert "--resume needs -o" in one_line(command("eval", suite, "-m", "scripted:expert", "--resume"))
    suite.write_text(SUITE + IMPROVES)
    assert "name one with -b" in one_line(command("eval", suite, "-m", "scripted:expert"))
    suite.write_text(SUITE.replace("[[env]]", "[[envs]]"))
    assert "unknown key 'envs'; did you mean 'env'" in one_line(command("eval", suite, "-m", "scripted:expert"))
    suite.write_text(SUITE.replace("Returns", "Retturns"))
    assert "did you mean" in one_line(command("eval", suite, "-m", "scripted:expert"))


def test_compare_puts_the_verdict_into_words(command: CommandLine, suite: Path) -> None:
    for name, model in (("a", "scripted:constant:{}"), ("b", "scripted:expert")):
        assert command("eval", suite, "-m", model, "-o", name).code == 0
    result = command("compare", "a", "b")
    assert result.code == 0
    assert "is better than" in result.out
    assert json.loads(command("compare", "a", "b", "--json").out)["better"] is True


def test_saved_samples_are_scored_again_without_a_model(command: CommandLine, suite: Path) -> None:
    assert command("eval", suite, "-m", "scripted:expert", "-o", "a").code == 0
    again = command("eval", suite, "--rescore", "a/samples.jsonl", "--json", "-")
    assert again.code == 0, again.err
    assert json.loads(again.out)["report"]["score"]["mean"] == 1.0


def test_rebase_answers_in_a_sentence(command: CommandLine, suite: Path) -> None:
    result = command("rebase", suite, "--new-base", "scripted:constant:{}", "--tuned", "scripted:expert")
    assert result.code == 0, result.err
    assert result.out.startswith("keep the tuned model: ")
    given = ("--new-base", "scripted:expert", "--tuned", "scripted:expert")
    undecided = command("rebase", suite, *given)
    assert (undecided.code, undecided.out[:11]) == (1, "cannot tell"), "twelve tasks cannot show two points"
    assert "--train needs --config" in one_line(command("rebase", suite, *given, "--train"))


def test_the_sandbox_doctor_names_every_level(command: CommandLine) -> None:
    result = command("sandbox", "doctor", "--json")
    assert {row["name"] for row in json.loads(result.out)} >= {"namespaced", "landlock", "docker"}
    assert "landlock" in command("sandbox", "doctor").out


def test_what_runs_in_one_process_is_refused_to_several(
    command: CommandLine, suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
    for size, refused in (("2", True), ("1", False)):
        monkeypatch.setenv("WORLD_SIZE", size)
        for words in (("eval", suite, "-m", "nowhere"), ("env", "show", "nowhere")):
            assert ("runs in one process, and torchrun started 2" in one_line(command(*words))) == refused
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR")
    assert "nowhere" in one_line(command("env", "show", "nowhere")), (
        "some other WORLD_SIZE: no launcher of ranks"
    )


CONFIG = """
name = "run"
env = "vertigym/Returns-v0"
model = "tiny"
algorithm = "grpo"
steps = 1
tiny = { hidden = 16, layers = 1, heads = 2, key_heads = 2, ffn = 16 }
rollout = { tasks = 2, group_size = 2, max_tokens = 8 }
eval = { suites = ["suite.toml"] }
"""


def test_train_report_and_their_errors(command: CommandLine, suite: Path, tmp_path: Path) -> None:
    suite.write_text(SUITE + IMPROVES)
    config = tmp_path / "run.toml"
    config.write_text(CONFIG)
    dry = command("train", config, "--dry-run")
    assert dry.code == 0, dry.err
    assert not (tmp_path / "runs").exists()
    trained = command("train", config, "threads=1")
    assert trained.code == 1, trained.err
    assert "promoted: none; the champion stays" in trained.out
    shown = command("report", "runs/run")
    assert "step" in shown.out
    assert json.loads(command("report", "runs/run", "--json").out)["steps"] == 1
    base, tuned = (f"runs/run/checkpoints/step-00000{step}" for step in (0, 1))
    again = command(
        "rebase", suite, "--new-base", base, "--tuned", tuned, "--config", config, "--train", "--json"
    )
    assert again.code in (0, 1), again.err
    assert len(json.loads(again.out)["comparisons"]) == 3
    assert (tmp_path / "runs" / "rebase-step-000000" / "metrics.jsonl").is_file()
    assert command("report", "runs/run", "-o", "page.html").code == 0
    assert "<html" in (tmp_path / "page.html").read_text()
    assert "already holds a run" in one_line(command("train", config))
    assert "'rollout.task'; did you mean 'tasks'" in one_line(command("train", config, "rollout.task=3"))
    assert "the form is key=value" in one_line(command("train", config, "steps"))
    assert "no such folder" in one_line(command("train", config, "name=b", "model=nowhere"))
    assert "holds no run" in one_line(command("train", config, "name=c", "--resume"))
    assert "no such file" in one_line(command("train", "none.toml"))
    assert "report.json: no such file" in one_line(command("report", tmp_path))
