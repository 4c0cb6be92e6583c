"""Where metrics go besides `metrics.jsonl`: TensorBoard always, wandb and trackio when the config names them.

They watch a run and are no part of it: one that fails after it was opened is left out, with a note, and the run
goes on. A resumed run goes on under the same name; rows that a service has already are the same rows.
"""

import math
import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field

from vertigym.core.config import Config
from vertigym.core.errors import MissingDependencyError, RunError
from vertigym.core.files import is_disk_full, read_text, write_text
from vertigym.trainer.rollout_samples import COLUMNS, RolloutSample

Service = Literal["wandb", "trackio"]


class TrackingConfig(Config):
    """Services to send metrics and sample rollouts to."""

    to: tuple[Service, ...] = Field((), description="wandb, trackio; each needs its package")
    project: str = Field("vertigym", description="what the service files the run under")


class Tracker(Protocol):
    """What metrics are sent to."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take a step's metrics."""
        ...

    def log_rollouts(self, step: int, samples: Sequence[RolloutSample]) -> None:
        """Take some of a step's rollouts."""
        ...

    def close(self) -> None:
        """Send what is left."""
        ...


class Trackers:
    """All of a run's; none of them can end it."""

    def __init__(self, trackers: Mapping[str, Tracker], on_note: Callable[[str], None]) -> None:
        self._trackers, self._on_note = dict(trackers), on_note

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Send the finite ones of a step's metrics."""
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        self._each(lambda tracker: tracker.log(step, finite))

    def log_rollouts(self, step: int, samples: Sequence[RolloutSample]) -> None:
        """Send some of a step's rollouts."""
        self._each(lambda tracker: tracker.log_rollouts(step, samples))

    def close(self) -> None:
        """Send what is left. On a full disk nothing is, and the run has said so already."""
        with suppress(OSError):
            self._each(lambda tracker: tracker.close())

    def _each(self, act: Callable[[Tracker], None]) -> None:
        for name, tracker in [*self._trackers.items()]:
            try:
                with redirect_stdout(sys.stderr):
                    act(tracker)
            except Exception as error:  # whatever a service's client raises: the run matters more
                if is_disk_full(error):  # then the run cannot go on either
                    raise
                del self._trackers[name]
                self._on_note(f"{name} is left out from here on: {type(error).__name__}: {error}")


def services(config: TrackingConfig) -> dict[Service, Any]:
    """The packages of the services that `config` names.

    Raises:
        MissingDependencyError: one is not installed.
    """
    found: dict[Service, Any] = {}
    for service in config.to:
        try:
            found[service] = import_module(service)
        except ImportError:
            raise MissingDependencyError(service, service, f"tracking.to {service}") from None
    return found


def open_trackers(
    config: TrackingConfig,
    name: str,
    folder: Path,
    settings: Mapping[str, Any],
    *,
    on_note: Callable[[str], None],
) -> Trackers:
    """TensorBoard in the run's folder, and the services that `config` names.

    Raises:
        MissingDependencyError: a service's package. RunError: a service that cannot be opened.
    """
    trackers: dict[str, Tracker] = {"tensorboard": TensorBoard(folder / "tensorboard")}
    for service, module in services(config).items():
        try:
            with redirect_stdout(sys.stderr):  # standard output is for what was asked for, `--json` say
                trackers[service] = _SERVICES[service](module, config.project, name, folder, settings)
        except Exception as error:  # whatever its client raises where nobody is logged in, or nothing answers
            raise RunError(
                f"tracking.to: {service} cannot be opened ({type(error).__name__}: {error}); log in to it, "
                "or leave it out"
            ) from error
    return Trackers(trackers, on_note)


class TensorBoard:
    """An event file, written at once and without a thread of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write one event. The first says that what an earlier event file has from this step on is void."""
        event, summary = (import_module(f"tensorboard.compat.proto.{n}_pb2") for n in ("event", "summary"))
        if self._writer is None:
            records = import_module("tensorboard.summary.writer.record_writer")
            self._folder.mkdir(parents=True, exist_ok=True)
            name = f"events.out.tfevents.{int(time.time())}.{len(list(self._folder.iterdir()))}"
            self._writer = records.RecordWriter((self._folder / name).open("wb"))
            self._write(event.Event(file_version="brain.Event:2"))
            start = event.SessionLog(status=event.SessionLog.START)
            self._write(event.Event(step=step, session_log=start))
        values = [summary.Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self._write(event.Event(step=step, summary=summary.Summary(value=values)))
        self._writer.flush()

    def log_rollouts(self, step: int, samples: Sequence[RolloutSample]) -> None:
        """Metrics only."""

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        self._writer.write(event.SerializeToString())


class Wandb:
    """Weights & Biases; the id by which a resumed run is found there is kept in the run's folder."""

    def __init__(self, wandb: Any, project: str, name: str, folder: Path, settings: Mapping[str, Any]) -> None:
        file = folder / "wandb-id"
        if not file.exists():
            write_text(file, secrets.token_hex(4))
        self._wandb = wandb
        self._run = wandb.init(
            project=project, name=name, id=read_text(file), resume="allow", dir=str(folder), config={**settings}
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Send a row."""
        self._run.log({**metrics}, step=step)

    def log_rollouts(self, step: int, samples: Sequence[RolloutSample]) -> None:
        """Send a table, which belongs to the row of the same step."""
        rows = [[*row.cells()] for row in samples]
        self._run.log({"rollouts": self._wandb.Table(columns=[*COLUMNS], data=rows)}, step=step)

    def close(self) -> None:
        """End the run there."""
        self._run.finish()


class Trackio:
    """Trackio, which keeps its projects on this machine."""

    def __init__(self, trackio: Any, project: str, name: str, _: Path, settings: Mapping[str, Any]) -> None:
        self._run = trackio.init(project=project, name=name, resume="allow", config={**settings}, embed=False)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Send a row."""
        self._run.log({**metrics}, step=step)

    def log_rollouts(self, step: int, samples: Sequence[RolloutSample]) -> None:
        """Metrics only: its tables want pandas."""

    def close(self) -> None:
        """End the run there."""
        self._run.finish()


_SERVICES: dict[Service, Callable[..., Tracker]] = {"wandb": Wandb, "trackio": Trackio}
