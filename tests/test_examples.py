"""The examples run as they are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vertigym.core.files import read_jsonl

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_four_verbs_learn(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "low_level.py")]
    single = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, env=single)
    rewards = [float(line.rpartition(" ")[2]) for line in done.stdout.splitlines() if "mean reward" in line]
    assert rewards[0] < 0.6
    assert rewards[-1] > 0.9


LOANS = [  # score, amount -> decision; last year a score of 700 was needed
    ("< 580", "-", "decline"),
    (">= {least}", "<= 25", "approve"),
    (">= {least}", "> 25", "refer"),
    ("[580..{least})", "<= 10", "refer"),
    ("[580..{least})", "> 10", "decline"),
]


def loans(file: Path, least: int) -> Path:
    """The rules as a modeller's tool writes DMN."""
    entry = "<{0}Entry><text>{1}</text></{0}Entry>"
    rules = ""
    for score, amount, decision in LOANS:
        conditions = [score.format(least=least), amount]
        cells = "".join(entry.format("input", text.replace("<", "&lt;")) for text in conditions)
        answer = entry.format("output", f'"{decision}"')
        rules += f"<rule>{cells}{answer}</rule>"
    inputs = "".join(
        f'<input><inputExpression typeRef="number"><text>{name}</text></inputExpression></input>'
        for name in ("score", "amount")
    )
    data = "".join(
        f'<inputData id="{name}" name="{name}"><variable name="{name}" typeRef="number"/></inputData>'
        for name in ("score", "amount")
    )
    needs = "".join(
        f'<informationRequirement><requiredInput href="#{name}"/></informationRequirement>'
        for name in ("score", "amount")
    )
    file.write_text(
        '<definitions xmlns="https://www.omg.org/spec/DMN/20191111/MODEL/" id="d" name="d" namespace="n">'
        f'{data}<decision id="l" name="Loan"><variable name="Loan" typeRef="string"/>{needs}'
        f'<decisionTable hitPolicy="UNIQUE">{inputs}<output typeRef="string"/>{rules}</decisionTable>'
        "</decision></definitions>"
    )
    return file


@pytest.mark.slow
@pytest.mark.parametrize("versions", ["a table alone", "two of a DMN model"])
def test_the_demo_takes_rules_of_ones_own(
    versions: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Up to the training, which benchmarks/RESULTS.md has for three seeds."""
    new, old = EXAMPLES / "lender" / "loans.csv", None
    if versions != "a table alone":
        new, old = loans(tmp_path / "new.dmn", 640), loans(tmp_path / "old.dmn", 700)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.chdir(tmp_path)
    from demo import open_story, training_tasks, write_logs  # type: ignore[import-not-found]

    story = open_story(new, old, 0)
    rules = len(story.current.rules)
    assert f"{new.name}: {rules} of {rules} rules are hit" in capsys.readouterr().out
    logged = [json.loads(row["messages"][-1]["content"]) for row in read_jsonl(write_logs(story, 0))]
    right = [task.answer for task in training_tasks(story.env)]
    assert 0 < sum(said != answer for said, answer in zip(logged, right, strict=True)) < len(right)


@pytest.mark.slow
def test_trl_trains_what_the_gate_promotes(tmp_path: Path) -> None:
    pytest.importorskip("trl", exc_type=ImportError)
    command = [sys.executable, str(EXAMPLES / "trl" / "train.py")]
    single = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=single)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PROMOTED improves on right: better" in done.stdout
