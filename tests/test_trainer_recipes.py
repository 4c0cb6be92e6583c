"""Defaults and example configs follow docs/recipes.md."""

from pathlib import Path
from typing import Any

import pytest

from vertigym.core.config import load, parse
from vertigym.trainer.config import RunConfig

SMOLLM = Path(__file__).parents[1] / "examples" / "smollm"
RUN = {"name": "run", "env": "vertigym/Returns-v0", "model": "tiny", "steps": 1}
SFT = RUN | {"algorithm": "sft", "sft": {"data": "rows.jsonl"}}
GRPO = RUN | {"algorithm": "grpo"}


@pytest.mark.parametrize(
    ("given", "lr"),
    [
        (GRPO, 1e-6),
        (GRPO | {"lora": {}}, 1e-5),
        (GRPO | {"lora": {"rank": 4}, "optimizer": {"schedule": "cosine"}}, 1e-5),
        (SFT, 1e-5),
        (SFT | {"lora": {}}, 1e-4),
        (GRPO | {"lora": {}, "optimizer": {"lr": 3e-3}}, 3e-3),
    ],
)
def test_the_learning_rate_follows_what_is_trained_unless_it_is_given(given: dict[str, Any], lr: float) -> None:
    assert parse(RunConfig, given, source="test").optimizer.lr == lr


@pytest.mark.parametrize("folder", [".", "lora", "shown"])
def test_the_example_trains_grpo_on_what_its_warm_start_leaves(folder: str) -> None:
    warm, tuned = (load(RunConfig, SMOLLM / folder / name) for name in ("sft.toml", "grpo.toml"))
    assert Path(tuned.model) == warm.output / warm.name / "checkpoints" / f"step-{warm.steps:06d}"
    assert (warm.env, warm.dtype, warm.lora) == (tuned.env, tuned.dtype, tuned.lora)
