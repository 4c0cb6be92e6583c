"""Workers as Ray actors: on this machine, or wherever a Ray cluster has room for them.

The one idea: Ray only starts processes, moves objects and reports who has died. Who gets which chunk, what is
repeated and when to give up is decided in `distributed`, the same for every backend.

    ray://auto            the cluster this machine belongs to (`ray start`)
    ray://local           a cluster of this machine alone, which ends with the run
    ray://HOST:10001      a cluster elsewhere, through its client port
"""

import os
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from vertigym.core.errors import ConfigError, MissingDependencyError
from vertigym.policies.engine import Weights, stop_ids
from vertigym.policies.model_folder import load_tokenizer
from vertigym.rollouts.distributed import DistributedEngine, WorkerLostError, WorkersConfig
from vertigym.rollouts.rollout_worker import RolloutWorker, WorkerSpec

PREFIX = "ray://"


class RayBackend:
    """A WorkerBackend on a Ray cluster.

    Raises:
        MissingDependencyError: Ray is not installed. ConfigError: there is no cluster at that address.
    """

    def __init__(self, address: str, config: WorkersConfig) -> None:
        self._ray = _import_ray()
        self._config = config
        self._ours = not self._ray.is_initialized()  # else the caller's, who ends it
        if self._ours:
            self._connect(address)
        self._actor = self._ray.remote(RolloutWorker).options(
            num_cpus=config.cpus,
            num_gpus=config.gpus,
            scheduling_strategy="SPREAD",
            max_restarts=0,  # we start a lost one again, with the present weights
            max_task_retries=0,
        )

    def start(self, spec: WorkerSpec, number: int) -> "_RayWorker":
        """An actor, as soon as there is room for it."""
        return _RayWorker(self._ray, self._actor.remote(spec, number))

    def put(self, state: Mapping[str, Tensor]) -> Weights:
        """Into the object store, from where each node copies it once."""
        return _StoredWeights(self._ray.put(dict(state)))

    def describe(self) -> str:
        """The resources of the cluster, and those that a worker asks for."""
        has = self._ray.cluster_resources()
        return (
            f"the Ray cluster has {has.get('CPU', 0):g} CPUs and {has.get('GPU', 0):g} GPUs, a worker asks for "
            f"{self._config.cpus:g} and {self._config.gpus:g} (rollout.ray.cpus, rollout.ray.gpus)"
        )

    def close(self) -> None:
        """Leave the cluster; one of our own ends."""
        if self._ours:
            self._ray.shutdown()

    def _connect(self, address: str) -> None:
        where = address.removeprefix(PREFIX)
        local = where == "local"
        cores = max(os.cpu_count() or 1, round(self._config.cpus * self._config.count + 0.5))
        alone: dict[str, Any] = {"num_cpus": cores, "include_dashboard": False} if local else {}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._ray.init(
                    address=where if where in ("auto", "local") else address,
                    log_to_driver=False,
                    configure_logging=True,
                    logging_level="ERROR",
                    **alone,
                )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"rollout.workers = {address!r}: no Ray cluster there ({_line(error)}); start one with `ray "
                'start --head`, or take "ray://local", workers on this machine'
            ) from None


class _RayWorker:
    """A WorkerHandle on an actor."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray, self._actor = ray, actor

    def call(self, name: str, *arguments: Any) -> "Future[Any]":
        answer: Future[Any] = Future()
        self._remote(name, arguments).add_done_callback(lambda done: self._pass_on(done, answer))
        return answer

    def stop(self) -> None:
        self._ray.kill(self._actor, no_restart=True)

    def _remote(self, name: str, arguments: tuple[Any, ...]) -> "Future[Any]":
        future: Future[Any] = getattr(self._actor, name).remote(*arguments).future()
        return future

    def _pass_on(self, done: "Future[Any]", answer: "Future[Any]") -> None:
        error = done.exception()
        if error is None:
            answer.set_result(done.result())
        elif isinstance(error, self._ray.exceptions.RayError) and not isinstance(
            error, self._ray.exceptions.RayTaskError
        ):
            answer.set_exception(WorkerLostError(_line(error)))
        else:
            answer.set_exception(error)


@dataclass(frozen=True, slots=True)
class _StoredWeights:
    """Weights in the object store, by a reference that Ray keeps alive and we fetch."""

    reference: Any

    def __call__(self) -> Mapping[str, Tensor]:
        import ray

        state: Mapping[str, Tensor] = ray.get(self.reference)
        return state


def open_workers(
    address: str,
    folder: Path,
    spec: WorkerSpec,
    config: WorkersConfig,
    *,
    weights: Weights,
    on_note: Callable[[str], None] = lambda text: None,
) -> DistributedEngine:
    """Workers that follow a model in training.

    Args:
        folder: its model folder.
        weights: where `refresh` takes its weights from, adapters merged.

    Raises:
        as RayBackend.
    """
    tokenizer, model, generation = load_tokenizer(folder)
    backend, stop, rows = RayBackend(address, config), stop_ids(generation), model.get_text_config().vocab_size
    return DistributedEngine(backend, spec, config, tokenizer, weights, stop=stop, rows=rows, on_note=on_note)


def _import_ray() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import ray
    except ImportError:
        raise MissingDependencyError("ray", "ray", "rollout.workers") from None
    return ray


def _line(error: BaseException) -> str:
    """The first sentence of a Ray error, which is the reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].split('. ')[0] if lines else ''}"[:160]
