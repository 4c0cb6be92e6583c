"""Training through a program: two runs, and one that stops and goes on, are the same to the bit."""

from pathlib import Path

import pytest

from vertigym.core.config import parse
from vertigym.core.files import sha256
from vertigym.trainer.config import RunConfig
from vertigym.trainer.loop import Progress, train

from .programs import BY_HAND, program
from .returns import rows, warm

# Three calls: one that goes on, one with tools, one with a new history.
AGENT = (
    BY_HAND
    + """
first = said([question])
second = said([question, first, {"role": "user", "content": "again"}], max_tokens=6)
tool = {"type": "function", "function": {"name": "find"}}
print(said([{"role": "user", "content": second["content"]}], tools=[tool])["content"] or "")
"""
)
TASKS = [{"id": f"t{n}", "question": f"say {n % 3}", "answer": str(n % 3)} for n in range(8)]


def configured(env: str, model: Path, output: Path) -> RunConfig:
    table = {
        "name": "grpo", "env": env, "algorithm": "grpo", "model": str(model), "steps": 3, "threads": 1,
        "output": str(output), "rollout": {"tasks": 4, "group_size": 4, "max_tokens": 8},
        "checkpoint": {"every": 1}, "optimizer": {"lr": 1e-3},
    }  # fmt: skip
    return parse(RunConfig, table, source="test")


def stop(step: int, _: dict[str, float]) -> None:
    if step == 2:
        raise KeyboardInterrupt


def test_runs_through_a_program_repeat_bit_for_bit(tmp_path: Path) -> None:
    env = program(tmp_path / "env", AGENT, tasks=TASKS)
    model = warm(tmp_path, env=env, steps=20)
    one, other = (train(configured(env, model, tmp_path / name)) for name in "ab")
    with pytest.raises(KeyboardInterrupt):
        train(configured(env, model, tmp_path / "c"), progress=Progress(on_step=stop))
    resumed = train(configured(env, model, tmp_path / "c"), resume=True)
    logged = rows(one.run.folder)
    assert logged == rows(other.run.folder) == rows(resumed.run.folder)
    assert [row["turns"] for row in logged] == [3.0] * 3
    assert all(row["unscored"] == 0 for row in logged)
    assert any(row["groups_with_variance"] for row in logged)
    weights = {sha256(done.last / "model.safetensors") for done in (one, other, resumed)}
    assert len(weights) == 1
