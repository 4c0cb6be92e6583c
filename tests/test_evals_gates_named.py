"""A gate that no policy can pass is named where a user first meets it: at import, at a dry run, at an eval."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vertigym import cli

TABLE = 'F,member,paid,kind,-> decision\n1,true,true,"a, b",go\n2,true,false,c,wait\n3,,,,stop\n'
SUITE = '[[env]]\nid = "env"\nsplit = "eval"\n[[gate]]\nrule = "improves"\n'
RUN = 'name = "r"\nenv = "env"\nmodel = "tiny"\nalgorithm = "grpo"\nsteps = 50\n'

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run the command line in an empty folder; its exit code and all it said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["vertigym", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        said = capsys.readouterr()
        return code, " ".join((said.err + said.out).split())

    return invoke


@pytest.mark.parametrize("mode", ["decision", "agent"])
def test_a_table_of_few_cases_can_promote_nothing_and_says_so(run: Run, mode: str) -> None:
    """Also where hundreds of customers ask about the few."""
    Path("table.csv").write_text(TABLE)
    code, said = run("env", "import", "table.csv", "--id", "a/Tiny-v0", "-o", "env", "--mode", mode)
    assert code == 0
    assert "improves on score can pass no policy: it takes 6 clusters of tasks, there are" in said
    Path("suite.toml").write_text('name = "s"\n' + SUITE)
    code, said = run("eval", "suite.toml", "-m", "scripted:expert", "-b", "scripted:constant:no")
    assert code == 1
    assert said.startswith("vertigym: suite s: improves on score can pass no policy: it takes 6 clusters")
    Path("run.toml").write_text(RUN + '[eval]\nsuites = ["suite.toml"]\nevery = 1\n')
    code, said = run("train", "run.toml", "--dry-run")
    assert code == 0
    assert "can pass no policy: it takes 9 clusters" in said  # one look in fifty
