"""An environment's folder: its `env.toml`, read once, and the files in it.

Every kind of folder environment opens one: `load(folder: EnvFolder, **changes) -> Env`. A folder is data,
perhaps somebody else's: unless it is trusted, what it names lies in it, it runs no code and calls no machine.
"""

import os
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from vertigym.core.config import parse, read_toml
from vertigym.core.errors import ConfigError
from vertigym.core.types import SPLITS
from vertigym.envs.tasks import TaskSet

C = TypeVar("C", bound=BaseModel)


class EnvFolder:
    """The folder at `path`. Nothing is read before it is asked for. Trusted is one that an installed package
    registers, or whose user says so (`ID?trust=true`)."""

    def __init__(self, path: Path, *, trusted: bool = False) -> None:
        self.path, self.trusted = path, trusted

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

    def file(self, name: str) -> Path:
        """The path of a file or folder in here.

        Raises:
            ConfigError: it leads out of the folder, by its name or through a link.
        """
        path = self.path / name
        if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self.path)):
            self.needs_trust(f"{name!r} leads out of the folder")
        return path

    def needs_trust(self, what: str) -> None:
        """
        Raises:
            ConfigError: the folder asks for `what` and is not trusted.
        """
        if not self.trusted:
            raise ConfigError(
                f"{self.config_file}: {what}: trust the folder for that (?trust=true after its id)"
            )

    def tasks(self) -> TaskSet:
        """The tasks in `tasks/train.jsonl`, `eval.jsonl`, `test.jsonl`.

        Raises:
            DataError: a file is missing or malformed. ConfigError: one leads out of the folder.
        """
        return TaskSet.read(*(self.file(f"tasks/{split}.jsonl") for split in SPLITS))
