"""Warm starts and recipes from the command line: no Python between an environment and a trained model."""

from pathlib import Path

import pytest

from vertigym.core.files import read_jsonl

from .returns import ENV, suite
from .test_cli import IMPROVES, Run, one_line, run

__all__ = ["run"]

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


def test_rows_then_a_recipe_then_its_report(run: Run, tmp_path: Path) -> None:
    (tmp_path / "loan").mkdir()
    (tmp_path / "loan" / "recipe.toml").write_text(RECIPE)
    (tmp_path / "loan" / "suite.toml").write_text(suite(8, "[sampling]\nmax_tokens = 8\n", IMPROVES))
    rows = run("env", "rows", ENV, "-n", 30, "-o", "loan/rows.jsonl")
    assert rows.out == "loan/rows.jsonl: 30 chats by expert, which earn 1.000 on average\n"
    assert len(read_jsonl(tmp_path / "loan" / "rows.jsonl")) == 30
    assert "replace it with --force" in one_line(run("env", "rows", ENV, "-o", "loan/rows.jsonl"))
    dry = run("train", "loan/recipe.toml", "--dry-run")
    assert dry.code == 0, dry.err
    assert "last of stage warm-start" in dry.out
    trained = run("train", "loan/recipe.toml", "stage.warm-start.steps=1")
    assert trained.code == 1, trained.err
    assert "promoted: none; the champion stays" in trained.out
    assert (tmp_path / "loan/runs/loan/stages/warm-start/checkpoints/step-000001").is_dir()
    assert run("report", "loan/runs/loan").code == 0
    assert "already holds a run" in one_line(run("train", "loan/recipe.toml"))
    assert "stages/warm-start: cannot resume" in one_line(run("train", "loan/recipe.toml", "--resume"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((ENV, "--policy", "rules.jsn"), "policy 'rules.jsn': no such file; it is expert, old-rules"),
        (("vertigym/Retruns-v0",), "did you mean"),
        ((ENV, "--split", "trian"), "'trian' is not one of"),
    ],
)
def test_rows_that_cannot_be_made(run: Run, words: tuple[str, ...], said: str) -> None:
    assert said in one_line(run("env", "rows", *words, "-o", "rows.jsonl"))
    assert not Path("rows.jsonl").exists()
