"""What runs in a worker's process: an engine and environments, and the shares they are given.

The one idea: a share brings everything it needs, down to a way to fetch the weights it is for, so that a worker
has no past: one that was started a moment ago gives the same answer as one that has been there from the start.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from vertigym.core.errors import InfrastructureError, InputError
from vertigym.core.types import Completion, Prompt, Sampling, Trajectory
from vertigym.policies.engine import DType, Engine, TransformersEngine, load_model
from vertigym.policies.vllm_backend import VLLMConfig
from vertigym.policies.vllm_client import save_weights
from vertigym.policies.vllm_engine import open_vllm
from vertigym.rollouts.rollout import Episode, PlayableEnv, rollout

T = TypeVar("T")

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".index.json")


@dataclass(frozen=True, slots=True)
class Spec:
    """Everything a worker needs to know. `skeleton` is the model folder without its weights, by file name."""

    skeleton: Mapping[str, bytes]
    make_env: Callable[[], PlayableEnv]
    engine: Literal["transformers", "vllm"] = "transformers"
    vllm: VLLMConfig = field(default_factory=VLLMConfig)
    dtype: DType = "float32"
    batch: int = 512
    threads: int = 1
    count: int = 1  # workers, all told


@dataclass(frozen=True, slots=True)
class Update:
    """Weights: the policy version they are, a number that no other update has, and how to fetch them."""

    version: int
    number: int
    fetch: Callable[[], Mapping[str, Tensor]]


@dataclass(frozen=True, slots=True)
class Failure:
    """What a worker could not do, and whether that is the machine's fault: another worker may then succeed."""

    reason: str
    machine: bool


class Worker:
    """One process's engine and environments, opened by its first share."""

    def __init__(self, spec: Spec, number: int) -> None:
        self._spec, self._number = spec, number
        self._engine: Engine | None = None
        self._env: PlayableEnv | None = None
        self._model: Any = None
        self._state: Mapping[str, Tensor] = {}
        self._has = -1  # the number of the update its weights came with

    def ready(self) -> int:
        """That it is there."""
        return self._number

    def play(
        self, update: Update, episodes: Sequence[Episode], sampling: Sampling
    ) -> list[Trajectory] | Failure:
        """Play a share with these weights."""

        def do(engine: Engine) -> list[Trajectory]:
            self._env = self._env or self._spec.make_env()
            return rollout(engine, self._env, episodes, sampling, batch=self._spec.batch)

        return self._with(update, do)

    def generate(
        self, update: Update, prompts: Sequence[Prompt], sampling: Sampling
    ) -> list[Completion] | Failure:
        """Continue some prompts with these weights."""
        return self._with(update, lambda engine: engine.generate(prompts, sampling))

    def _with(self, update: Update, do: Callable[[Engine], T]) -> T | Failure:
        try:
            return do(self._follow(update))
        except InputError as error:
            return Failure(str(error), machine=False)
        except InfrastructureError as error:
            return Failure(str(error), machine=True)

    def _follow(self, update: Update) -> Engine:
        """The engine, with these weights."""
        if self._engine and self._has == update.number:
            return self._engine
        self._state = update.fetch()
        self._engine = self._engine or self._open()
        if self._model is not None:
            self._model.load_state_dict(self._state)
        self._engine.refresh(update.version)
        self._state, self._has = {}, update.number
        return self._engine

    def _open(self) -> Engine:
        """An engine on a model folder made from the skeleton and the weights."""
        spec = self._spec
        torch.set_num_threads(spec.threads)
        folder = Path(tempfile.mkdtemp(prefix="vertigym-worker-"))
        for name, data in spec.skeleton.items():
            (folder / name).write_bytes(data)
        save_weights(self._state, folder)
        if spec.engine == "vllm":
            return open_vllm(folder, self._servers(), dtype=spec.dtype, weights=lambda: self._state)
        model, tokenizer = load_model(folder)
        self._model = model.float()  # as in training, whatever the folder says
        return TransformersEngine(self._model, tokenizer, dtype=spec.dtype)

    def _servers(self) -> VLLMConfig:
        """vLLM's settings; of the addresses that are given, each worker has some to itself."""
        vllm, spec = self._spec.vllm, self._spec
        if not vllm.urls:
            return vllm
        return vllm.model_copy(update={"url": vllm.urls[self._number :: spec.count]})


def skeleton(folder: str | Path) -> dict[str, bytes]:
    """The files of a model folder that are not weights."""
    files = (path for path in Path(folder).iterdir() if path.is_file())
    return {path.name: path.read_bytes() for path in sorted(files) if not path.name.endswith(_WEIGHTS)}
