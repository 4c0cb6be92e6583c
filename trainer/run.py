"""The run folder, written: what a run puts there step by step, and what a killed run resumes from. `run_files`
says what is in it and reads it.
"""

import platform
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tomli_w

from vertigym import __version__
from vertigym.core.config import read_toml
from vertigym.core.errors import ConfigError, DataError
from vertigym.core.files import (
    append_jsonl,
    jsonable,
    write_json,
    write_jsonl,
    write_text,
)
from vertigym.core.types import Trajectory
from vertigym.policies.model_source import is_run
from vertigym.trainer.checkpoints import verify
from vertigym.trainer.config import RunConfig
from vertigym.trainer.run_files import RunFiles, read_rows, step_name, step_of

_BEING_WRITTEN = re.compile(r"\..+\.[a-z0-9_]{8}")  # as core.files names them
_VERSIONED = ("torch", "transformers", "tokenizers", "numpy", "gymnasium", "zen-engine")


@dataclass(frozen=True, slots=True)
class Rollout:
    """An episode and the advantage it was trained with."""

    trajectory: Trajectory
    advantage: float


class Run(RunFiles):
    """Reads and writes one run folder. Open with `Run.start` or `Run.resume`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.warnings: list[str] = []
        self._writer: ThreadPoolExecutor | None = None
        self._writing: Future[None] | None = None

    @classmethod
    def start(cls, config: RunConfig, models: Mapping[str, str]) -> "Run":
        """A new folder. `models`: the run's model and teacher, by names that keep their meaning.

        Raises:
            ConfigError: the folder already holds a run.
        """
        run = cls(config.output / config.name)
        if is_run(run.folder):
            raise ConfigError(
                f"{run.folder} already holds a run: continue it with --resume, rename the new one, or delete it"
            )
        write_text(run.folder / "config.toml", _resolved(config, models))
        return run

    @classmethod
    def resume(cls, config: RunConfig) -> tuple["Run", Path | None]:
        """The folder of an interrupted run, cut back to its last sound checkpoint, and that checkpoint (None
        where the run has not reached its first).

        Raises:
            DataError: there is no such run. ConfigError: the config differs from the run's.
        """
        run = cls(config.output / config.name)
        if not is_run(run.folder):
            raise DataError(f"{run.folder} holds no run to resume: start it without --resume")
        run._clear_leftovers()
        run.refuse_changes(config)
        checkpoint = run._last_sound_checkpoint()
        run._cut_back(verify(checkpoint) if checkpoint else -1)
        return run, checkpoint

    def refuse_changes(self, config: RunConfig) -> None:
        """
        Raises:
            ConfigError: the config differs from the run's.
        """
        stored = read_toml(self.folder / "config.toml")
        before, now = {k: v for k, v in stored.items() if k != "environment"}, _plain(config)
        if changed := sorted(key for key in {*before, *now} if before.get(key) != now.get(key)):
            raise ConfigError(
                f"{self.folder}: cannot resume with another {', '.join(changed)}: "
                "give the run's own config, or start a run under another name"
            )

    def named_model(self, role: str) -> str:
        """The run's `model` or `teacher` as it was resolved when the run began."""
        return str(read_toml(self.folder / "config.toml")["environment"][role])

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append a row of metrics."""
        append_jsonl(self.folder / "metrics.jsonl", {"step": step, **metrics})

    def save_rollouts(self, step: int, rollouts: Iterable[Rollout]) -> list[dict[str, Any]]:
        """Begin to write the step's rollouts; `wait` before they are needed. The rows that are written."""
        rows = [jsonable(r.trajectory.plain() | {"advantage": r.advantage}) for r in rollouts]
        self.wait()
        file = self.folder / "rollouts" / f"{step_name(step)}.jsonl"
        self._writer = self._writer or ThreadPoolExecutor(1, thread_name_prefix="rollouts")
        self._writing = self._writer.submit(write_jsonl, file, rows)
        return rows

    def wait(self) -> None:
        """Wait until rollouts are written.

        Raises:
            OutputError: they could not be.
        """
        writing, self._writing = self._writing, None
        if writing:
            writing.result()

    def record_gate(self, row: Mapping[str, Any]) -> None:
        """Append a decision."""
        append_jsonl(self.folder / "gates.jsonl", row)

    def promote(self, step: int, reason: str) -> None:
        """Name the checkpoint that ships."""
        place = self.checkpoint(step).relative_to(self.folder)
        write_json(self.folder / "promoted.json", {"step": step, "checkpoint": str(place), "reason": reason})

    def _last_sound_checkpoint(self) -> Path | None:
        for folder in reversed(self.checkpoints()):
            try:
                verify(folder)
            except DataError as damage:
                self.warnings.append(f"{damage}; taking the one before it")
                continue
            return folder
        return None

    def _clear_leftovers(self) -> None:
        """Delete what a killed run was writing, beside where it was to go; other hidden files are not ours."""
        for path in [path for path in self.folder.rglob(".*") if _BEING_WRITTEN.fullmatch(path.name)]:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def _cut_back(self, step: int) -> None:
        """Forget what came after `step`: the resumed run writes it again."""
        for name in ("metrics.jsonl", "gates.jsonl"):
            if (self.folder / name).exists():
                kept = [row for row in read_rows(self.folder / name) if row["step"] <= step]
                write_jsonl(self.folder / name, kept)
        reports = [file for by_step in self.eval_files().values() for file in by_step.values()]
        for file in [*self.rollout_files(), *reports]:
            if step_of(file) > step:
                file.unlink()
        promotions = [row for row in self.gates() if row["verdict"] == "promoted"]
        (self.folder / "promoted.json").unlink(missing_ok=True)
        if promotions:
            self.promote(promotions[-1]["step"], promotions[-1]["reason"])


def _plain(config: RunConfig) -> dict[str, Any]:
    """The config as TOML can say it: keys that are None are left out."""
    return config.model_dump(mode="json", exclude_none=True)


def _resolved(config: RunConfig, models: Mapping[str, str]) -> str:
    versions = {name: version(name) for name in _VERSIONED}
    about = {
        "vertigym": __version__,
        "python": platform.python_version(),
        "git": _git_state(),
        **versions,
        **models,
    }
    return tomli_w.dumps({**_plain(config), "environment": about})


def _git_state() -> str:
    """The commit the run started from, `+changes` where the tree differs, or why it is not known."""
    try:
        commit = _git("rev-parse", "HEAD")
        return f"{commit}+changes" if _git("status", "--porcelain") else commit
    except (OSError, subprocess.CalledProcessError):
        return "not a git checkout"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)  # noqa: S603, S607
    return done.stdout.strip()
