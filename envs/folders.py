"""An environment's folder: its `env.toml`, read once, and the files beside it.

Every kind of folder environment opens one: `load(folder: EnvFolder, **changes) -> Env`.
"""

from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from vertigym.core.config import parse, read_toml
from vertigym.core.types import SPLITS
from vertigym.envs.tasks import TaskSet

C = TypeVar("C", bound=BaseModel)


class EnvFolder:
    """The folder at `path`. Nothing is read before it is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def config_file(self) -> Path:
        """Its `env.toml`."""
        return self.path / "env.toml"

    @cached_property
    def table(self) -> dict[str, Any]:
        """What `env.toml` says.

        Raises:
            DataError: it is missing. ConfigError: it is not TOML.
        """
        return read_toml(self.config_file)

    def config(self, model: type[C], /, **changes: Any) -> C:
        """`env.toml` as a model, with `changes` in place of its keys.

        Raises:
            DataError, ConfigError: as `table`, an unknown key or a wrong value.
        """
        return parse(model, {**self.table, **changes}, source=str(self.config_file))

    def tasks(self) -> TaskSet:
        """The tasks in `tasks/train.jsonl`, `eval.jsonl`, `test.jsonl`.

        Raises:
            DataError: a file is missing or malformed.
        """
        return TaskSet.read(*(self.path / "tasks" / f"{split}.jsonl" for split in SPLITS))
