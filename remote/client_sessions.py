"""What clients have here: sessions, models and sampling sessions, in a folder that outlives the server.

STORE/sessions/SESSION/session.json
STORE/sessions/SESSION/models/0/            a model: what it is, its journal, its last snapshot
STORE/sessions/SESSION/samplers/0.json      a sampling session: which weights
STORE/checkpoints/SESSION.train.0/…         what was saved under a name
"""

import asyncio
import logging
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vertigym.core.errors import suggest
from vertigym.core.files import dumps, read_json, write_json
from vertigym.dialects.chat_call import RefusedError
from vertigym.remote.adapted_base import AdaptedBase
from vertigym.remote.call_models import (
    CreateModel,
    CreateSampler,
    CreateSession,
    LoadWeights,
    SampleCall,
)
from vertigym.remote.checkpoint_store import CheckpointStore, SavedWeights, read_saved
from vertigym.remote.client_model import MODEL_FILE, ClientModel, Surroundings
from vertigym.remote.futures import Futures, Outcome
from vertigym.remote.journal import Recorded
from vertigym.remote.sample_queue import SampleQueue, WaitingCall
from vertigym.remote.samplers import SamplingEngines

_ID = re.compile(r"([a-z0-9]+):(train|sample):(\d+)")
_IDLE_S = 600.0  # without a sign of life, a session's models leave the memory
_log = logging.getLogger(__name__)


class ClientSessions:
    """Everything that clients have, over these bases. All but the work itself happens on the event loop.

    Args:
        most_samples: calls that may wait to be sampled.
    """

    def __init__(self, bases: Mapping[str, AdaptedBase], store: Path, *, most_samples: int = 2000) -> None:
        self.bases = bases
        self.checkpoints = CheckpointStore(store / "checkpoints")
        self.futures = Futures()
        self._engines = {name: SamplingEngines(base) for name, base in bases.items()}
        self._root = store / "sessions"
        self._models: dict[str, ClientModel] = {}
        self._seen: dict[str, float] = {}
        self._waiting = SampleQueue()
        self._most_samples = most_samples
        self._worker = ThreadPoolExecutor(1, "remote")

    def close(self) -> None:
        """End the worker; what is queued is on disk and done after the next start."""
        self._worker.shutdown(cancel_futures=True)

    def work(self, request_id: str, job: Callable[[], Outcome]) -> None:
        """Do it when its turn has come, and tell who waits."""
        self._submit(lambda: _outcomes([request_id], lambda: [job()]))

    def _submit(self, jobs: Callable[[], Mapping[str, Outcome]]) -> None:
        loop = asyncio.get_running_loop()

        def attempt() -> None:
            for request_id, outcome in jobs().items():
                loop.call_soon_threadsafe(self.futures.finish, request_id, outcome)

        self._worker.submit(attempt)

    def base(self, name: str) -> AdaptedBase:
        """
        Raises:
            RefusedError: there is no base of this name.
        """
        if name not in self.bases:
            raise RefusedError(404, f"no base model {name[:100]!r} here{suggest(name, self.bases)}")
        return self.bases[name]

    def create(self, asked: CreateSession) -> str:
        """A new session's id."""
        session = uuid.uuid4().hex[:12]
        said = asked.model_dump() | {"session_id": session, "time": datetime.now(UTC).isoformat()}
        for part in ("models", "samplers"):
            (self._root / session / part).mkdir(parents=True)
        write_json(self._root / session / "session.json", said)
        self.touch(session)
        return session

    def touch(self, session: str) -> None:
        """It is alive; models of sessions that are not leave the memory.

        Raises:
            RefusedError: there is no such session, or it is finished.
        """
        said = self.session(session)
        if said.get("finished"):
            raise RefusedError(400, f"session {session} is finished: start a new one")
        now = time.monotonic()
        self._seen[session] = now
        for gone in [one for one, seen in self._seen.items() if now - seen > _IDLE_S]:
            self._leave_memory(gone)
            del self._seen[gone]

    def session(self, session: str) -> dict[str, Any]:
        """What is known of a session.

        Raises:
            RefusedError: there is none of this id.
        """
        file = self._root / session / "session.json"
        if not session.isalnum() or not file.exists():
            raise RefusedError(404, f"no session {session[:100]!r} here")
        said: dict[str, Any] = read_json(file)
        return said

    def finish(self, session: str, reason: Any) -> None:
        """The client is done: what only it could go on with is deleted, what it saved stays."""
        said = self.session(session)
        self._leave_memory(session)
        write_json(self._root / session / "session.json", said | {"finished": reason})
        for leftover in (self._root / session / "models").glob("*/*"):
            if leftover.is_dir():
                shutil.rmtree(leftover)
            elif leftover.name != MODEL_FILE:
                leftover.unlink()

    def _leave_memory(self, session: str) -> None:
        for model_id, model in list(self._models.items()):
            if model_id.startswith(f"{session}:") and model.is_idle:
                del self._models[model_id]

    def create_model(self, asked: CreateModel | LoadWeights) -> tuple[str, str]:
        """`(model id, id of the result)` of a new model."""
        assert asked.session_id is not None
        self.touch(asked.session_id)
        kind = "create_model"
        if isinstance(asked, CreateModel):
            base, shape = asked.base_model, asked.lora_config
        else:
            saved, kind = self.checkpoints.find(asked.path), "load_weights"
            base, shape = asked.base_model or saved.base_model, saved.shape
        self.base(base)
        model_id = f"{asked.session_id}:train:{asked.model_seq_id}"
        folder = self._model_folder(model_id)
        if not (folder / MODEL_FILE).exists():
            folder.mkdir(exist_ok=True)
            said = {
                "model_id": model_id,
                "model_seq_id": asked.model_seq_id,
                "base_model": base,
                "shape": shape.model_dump(),
                "time": datetime.now(UTC).isoformat(),
                "user_metadata": asked.user_metadata,
            }
            write_json(folder / MODEL_FILE, said)
        body = dumps(asked.model_dump(exclude_none=True)).encode()
        return model_id, self.model(model_id).accept(Recorded(0, kind, body))

    def _model_folder(self, model_id: str) -> Path:
        session, number = _parts(model_id, "train")
        return self._root / session / "models" / number

    def model_facts(self, model_id: str) -> dict[str, Any]:
        """What is known of a model.

        Raises:
            RefusedError: there is none of this id.
        """
        file = self._model_folder(model_id) / MODEL_FILE
        if not file.exists():
            raise RefusedError(404, f"no model {model_id[:100]!r} here")
        said: dict[str, Any] = read_json(file)
        return said

    def all_models(self) -> Iterator[dict[str, Any]]:
        """What is known of each model, the oldest first."""
        yield from sorted(
            (read_json(f) for f in self._root.glob(f"*/models/*/{MODEL_FILE}")), key=lambda m: m["time"]
        )

    def model(self, model_id: str) -> ClientModel:
        """A model, made again where it is not in memory.

        Raises:
            RefusedError: there is none of this id, or its session is finished.
        """
        if model_id not in self._models:
            said = self.model_facts(model_id)
            self.touch(model_id.partition(":")[0])
            name = said["base_model"]
            around = Surroundings(
                self.base(name), self._engines[name], self.checkpoints, self.futures, self.work
            )
            self._models[model_id] = ClientModel(self._model_folder(model_id), around)
        return self._models[model_id]

    def create_sampler(self, asked: CreateSampler) -> str:
        """The id of a new sampling session."""
        self.touch(asked.session_id)
        sampler = f"{asked.session_id}:sample:{asked.sampling_session_seq_id}"
        base, saved = self._source(asked.base_model, asked.model_path)
        said = {
            "sampler_id": sampler,
            "base_model": base.name,
            "model_path": asked.model_path,
            "folder": str(saved.folder) if saved else None,
        }
        write_json(self._sampler_file(sampler), said)
        return sampler

    def _source(self, base: str | None, path: str | None) -> tuple[AdaptedBase, SavedWeights | None]:
        if path is None and base is None:
            raise RefusedError(400, "nothing to sample from: give base_model or model_path")
        saved = self.checkpoints.find(path) if path else None
        return self.base(saved.base_model if saved else str(base)), saved

    def _sampler_file(self, sampler: str) -> Path:
        session, number = _parts(sampler, "sample")
        return self._root / session / "samplers" / f"{number}.json"

    def sampler(self, sampler: str) -> dict[str, Any]:
        """What is known of a sampling session.

        Raises:
            RefusedError: there is none of this id.
        """
        file = self._sampler_file(sampler)
        if not file.exists():
            raise RefusedError(404, f"no sampling session {sampler[:100]!r} here")
        said: dict[str, Any] = read_json(file)
        return said

    def sample(self, call: SampleCall) -> str:
        """The id of the result.

        Raises:
            RefusedError: nothing to sample from, or as many calls wait as may.
        """
        if len(self._waiting) >= self._most_samples:
            raise RefusedError(
                429, f"{len(self._waiting)} sample calls wait: ask again later", "rate_limit", retry_s=1
            )
        name = call.sampling_session_id
        request_id = f"{name}:{call.seq_id}" if name else f"sample:{uuid.uuid4().hex}"
        if request_id in self.futures:
            return request_id
        said = self.sampler(name) if name else {}
        saved: SavedWeights | None
        if folder := said.get("folder"):
            if not Path(folder).is_dir():
                raise RefusedError(
                    404, f"the weights of {name} are gone: newer ones of its model took their place"
                )
            base, saved = self.base(said["base_model"]), read_saved(Path(folder))
        else:
            base, saved = self._source(said.get("base_model", call.base_model), call.model_path)
        # Not the session's own id: a program that is run again draws the same numbers.
        seed_path = ("sample", (name or "").partition(":")[2], call.seq_id)
        self.futures.open(request_id)
        self._waiting.put(WaitingCall(request_id, call, base, saved, seed_path))

        def answers() -> Mapping[str, Outcome]:
            calls = self._waiting.take(request_id)
            sample = self._engines[base.name].sample
            return _outcomes(
                [one.id for one in calls], lambda: [Outcome(message=said) for said in sample(calls)]
            )

        self._submit(answers)
        return request_id

    async def result(self, request_id: str, wait_s: float) -> Outcome | None:
        """What came of a request; None where it is not done in time.

        Raises:
            RefusedError: there is no such request, or its result is gone.
        """
        if request_id not in self.futures and ":train:" in request_id:
            self.model(request_id.rpartition(":")[0])  # it may be in its journal
        try:
            return await self.futures.get(request_id, wait_s)
        except KeyError:
            raise RefusedError(410, f"no result of {request_id[:100]!r} is here (any more)") from None


def _outcomes(request_ids: Sequence[str], job: Callable[[], Sequence[Outcome]]) -> Mapping[str, Outcome]:
    """What came of a job, for each request that it is for."""
    if not request_ids:
        return {}
    try:
        return dict(zip(request_ids, job(), strict=True))
    except RefusedError as error:
        failed = Outcome(error=str(error))
    except Exception as error:  # whatever it is, the client that waits is told
        _log.exception("%s failed", request_ids[0])
        failed = Outcome(error=f"the server failed: {type(error).__name__}: {error}"[:500], is_ours=True)
    return dict.fromkeys(request_ids, failed)


def _parts(identity: str, kind: str) -> tuple[str, str]:
    """The session and the number in an id.

    Raises:
        RefusedError: this is no id of the kind.
    """
    found = _ID.fullmatch(identity)
    if not found or found[2] != kind:
        raise RefusedError(
            404, f"{identity[:100]!r} is no id of a {'model' if kind == 'train' else 'sampling session'}"
        )
    return found[1], found[3]
