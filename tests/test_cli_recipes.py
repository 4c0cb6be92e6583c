"""Warm starts and recipes from the command line: no Python between an environment and a trained model."""

import json
from pathlib import Path

import pytest

from vertigym.core.files import read_jsonl

from .conftest import CommandLine
from .returns import ENV, suite
from .test_cli import IMPROVES, one_line
from .test_projects import ANSWERED

RECIPE = f"""
name = "loan"
env = "{ENV}"
model = "tiny"
threads = 1
tiny = {{ hidden = 32, layers = 1, heads = 2, key_heads = 2, ffn = 48 }}

[[stage]]
name = "warm-start"
algorithm = "sft"
steps = 2
sft = {{ data = "rows.jsonl", batch = 4 }}

[[stage]]
algorithm = "grpo"
steps = 1
rollout = {{ tasks = 2, group_size = 2, max_tokens = 8 }}
eval = {{ suites = ["suite.toml"] }}
"""


def test_rows_then_a_recipe_then_its_report(command: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "loan").mkdir()
    (tmp_path / "loan" / "recipe.toml").write_text(RECIPE)
    (tmp_path / "loan" / "suite.toml").write_text(suite(8, "[sampling]\nmax_tokens = 8\n", IMPROVES))
    rows = command("env", "rows", ENV, "-n", 30, "-o", "loan/rows.jsonl")
    assert rows.out == "loan/rows.jsonl: 30 chats by expert, which earn 1.000 on average\n"
    assert len(read_jsonl(tmp_path / "loan" / "rows.jsonl")) == 30
    assert "replace it with --force" in one_line(command("env", "rows", ENV, "-o", "loan/rows.jsonl"))
    dry = command("train", "loan/recipe.toml", "--dry-run", "--gpu", "h100")
    assert dry.code == 0, dry.err
    assert "last of stage warm-start" in dry.out
    trained = command("train", "loan/recipe.toml", "stage.warm-start.steps=1")
    assert trained.code == 1, trained.err
    assert "promoted: none; the champion stays" in trained.out
    assert (tmp_path / "loan/runs/loan/stages/warm-start/checkpoints/step-000001").is_dir()
    assert command("report", "loan/runs/loan").code == 0
    assert "already holds a run" in one_line(command("train", "loan/recipe.toml"))
    assert "stages/warm-start: cannot resume" in one_line(command("train", "loan/recipe.toml", "--resume"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((ENV, "--policy", "rules.jsn"), "policy 'rules.jsn': no such file; it is expert, old-rules"),
        (("vertigym/Retruns-v0",), "did you mean"),
        ((ENV, "--split", "trian"), "'trian' is not one of"),
    ],
)
def test_rows_that_cannot_be_made(command: CommandLine, words: tuple[str, ...], said: str) -> None:
    assert said in one_line(command("env", "rows", *words, "-o", "rows.jsonl"))
    assert not Path("rows.jsonl").exists()


def test_start_says_what_it_decided_and_what_is_next(command: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "tickets.csv").write_text(ANSWERED)
    started = command("start", "tickets.csv", "-o", "desk")
    assert started.code == 0, started.err
    assert "local/Tickets-v0 -> desk" in started.out
    assert "env check: passed" in started.out
    assert "  vertigym train desk/recipe.toml\n" in started.out
    assert "env check: with upper and lower case swapped" in started.err, "findings are said"
    assert command("train", "desk/recipe.toml", "--dry-run", "--gpu", "h100").code == 0
    assert "desk exists: name a new folder" in one_line(command("start", "tickets.csv", "-o", "desk"))
    whole = json.loads(command("start", "tickets.csv", "-o", "again", "--json").out)
    assert (whole["id"], whole["check"]["passed"]) == ("local/Tickets-v0", True)
    assert whole["check"]["env"] == whole["id"]
    assert whole["next"][0] == "vertigym train again/recipe.toml"
    assert {"what": "answers", "chosen": "texts", "why": "40 different answers, 1 words on average"} in whole[
        "choices"
    ]


def test_start_fails_where_the_environment_does(command: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "yes.csv").write_text("question,answer\n" + "".join(f"is it {i},yes\n" for i in range(60)))
    started = command("start", "yes.csv", "-o", "desk")
    assert started.code == 1
    assert "env check: failed" in started.out
    assert "env check: " in started.err
    assert (tmp_path / "desk" / "recipe.toml").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("none.csv", "-o", "out"), "none.csv: no such file"),
        (("tickets.csv",), "Missing option '-o' / '--out'"),
        (("tickets.csv", "-o", "out", "--id", "Tickets"), "the form is namespace/Name-v0"),
        (("tickets.csv", "-o", "out", "-m", "nowhere"), "no such folder"),
        (("tickets.csv", "-o", "tickets.csv"), "exists: name a new folder"),
        (("tickets.csv", "-o", "/proc/out"), "/proc"),
    ],
)
def test_start_refuses_in_one_line(
    command: CommandLine, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    (tmp_path / "tickets.csv").write_text(ANSWERED)
    assert said in one_line(command("start", *words))
    assert {path.name for path in tmp_path.iterdir()} == {"tickets.csv"}
