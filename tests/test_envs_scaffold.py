"""`env new`: what it writes, and the way from nothing to a checked, trained environment in a fresh venv."""

import json
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

from vertigym.core.errors import InputError
from vertigym.envs.check import check
from vertigym.envs.scaffold import environment_id, new_environment


@pytest.mark.parametrize(
    ("name", "env_id", "folder"),
    [
        ("acme/TicketDesk-v0", "acme/TicketDesk-v0", "acme-ticket-desk"),
        ("ticket-desk", "local/TicketDesk-v0", "local-ticket-desk"),
        ("acme/loan_limit-v3", "acme/LoanLimit-v3", "acme-loan-limit"),
        ("X", "local/X-v0", "local-x"),
    ],
)
def test_names(tmp_path: Path, name: str, env_id: str, folder: str) -> None:
    assert environment_id(name) == env_id
    assert new_environment(name, tmp_path) == tmp_path / folder


@pytest.mark.parametrize("name", ["", "a/b/c", "9lives", "a b", "../x", "acme/", "naïve", "a'b"])
def test_wrong_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="letters, digits"):
        new_environment(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    new_environment("desk", tmp_path)
    with pytest.raises(InputError, match="exists"):
        new_environment("desk", tmp_path)


def test_the_package_is_small_and_passes_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = new_environment("acme/NewDesk-v0", tmp_path)
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["vertigym.environments"] == {"acme/NewDesk-v0": "acme_new_desk"}
    code = (folder / "acme_new_desk" / "__init__.py").read_text()
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    report = check("acme_new_desk")
    assert report.passed(strict=True), report.findings


@pytest.mark.slow
def test_from_nothing_to_two_training_steps_in_a_fresh_venv(tmp_path: Path) -> None:
    """The new venv sees this one's packages, so that nothing heavy is installed twice."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    site = subprocess.run(
        [python, "-c", "import site; print(site.getsitepackages()[0])"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    here = next(path for path in sys.path if path.endswith("site-packages"))
    (Path(site) / "outer.pth").write_text(f"import site; site.addsitedir({here!r})\n")

    def run(*command: str | Path) -> str:
        done = subprocess.run([python, *command], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def vertigym(*arguments: str | Path) -> str:
        return run("-c", "from vertigym.cli import main; main()", *arguments)

    vertigym("env", "new", "acme/FreshDesk-v0")
    run("-m", "pip", "install", "-q", "--no-deps", "-e", "acme-fresh-desk")
    assert "acme/FreshDesk-v0" in vertigym("env", "list")
    assert json.loads(vertigym("env", "check", "acme/FreshDesk-v0", "--strict", "--json"))["passed"]
    config = Path("acme-fresh-desk") / "train.toml"
    vertigym("train", config, "--dry-run")
    vertigym("train", config, "steps=2")
    metrics = next((tmp_path / "runs").glob("*/metrics.jsonl")).read_text().splitlines()
    assert len(metrics) >= 2
