"""On-policy distillation: nothing to learn from oneself, something from a better teacher."""

from pathlib import Path
from typing import Any

import pytest

from vertigym.core.config import parse
from vertigym.core.errors import ConfigError
from vertigym.core.files import read_jsonl
from vertigym.policies import tiny
from vertigym.trainer.config import RunConfig
from vertigym.trainer.loop import train

from .returns import ENV, SIZE, warm


def config(folder: Path, model: Path, **changes: Any) -> RunConfig:
    table: dict[str, Any] = {
        "name": "distill", "env": ENV, "model": str(model), "algorithm": "distill", "steps": 6,
        "output": str(folder), "optimizer": {"lr": 3e-3},
        "rollout": {"tasks": 12, "group_size": 2, "max_tokens": 24},
    }  # fmt: skip
    return parse(RunConfig, table | changes, source="test")


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return warm(tmp_path_factory.mktemp("student"), name="student", steps=30, batch=48)


def test_a_student_that_is_its_own_teacher_has_nothing_to_learn(student: Path, tmp_path: Path) -> None:
    done = train(config(tmp_path, student, steps=1, distill={"teacher": str(student)}))
    (row,) = read_jsonl(done.run.folder / "metrics.jsonl")
    assert abs(row["loss"]) < 1e-5
    assert row["grad_norm"] < 1e-4


def test_the_student_moves_towards_its_teacher(student: Path, tmp_path: Path) -> None:
    teacher = warm(tmp_path, name="teacher", steps=90, batch=48)
    done = train(config(tmp_path, student, steps=25, distill={"teacher": str(teacher)}))
    rewards = [row["reward"] for row in read_jsonl(done.run.folder / "metrics.jsonl")]
    assert sum(rewards[-5:]) > sum(rewards[:5]), "nobody paid for it: the teacher showed it"


def test_a_teacher_with_other_tokens_is_refused(student: Path, tmp_path: Path) -> None:
    tiny.build(["something else"] * 2, tmp_path / "other", size=tiny.TinySize(**SIZE))
    with pytest.raises(ConfigError, match="tokenizer is not the policy's"):
        train(config(tmp_path, student, distill={"teacher": str(tmp_path / "other")}))
    with pytest.raises(ConfigError, match=r"needs a section \[distill\]"):
        config(tmp_path, student)
