"""The documents tell the truth: suites in them load, and the steps of the CI files run as written."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from vertigym.evals.suite import Suite

DOCS = Path(__file__).parents[1] / "docs"
SUITE = """
name = "returns"
[[env]]
id = "vertigym/Returns-v0"
split = "eval"
tasks = 40
[[gate]]
rule = "improves"
"""


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def test_suites_in_the_documents_load() -> None:
    suites = [text for text in blocks("evals.md", "toml") if "[[env]]" in text]
    assert suites
    for text in suites:
        Suite.model_validate(tomllib.loads(text))


@pytest.mark.slow
@pytest.mark.parametrize(("model", "passes"), [("scripted:expert", True), ("scripted:constant:no", False)])
@pytest.mark.parametrize("service", ["github", "gitlab"])
def test_the_steps_of_the_ci_files_run(tmp_path: Path, service: str, model: str, passes: bool) -> None:
    yaml = pytest.importorskip("yaml")
    jobs = {name: job for text in blocks("ci.md", "yaml") for name, job in yaml.safe_load(text).items()}
    variables, junit_file = jobs["eval"]["variables"], "eval-out/junit.xml"
    steps = jobs["eval"]["script"]
    if service == "github":
        (given,) = [step["with"] for step in jobs["jobs"]["gate"]["steps"] if "suite" in step.get("with", {})]
        variables = {name.upper(): value for name, value in given.items()} | {"OUT": "eval-out"}
        action = yaml.safe_load((DOCS.parent / "action.yml").read_text())
        steps, junit_file = [step["run"] for step in action["runs"]["steps"]], "eval-out.junit.xml"
    (tmp_path / "evals").mkdir()
    (tmp_path / variables["SUITE"]).write_text(SUITE)
    environment = {
        **os.environ,
        **variables,
        "MODEL": model,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "step-summary.md"),
        "GITHUB_OUTPUT": str(tmp_path / "output"),
    }

    def run(command: str) -> int:
        return subprocess.run(["bash", "-ec", command], cwd=tmp_path, env=environment, timeout=120).returncode

    champion = 'vertigym eval evals/returns.toml -m scripted:constant:{} -b scripted:constant:{} -o "$CHAMPION"'
    assert run(champion) == 1  # no better than itself; its report is what is needed
    assert (tmp_path / variables["CHAMPION"] / "report.json").exists()
    codes = [run(step) for step in steps if "pip install" not in step]
    assert codes[0] == (0 if passes else 1)
    junit = (tmp_path / junit_file).read_text()
    assert ("<failure" in junit) is not passes
    if service == "github":
        summary = (tmp_path / "step-summary.md").read_text()
        assert summary.startswith("## ✅" if passes else "## ❌")
    (tmp_path / variables["SUITE"]).write_text(SUITE.replace("40", "30"))
    assert run(next(step for step in steps if "vertigym eval" in step)) == 2  # a changed suite is refused
