"""On-policy distillation: nothing to learn from oneself, something from a better teacher."""

from pathlib import Path
from typing import Any

import pytest
import torch

from vertigym import envs
from vertigym.core.config import parse
from vertigym.core.errors import ConfigError
from vertigym.core.files import read_jsonl, write_jsonl
from vertigym.policies import tiny
from vertigym.policies.scripted import reference_text
from vertigym.trainer.config import RunConfig
from vertigym.trainer.loop import train

ENV = "vertigym/Returns-v0"
SMALL = {"hidden": 32, "layers": 2, "heads": 2, "key_heads": 2, "ffn": 48}


def sft(folder: Path, name: str, steps: int, size: dict[str, int]) -> Path:
    """A model that has imitated the right answers for some steps."""
    torch.set_num_threads(1)
    env = envs.make(ENV)
    tasks = [env.tasks.get(i) for i in env.tasks.ids("train")]
    answers = [{"role": "assistant", "content": reference_text(task)} for task in tasks]
    write_jsonl(
        folder / "rows.jsonl", ({"messages": [*t.messages(), a]} for t, a in zip(tasks, answers, strict=True))
    )
    table = {
        "name": name, "env": ENV, "model": "tiny", "algorithm": "sft", "steps": steps, "tiny": size,
        "output": str(folder), "sft": {"data": str(folder / "rows.jsonl"), "batch": 48},
        "optimizer": {"lr": 3e-3 if size.get("hidden", 128) >= 64 else 1e-2, "schedule": "cosine"},
    }  # fmt: skip
    return train(parse(RunConfig, table, source="test")).last


def config(folder: Path, model: Path, **changes: Any) -> RunConfig:
    table: dict[str, Any] = {
        "name": "distill", "env": ENV, "model": str(model), "algorithm": "distill", "steps": 6,
        "output": str(folder), "optimizer": {"lr": 3e-3},
        "rollout": {"tasks": 12, "group_size": 2, "max_tokens": 24},
    }  # fmt: skip
    return parse(RunConfig, table | changes, source="test")


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sft(tmp_path_factory.mktemp("student"), "student", 30, SMALL)


def test_a_student_that_is_its_own_teacher_has_nothing_to_learn(student: Path, tmp_path: Path) -> None:
    done = train(config(tmp_path, student, steps=1, distill={"teacher": str(student)}))
    (row,) = read_jsonl(done.run.folder / "metrics.jsonl")
    assert abs(row["loss"]) < 1e-5
    assert row["grad_norm"] < 1e-4


def test_the_student_moves_towards_its_teacher(student: Path, tmp_path: Path) -> None:
    teacher = sft(tmp_path, "teacher", 90, SMALL)
    done = train(config(tmp_path, student, steps=25, distill={"teacher": str(teacher)}))
    rewards = [row["reward"] for row in read_jsonl(done.run.folder / "metrics.jsonl")]
    assert sum(rewards[-5:]) > sum(rewards[:5]), "nobody paid for it: the teacher showed it"


def test_a_teacher_with_other_tokens_is_refused(student: Path, tmp_path: Path) -> None:
    tiny.build(["something else"] * 2, tmp_path / "other", size=tiny.TinySize(**SMALL))
    with pytest.raises(ConfigError, match="tokenizer is not the policy's"):
        train(config(tmp_path, student, distill={"teacher": str(tmp_path / "other")}))
    with pytest.raises(ConfigError, match=r"needs a section \[distill\]"):
        config(tmp_path, student)
