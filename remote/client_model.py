"""One model of a client: its requests in their order, on disk first, done one after another.

Requests come over several connections and may overtake each other; `seq_id` says their order, and one that
comes before its turn waits. A model that is not in memory (the server was killed, or nobody used it) is made
again from its snapshot and its journal when somebody asks for it.
"""

import base64
import json
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vertigym.core.files import read_json, whole_folder, write_json
from vertigym.core.seeds import derive
from vertigym.dialects.chat_call import RefusedError
from vertigym.remote import schema
from vertigym.remote.adapted_base import AdaptedBase
from vertigym.remote.call_models import (
    AdapterShape,
    LoadWeights,
    OptimStep,
    SaveForSampler,
    SaveWeights,
    checked,
)
from vertigym.remote.checkpoint_store import SAMPLER, TRAINING, CheckpointStore, write_saved
from vertigym.remote.datums import read_forward_backward
from vertigym.remote.futures import Futures, Outcome
from vertigym.remote.journal import Journal, Recorded
from vertigym.remote.samplers import SamplingEngines
from vertigym.remote.trained_model import TrainedModel

MODEL_FILE = "model.json"
_OUTCOMES = "outcomes.json"
# Between two snapshots, at most: what is done again after a kill takes about as long as it took.
_STEPS, _SECONDS, _JOURNAL_BYTES = 25, 30.0, 64_000_000
_KEPT = 32  # outcomes that a snapshot holds, for clients that had not fetched them
_EPHEMERAL = 16  # weights of sampling sessions without a name that are kept, of a model


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a model works with: its base, engines to tell of new weights, the store, and who does the work."""

    base: AdaptedBase
    engines: SamplingEngines
    store: CheckpointStore
    futures: Futures
    work: Callable[[str, Callable[[], Outcome]], None]


class ClientModel:
    """A model in `folder`, which holds its `model.json`."""

    def __init__(self, folder: Path, around: Surroundings) -> None:
        said = read_json(folder / MODEL_FILE)
        self.folder, self._around = folder, around
        self.id: str = said["model_id"]
        self.shape = AdapterShape.model_validate(said["shape"])
        self._seed = derive(0, "model", int(said["model_seq_id"]))
        self._trained: TrainedModel | None = None
        self._journal = Journal(folder / "journal")
        self._waiting: dict[int, Recorded] = {}
        self._outcomes: OrderedDict[int, Outcome] = OrderedDict()
        self._steps, self._seconds = 0, 0.0  # since the last snapshot
        self._snapshot = max((int(f.name.partition("-")[2]) for f in folder.glob("state-*")), default=-1)
        self._last_done = self._snapshot
        self._next = self._snapshot + 1
        self._resume()

    def _resume(self) -> None:
        if self._snapshot >= 0:
            for seq_id, outcome in json.loads((self._state() / _OUTCOMES).read_text()):
                self._outcomes[seq_id] = _decoded(outcome)
                self._around.futures.finish(self._request_id(seq_id), self._outcomes[seq_id])
        for record in self._journal.records():
            if record.seq_id >= self._next:
                self._queue(record)

    def _state(self) -> Path:
        return self.folder / f"state-{self._snapshot}"

    def _request_id(self, seq_id: int) -> str:
        return f"{self.id}:{seq_id}"

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits to be done."""
        return not self._waiting and self._last_done == self._next - 1

    def accept(self, record: Recorded) -> str:
        """Take a request on, and return the id of its result. One that is here already is not done twice."""
        request_id = self._request_id(record.seq_id)
        if record.seq_id >= self._next and record.seq_id not in self._waiting:
            self._journal.append(record)
            self._queue(record)
        return request_id

    def _queue(self, record: Recorded) -> None:
        self._around.futures.open(self._request_id(record.seq_id))
        self._waiting[record.seq_id] = record
        while ready := self._waiting.pop(self._next, None):
            self._around.work(self._request_id(ready.seq_id), partial(self._done, ready))
            self._next += 1

    # From here on, on the worker's thread.

    def _done(self, record: Recorded) -> Outcome:
        began = time.monotonic()
        try:
            outcome = self._DO[record.kind](self, record)
        except RefusedError as error:
            outcome = Outcome(error=str(error))
        self._outcomes[record.seq_id], self._last_done = outcome, record.seq_id
        while len(self._outcomes) > _KEPT:
            self._outcomes.popitem(last=False)
        self._seconds += time.monotonic() - began
        self._keep_state(record)
        return outcome

    @property
    def _model(self) -> TrainedModel:
        if self._trained is None:
            self._trained = TrainedModel(self._around.base, self.shape, seed=self._seed)
            if self._snapshot >= 0:
                self._trained.load(self._state(), optimizer=True)
        return self._trained

    def _keep_state(self, record: Recorded) -> None:
        """Write a snapshot where it is time for one and no gradient has come together."""
        self._steps += record.kind == "optim_step"
        much = self._steps >= _STEPS or self._seconds > _SECONDS or self._journal.size > _JOURNAL_BYTES
        due = record.kind == "load_weights" or (much and record.kind == "optim_step")
        if not due or self._model.has_gradient:
            return
        old, self._snapshot = self._state(), record.seq_id
        self._steps, self._seconds = 0, 0.0
        with whole_folder(self._state()) as beside:
            self._model.save(beside)
            write_json(beside / _OUTCOMES, [(seq, _encoded(one)) for seq, one in self._outcomes.items()])
        self._journal.drop_until(record.seq_id)
        shutil.rmtree(old, ignore_errors=True)

    def _create(self, record: Recorded) -> Outcome:
        _ = self._model
        return Outcome({"type": "create_model", "model_id": self.id})

    def _forward_backward(self, record: Recorded) -> Outcome:
        message = schema.parsed("ForwardBackwardRequest", record.body)
        call = read_forward_backward(message, self._around.base.rules)
        return Outcome(message=self._model.forward_backward(call))

    def _optim_step(self, record: Recorded) -> Outcome:
        asked = checked(OptimStep, json.loads(record.body))
        return Outcome({"metrics": self._model.optim_step(asked.adam_params)})

    def _load(self, record: Recorded) -> Outcome:
        asked = checked(LoadWeights, json.loads(record.body))
        saved = self._around.store.find(asked.path)
        if f"/{TRAINING}/" not in asked.path:
            raise RefusedError(400, f"{asked.path} is to sample from: load one that save_state wrote")
        mine, theirs = (shape.model_copy(update={"seed": None}) for shape in (self.shape, saved.shape))
        if saved.base_model != self._around.base.name or mine != theirs:
            raise RefusedError(400, f"{asked.path} is of {saved.base_model} with adapters {theirs}")
        self._model.load(saved.folder, optimizer=asked.optimizer)
        return Outcome({"type": "load_weights", "path": asked.path, "model_id": self.id})

    def _save(self, record: Recorded) -> Outcome:
        asked = checked(SaveWeights, json.loads(record.body))
        path = f"tinker://{self.id}/{TRAINING}/{asked.path}"
        self._write(record, path, self._model.save, asked.user_metadata, overwrite=asked.overwrite)
        return Outcome({"type": "save_weights", "path": path})

    def _save_for_sampler(self, record: Recorded) -> Outcome:
        asked = checked(SaveForSampler, json.loads(record.body))
        if asked.path is not None:
            path = f"tinker://{self.id}/{SAMPLER}/{asked.path}"
            self._write(record, path, self._write_adapter, asked.user_metadata)
            return Outcome({"type": "save_weights_for_sampler", "path": path})
        folder = self.folder / "samplers" / str(asked.sampling_session_seq_id)
        self._write_into(folder, self._write_adapter)
        for old in sorted(folder.parent.glob("[0-9]*"), key=lambda one: int(one.name))[:-_EPHEMERAL]:
            shutil.rmtree(old)
        sampler = f"{self.id.partition(':')[0]}:sample:{asked.sampling_session_seq_id}"
        write_json(
            self.folder.parents[1] / "samplers" / f"{asked.sampling_session_seq_id}.json",
            {"sampler_id": sampler, "base_model": self._around.base.name, "folder": str(folder)},
        )
        return Outcome({"type": "save_weights_for_sampler", "sampling_session_id": sampler})

    def _write_adapter(self, folder: Path) -> None:
        self._around.base.write_adapter(self._model.model, self.shape, folder)

    def _write(
        self,
        record: Recorded,
        path: str,
        write: Callable[[Path], None],
        user_metadata: dict[str, str],
        *,
        overwrite: bool = False,
    ) -> None:
        """Save under a name. A request that is done again after a crash finds its own there."""
        folder, by = self._around.store.folder(path), self._request_id(record.seq_id)
        if folder.is_dir() and not overwrite and self._around.store.find(path).said.get("by") != by:
            raise RefusedError(409, f"{path} is there already: save under another name, or say overwrite")
        self._write_into(folder, write, path=path, user_metadata=user_metadata, by=by)

    def _write_into(self, folder: Path, write: Callable[[Path], None], **said: Any) -> None:
        write_saved(folder, write, base_model=self._around.base.name, shape=self.shape, **said)
        self._around.engines.forget(folder)

    _DO: Mapping[str, Callable[["ClientModel", Recorded], Outcome]] = {
        "create_model": _create,
        "forward_backward": _forward_backward,
        "optim_step": _optim_step,
        "load_weights": _load,
        "save_weights": _save,
        "save_weights_for_sampler": _save_for_sampler,
    }


def _encoded(outcome: Outcome) -> dict[str, Any]:
    message = None if outcome.message is None else base64.b64encode(outcome.message).decode()
    return {"value": outcome.value, "message": message, "error": outcome.error}


def _decoded(said: dict[str, Any]) -> Outcome:
    message = None if said["message"] is None else base64.b64decode(said["message"])
    return Outcome(said["value"], message, said["error"])
