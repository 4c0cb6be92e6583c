"""A team's first day: from its file to a checkpoint that passed its gate, in four commands."""

import subprocess
import sys
from pathlib import Path
from shutil import copy

import pytest

from vertigym.core.files import read_json
from vertigym.evals.report import Report

from .test_projects import LENDER, questions, write_csv

pytestmark = pytest.mark.slow(first=True)


def walk(folder: Path, file: str, warm_steps: int) -> tuple[Report, str]:
    """`start`, then the commands that it prints, with fewer steps than a recipe has: the report of the release,
    and the page."""
    fewer = f"warm-start.steps={warm_steps}", f"warm-start.eval.every={warm_steps}", "grpo.steps=20"
    settings = [f"stage.{key}" for key in fewer]
    started = _run(folder, "vertigym", "start", file, "-o", "project")
    next_ = [line.split() for line in started.splitlines() if line.startswith("  vertigym ")]
    assert len(next_) == 3
    for command, more in zip(next_, (settings, (), ()), strict=True):
        _run(folder, *command, *more)
    release = folder / "project" / "release"
    assert read_json(release / "decision.json")["passed"]
    return Report.load(release), (folder / "project" / "report.html").read_text()


def _run(folder: Path, *command: str) -> str:
    words = [sys.executable, "-m", *command]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_lender_with_a_table_of_rules(tmp_path: Path) -> None:
    copy(LENDER, tmp_path)
    report, page = walk(tmp_path, "loans.csv", 300)
    assert len(report.rows) == 600
    exact = report.metrics["exact"]["all"].mean
    assert exact is not None
    assert exact > 0.9
    assert "<html" in page


def test_a_support_desk_with_answered_questions(tmp_path: Path) -> None:
    write_csv(tmp_path / "tickets.csv", questions(900))
    report, _ = walk(tmp_path, "tickets.csv", 150)
    right = report.metrics["right"]["all"].mean
    assert right is not None
    assert right > 0.9
