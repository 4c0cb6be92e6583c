"""A gate that no policy can pass is named where a user first meets it: at import, at a dry run, at an eval."""

from pathlib import Path

import pytest

from .conftest import CommandLine

TABLE = "F,member,paid,rush,-> decision\n1,true,true,,go\n2,true,false,true,wait\n3,,,,stop\n"
SUITE = 'sampling.max_tokens = 16\n[[env]]\nid = "env"\nsplit = "eval"\n[[gate]]\nrule = "improves"\n'
RUN = 'name = "r"\nenv = "env"\nmodel = "tiny"\ntiny.context = 4096\nalgorithm = "grpo"\nsteps = 50\n'


@pytest.mark.parametrize("mode", ["decision", "agent"])
def test_a_table_of_few_cases_can_promote_nothing_and_says_so(command: CommandLine, mode: str) -> None:
    """Also where hundreds of customers ask about the few."""
    Path("table.csv").write_text(TABLE)
    ended = command("env", "import", "table.csv", "--id", "a/Tiny-v0", "-o", "env", "--mode", mode)
    assert ended.code == 0
    assert "improves on score can pass no policy: it takes 6 clusters of tasks, there are" in ended.said
    Path("suite.toml").write_text('name = "s"\n' + SUITE)
    ended = command("eval", "suite.toml", "-m", "scripted:expert", "-b", "scripted:constant:no")
    assert ended.code == 1
    assert ended.said.startswith("vertigym: suite s: improves on score can pass no policy: it takes 6 clusters")
    few = "[rollout]\ntasks = 2\ngroup_size = 2\nmax_tokens = 16\n"
    Path("run.toml").write_text(RUN + few + '[eval]\nsuites = ["suite.toml"]\nevery = 1\n')
    ended = command("train", "run.toml", "--dry-run", "--gpu", "h100")
    assert ended.code == 0
    assert "can pass no policy: it takes 9 clusters" in ended.said  # one look in fifty
