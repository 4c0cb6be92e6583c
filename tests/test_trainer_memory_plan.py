"""What a plan computes of memory is what a real run's process takes, within 15%."""

from pathlib import Path
from typing import Any

import pytest

from vertigym.core.config import parse
from vertigym.core.files import write_jsonl
from vertigym.trainer.config import RunConfig
from vertigym.trainer.dry_run import plan
from vertigym.trainer.measured_steps import measured_steps

from .returns import ENV

SIZES = {"small": (192, 4), "middle": (320, 6), "large": (512, 8)}


def config_of(folder: Path, size: str, **more: Any) -> RunConfig:
    """A run with a tiny model of some width and depth; its largest micro-batch is most of what it takes."""
    hidden, layers = SIZES[size]
    shape = {"hidden": hidden, "layers": layers, "heads": 8, "key_heads": 4, "ffn": 3 * hidden}
    table = {"name": size, "env": ENV, "model": "tiny", "steps": 3, "tiny": shape, "output": str(folder)}
    return parse(RunConfig, table | {"microbatch_tokens": 2048} | more, source="test")


def taken(config: RunConfig) -> float:
    """GB that a run's process takes beside what it took before, measured."""
    found = measured_steps(config)
    return found["memory in GB"] - found["libraries in GB"]


@pytest.fixture(autouse=True)
def a_plain_allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Freed blocks go back to the system, so that what is resident is what is held."""
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "65536")


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_imitation_takes_what_was_computed(size: str, checkpointing: bool, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    said = "the item came back after " + " and ".join(str(n) for n in range(60))
    chat = [{"role": "user", "content": "what?"}, {"role": "assistant", "content": said}]
    write_jsonl(rows, [{"messages": chat} for _ in range(32)])
    config = config_of(
        tmp_path,
        size,
        algorithm="sft",
        sft={"data": str(rows), "batch": 32},
        gradient_checkpointing=checkpointing,
    )
    assert plan(config)["computed"]["peak"] == pytest.approx(taken(config), rel=0.15)


@pytest.mark.slow
def test_sampling_and_learning_take_what_was_computed(tmp_path: Path) -> None:
    """With a reference, an engine, and samples that share rows; no answer ends early or is left out."""
    config = config_of(
        tmp_path,
        "middle",
        algorithm="grpo",
        rollout={"tasks": 4, "group_size": 8, "max_tokens": 64},
        policy={"advantage": "reinforce++", "kl": 0.01},
    )
    assert plan(config)["computed"]["peak"] == pytest.approx(taken(config), rel=0.15)
