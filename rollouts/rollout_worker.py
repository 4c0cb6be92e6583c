"""One worker's process: an engine and environments, and the chunks of episodes it is given.

The one idea: a chunk brings everything it needs, even a way to fetch the weights it is for. A worker keeps no
state between chunks: a new one gives the same answer as one that has run from the start.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from vertigym.core.config import Config
from vertigym.core.errors import InfrastructureError, InputError
from vertigym.core.manifest import MANIFEST
from vertigym.core.types import Completion, Prompt, Sampling, Trajectory
from vertigym.policies.engine import Engine, Weights
from vertigym.policies.registry import EngineSetup, NoConfig, find_engine
from vertigym.policies.vllm_client import save_weights
from vertigym.rollouts.rollout import Episode, PlayableEnv, rollout

T = TypeVar("T")

_WEIGHT_FILES = (".safetensors", ".bin", ".pt", ".pth", ".index.json")
_LEFT_OUT = (*_WEIGHT_FILES, MANIFEST)  # a worker's weights are not those that the manifest tells of


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """How a worker is set up. `skeleton` is the model folder without its weights, by file name; `config` holds
    the settings of `engine`."""

    skeleton: Mapping[str, bytes]
    make_env: Callable[[], PlayableEnv]
    engine: str = "transformers"
    config: Config = field(default_factory=NoConfig)
    dtype: str = "float32"
    batch: int = 512
    threads: int = 1
    count: int = 1  # workers in all


@dataclass(frozen=True, slots=True)
class WeightUpdate:
    """Weights: their policy version, a number that no other update has, and how to fetch them."""

    version: int
    number: int
    fetch: Weights


@dataclass(frozen=True, slots=True)
class WorkerFailure:
    """Why a worker failed; `machine`: another worker may succeed."""

    reason: str
    machine: bool


class RolloutWorker:
    """One process's engine and environments, opened by its first chunk."""

    def __init__(self, spec: WorkerSpec, number: int) -> None:
        self._spec, self._number = spec, number
        self._engine: Engine | None = None
        self._env: PlayableEnv | None = None
        self._state: Mapping[str, Tensor] = {}
        self._update = -1  # the number of the update its weights came with

    def ready(self) -> int:
        """Its number, once it runs."""
        return self._number

    def play(
        self, update: WeightUpdate, episodes: Sequence[Episode], sampling: Sampling
    ) -> list[Trajectory] | WorkerFailure:
        """Play a chunk of episodes with these weights."""

        def do(engine: Engine) -> list[Trajectory]:
            self._env = self._env or self._spec.make_env()
            return rollout(engine, self._env, episodes, sampling, batch=self._spec.batch)

        return self._with(update, do)

    def generate(
        self, update: WeightUpdate, prompts: Sequence[Prompt], sampling: Sampling
    ) -> list[Completion] | WorkerFailure:
        """Continue some prompts with these weights."""
        return self._with(update, lambda engine: engine.generate(prompts, sampling))

    def _with(self, update: WeightUpdate, do: Callable[[Engine], T]) -> T | WorkerFailure:
        try:
            return do(self._updated_engine(update))
        except InputError as error:
            return WorkerFailure(str(error), machine=False)
        except InfrastructureError as error:
            return WorkerFailure(str(error), machine=True)

    def _updated_engine(self, update: WeightUpdate) -> Engine:
        if self._engine and self._update == update.number:
            return self._engine
        self._state = update.fetch()
        self._engine = self._engine or self._open()
        self._engine.refresh(update.version)
        self._state, self._update = {}, update.number
        return self._engine

    def _open(self) -> Engine:
        """An engine on a model folder made from the skeleton and the weights."""
        spec = self._spec
        torch.set_num_threads(spec.threads)
        folder = Path(tempfile.mkdtemp(prefix="vertigym-worker-"))
        for name, data in spec.skeleton.items():
            (folder / name).write_bytes(data)
        save_weights(self._state, folder)
        kind = find_engine(spec.engine)
        config = kind.for_worker(spec.config, self._number, spec.count)
        return kind.open_engine(EngineSetup(folder, config, dtype=spec.dtype, weights=lambda: self._state))


def skeleton(folder: str | Path) -> dict[str, bytes]:
    """The files of a model folder that are neither weights nor speak of them."""
    files = (path for path in Path(folder).iterdir() if path.is_file())
    return {path.name: path.read_bytes() for path in sorted(files) if not path.name.endswith(_LEFT_OUT)}
