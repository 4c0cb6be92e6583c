"""The run folder, read: everything a run leaves behind, finished or not. `Run` writes it.

runs/NAME/
  config.toml           resolved, with versions, seed and the git state
  metrics.jsonl         one row a step
  rollouts/             step-000100.jsonl
  checkpoints/          step-000100/
  evals/SUITE/          step-000100.json
  gates.jsonl           every decision: the rules, the numbers, the verdict
  promoted.json         the checkpoint that ships, and why
  tensorboard/
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from vertigym.core.errors import DataError
from vertigym.core.files import iter_jsonl
from vertigym.policies import model_source
from vertigym.policies.model_source import is_run as is_run


def step_name(step: int) -> str:
    """`step-000100`: names sort by step."""
    return f"step-{step:06d}"


def step_of(path: Path) -> int:
    """The step that `step_name` has named a file or folder by."""
    return int(path.stem.removeprefix("step-"))


class RunFiles:
    """A run's folder to look at. No part of it loads a model, so it needs no torch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def open(cls, folder: Path) -> Self:
        """A run to look at, finished or not.

        Raises:
            DataError: the folder holds none.
        """
        if not is_run(folder):
            begun = ", ".join(str(file.parent) for file in sorted(folder.glob("stages/*/config.toml")))
            where = f"its last stage has not begun; look at {begun}" if begun else "for example runs/loan"
            raise DataError(f"{folder}: no config.toml there; give a run's folder, {where}")
        return cls(folder)

    def checkpoint(self, step: int) -> Path:
        """Where the checkpoint of `step` is."""
        return self.folder / "checkpoints" / step_name(step)

    def metrics(self) -> list[dict[str, Any]]:
        """Every logged row."""
        return list(self.iter_metrics())

    def iter_metrics(self) -> Iterator[dict[str, Any]]:
        """The same, one row in memory."""
        return iter_rows(self.folder / "metrics.jsonl")

    def eval_file(self, suite: str, step: int) -> Path:
        """Where the report of a suite at `step` is."""
        return self.folder / "evals" / suite / f"{step_name(step)}.json"

    def gates(self) -> list[dict[str, Any]]:
        """Every decision so far."""
        return read_rows(self.folder / "gates.jsonl")

    def eval_files(self) -> dict[str, dict[int, Path]]:
        """Every report so far, by suite and step."""
        found: dict[str, dict[int, Path]] = {}
        for file in sorted(self.folder.glob("evals/*/step-*.json")):
            found.setdefault(file.parent.name, {})[step_of(file)] = file
        return found

    def rollout_files(self) -> list[Path]:
        """The rollouts that were saved, in the order of their steps."""
        return sorted(self.folder.glob("rollouts/step-*.jsonl"))

    def checkpoints(self) -> list[Path]:
        """The checkpoints there are, in the order of their steps."""
        return model_source.checkpoints(self.folder)

    def promotion(self) -> dict[str, Any] | None:
        """`step`, `checkpoint` and `reason` of what ships, if any was promoted."""
        return model_source.promotion(self.folder)

    def promoted(self) -> Path | None:
        """The checkpoint that ships, if any was promoted."""
        promotion = self.promotion()
        return self.folder / str(promotion["checkpoint"]) if promotion else None


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The rows of an append-only file; none where it does not exist yet."""
    return list(iter_rows(file))


def iter_rows(file: Path) -> Iterator[dict[str, Any]]:
    """The same, one row in memory."""
    return iter_jsonl(file, torn_tail=True) if file.exists() else iter(())
