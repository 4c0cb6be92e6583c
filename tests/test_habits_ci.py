"""What others put into their own pipelines, run as it stands: the action, and the hook before a commit."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vertigym.core.files import read_json

from . import returns
from .conftest import CommandLine
from .test_habits import ROOT, read_yaml

ACTION = ROOT / "action.yml"
HOOKS = ROOT / ".pre-commit-hooks.yaml"
BIN = Path(sys.executable).parent


def shell(script: str, folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    path = f"{BIN}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script, "step", *arguments],
        cwd=folder, env={**os.environ, "PATH": path, **env}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def step() -> Any:
    (found,) = [step for step in read_yaml(ACTION)["runs"]["steps"] if step.get("id") == "eval"]
    return found


def test_no_input_of_the_action_is_part_of_a_script(step: Any) -> None:
    """What a pull request says must not become a command."""
    action = read_yaml(ACTION)
    assert all("${{" not in each["run"] for each in action["runs"]["steps"])
    used = {value.split()[1] for each in action["runs"]["steps"] for value in each["env"].values()}
    assert used == {f"inputs.{name}" for name in action["inputs"]}


@pytest.mark.parametrize(
    ("model", "code"), [("scripted:expert", 0), ("scripted:constant:{}", 1), ("no such model; true", 2)]
)
def test_the_action_ends_as_the_eval_does(step: Any, tmp_path: Path, model: str, code: int) -> None:
    (tmp_path / "suite.toml").write_text(
        returns.suite(6) + '[[gate]]\nrule = "at_least"\nthreshold = 0.5\nmetric = "exact"\n'
    )
    files = {"GITHUB_OUTPUT": str(tmp_path / "output"), "GITHUB_STEP_SUMMARY": str(tmp_path / "summary")}
    for _ in range(2):  # the second time a cached folder is there
        env = {"SUITE": "suite.toml", "MODEL": model, "CHAMPION": "", "OUT": "eval-out", **files}
        done = shell(step["run"], tmp_path, **env)
        assert done.returncode == code, done.stderr
    assert (tmp_path / "output").read_text() == f"exit-code={code}\n" * 2
    assert (tmp_path / "summary").exists() == (code != 2)
    if code != 2:
        assert read_json(tmp_path / "eval-out" / "report.json")
        assert (tmp_path / "eval-out.junit.xml").read_text().startswith("<?xml")


def test_the_hook_checks_the_environments_of_the_files(command: CommandLine, tmp_path: Path) -> None:
    (hook,) = read_yaml(HOOKS)
    table = ROOT / "examples" / "lender" / "loans.csv"
    assert command("env", "import", table, "--id", "a/L-v0", "-o", "good").code == 0
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "env.toml").write_text('id = "a/B-v0"\nkind = "nothing"\n')
    good, bad = "good/env.toml", "bad/env.toml"
    for files, code in (([good], 0), ([bad, good], 2), ([good, bad], 2)):
        assert all(re.search(hook["files"], file) for file in files)
        done = shell(f'{hook["entry"]} "$@"', tmp_path, *files)
        assert done.returncode == code, done.stdout + done.stderr
        assert ("good" in done.stdout) == (files[0] == good)
