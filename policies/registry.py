"""The engines by name: how each is opened, its settings, and what a training run must know of it.

An engine is an `EngineKind` in some module. It is found by its name here, by its name in the entry-point group
`vertigym.engines` of an installed package, or by its import path, `package.module:ENGINE`:

    [rollout]
    engine = "toy"              # or "package.module:ENGINE"
    [rollout.toy]               # its settings, by the kind's own name
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from vertigym.core.config import Config
from vertigym.core.errors import ConfigError, UnknownNameError
from vertigym.core.plugins import find_plugin, load_plugin, plugins
from vertigym.core.types import Policy

if TYPE_CHECKING:  # torch is slow to import: only where an engine is opened
    from vertigym.policies.engine import Engine, Weights

GROUP = "vertigym.engines"
_BUILT_IN = {
    "transformers": "vertigym.policies.transformers_engine:ENGINE",
    "vllm": "vertigym.policies.vllm_engine:ENGINE",
    "openai": "vertigym.policies.endpoint:ENGINE",
    "scripted": "vertigym.policies.scripted:ENGINE",
}


class NoConfig(Config):
    """An engine without settings."""


class ProbedConfig(Config):
    """The settings of an engine that computes log-probs by other code than the trainer's: how often they are
    compared, and how near they must be."""

    probe_every: int = Field(10, ge=1, description="compare log-probs with the trainer's every so many steps")
    probe_warn: float = Field(0.02, gt=0, description="mean difference, nats a token, that is warned about")
    probe_stop: float = Field(0.5, gt=0, description="mean difference that ends the run: not the same model")


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What an eval may say of any policy."""

    concurrency: int = 16
    requests_per_minute: float = 0


@dataclass(frozen=True, slots=True)
class EngineSetup:
    """What an engine is opened with, to follow a model in training.

    Args:
        folder: the model folder that the training started from.
        config: the engine's settings.
        model: the model in training (with its tokenizer), for an engine that shares it.
        weights: where `refresh` takes weights from, for an engine with weights of its own.
        copy: the model changes while the engine samples.
        on_note: told what a person should know.
    """

    folder: Path
    config: Any
    dtype: Any = "float32"
    model: Any = None
    tokenizer: Any = None
    weights: "Weights | None" = None
    copy: bool = False
    on_note: Callable[[str], None] = field(default=lambda text: None)


@dataclass(frozen=True, slots=True)
class EngineKind:
    """One engine.

    Args:
        load: the policy behind `NAME:REST` on the command line, given REST.
        open: an engine that follows a model in training; None for a policy that cannot.
        config: its settings, `[rollout.NAME]`. A `ProbedConfig` has its log-probs compared with the trainer's.
        shares_model: it decodes with the model in training itself, so every rank has one; another has weights
            of its own, and a run has one.
        reads_folder: what it loads is a model folder: of a run or a name on the hub it is given the folder.
        misfit: why its settings do not fit a run with so many `ranks` and `workers` (0: none), or "".
        for_worker: its settings for worker `number` of `count`.
    """

    name: str
    load: Callable[[str, LoadOptions], Policy]
    open: "Callable[[EngineSetup], Engine] | None" = None
    config: type[Config] = NoConfig
    shares_model: bool = False
    reads_folder: bool = False
    misfit: Callable[[Any, int, int], str] = lambda config, ranks, workers: ""
    for_worker: Callable[[Any, int, int], Any] = lambda config, number, count: config

    def open_engine(self, setup: EngineSetup) -> "Engine":
        """An engine that follows a model in training.

        Raises:
            ConfigError: this one cannot.
        """
        if self.open is None:
            raise ConfigError(f"engine {self.name!r} cannot follow a model in training: it is for evals only")
        return self.open(setup)


def engine_names() -> list[str]:
    """The names that need no import path."""
    return sorted(plugins(GROUP, _BUILT_IN))


def find_engine(name: str) -> EngineKind:
    """The engine of this name, or at this import path.

    Raises:
        UnknownNameError: nothing is registered under it. ConfigError: it leads to no EngineKind.
    """
    point = find_plugin(name, GROUP, _BUILT_IN) or (EntryPoint(name, name, GROUP) if ":" in name else None)
    if point is None:
        raise UnknownNameError("engine", name, engine_names(), "Or an import path: package.module:ENGINE")
    kind = load_plugin(point)
    if not isinstance(kind, EngineKind):
        raise ConfigError(f"engine {name!r}: {point.value} is no EngineKind but {type(kind).__name__}")
    return kind
