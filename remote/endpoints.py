"""The HTTP side of `vertigym tinker`: Tinker's API over `ClientSessions`.

A call that takes time is answered at once with the id of its result, which clients wait for with
`retrieve_future`. A request that has a place in its model's order is refused by its result, not by its status:
a client that was refused a number would wait for those after it for ever.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from vertigym.dialects.chat_call import RefusedError
from vertigym.dialects.wire_models import request_json
from vertigym.remote import call_models as wire
from vertigym.remote import schema
from vertigym.remote.call_models import check_version, checked
from vertigym.remote.client_sessions import ClientSessions
from vertigym.remote.futures import Outcome
from vertigym.remote.journal import Recorded
from vertigym.serving.admission import Admission
from vertigym.serving.refusals import HANDLERS

_POLL_S = 20.0  # a client gives up on a connection after 45
_BODY_BYTES = 64_000_000
_PROTOBUF = "application/x-protobuf"
Handler = Callable[[Request], Awaitable[Any]]


class TinkerServer:
    """The API. `key`: what clients must send; empty: anybody on this machine."""

    def __init__(self, sessions: ClientSessions, *, key: str = "") -> None:
        self._sessions = sessions
        self._admission = Admission(key, 0)

    def app(self) -> Starlette:
        """The ASGI application."""
        posts: dict[str, Handler] = {
            "client/config": self._nothing,
            "client/dynamic_config": self._nothing,
            "create_session": self._create_session,
            "session_heartbeat": self._heartbeat,
            "sessions/{session}/finish": self._finish,
            "telemetry": self._telemetry,
            "create_model": self._create_model,
            "get_info": self._info,
            "unload_model": self._unload,
            "forward_backward": self._forward_backward,
            "optim_step": self._ordered("optim_step"),
            "save_weights": self._ordered("save_weights"),
            "save_weights_for_sampler": self._ordered("save_weights_for_sampler"),
            "load_weights": self._load,
            "weights_info": self._weights_info,
            "create_sampling_session": self._create_sampler,
            "asample": self._sample,
            "retrieve_future": self._retrieve,
            "cancel_future": self._nothing,
        }
        gets: dict[str, Handler] = {
            "healthz": self._health,
            "get_server_capabilities": self._capabilities,
            "samplers/{sampler}": self._sampler,
            "sessions/{session}": self._session,
            "training_runs": self._training_runs,
            "training_runs/{model}": self._training_run,
            "training_runs/{model}/checkpoints": self._checkpoints,
            "checkpoints": self._checkpoints,
        }
        routes = [Route(f"/api/v1/{path}", self._answer(h), methods=["POST"]) for path, h in posts.items()]
        routes += [Route(f"/api/v1/{path}", self._answer(h), methods=["GET"]) for path, h in gets.items()]
        deleted = "/api/v1/training_runs/{model}/checkpoints/{kind}/{name}"
        routes.append(Route(deleted, self._answer(self._delete), methods=["DELETE"]))
        return Starlette(routes=routes, exception_handlers=HANDLERS, lifespan=self._life)

    def config(self) -> uvicorn.Config:
        """How uvicorn is to run it."""
        return uvicorn.Config(
            self.app(), log_level="warning", ws="none", http="h11", loop="asyncio", timeout_graceful_shutdown=5
        )

    @asynccontextmanager
    async def _life(self, _: Starlette) -> AsyncIterator[None]:
        yield
        self._sessions.close()

    def _answer(self, handle: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def answer(http: Request) -> Response:
            self._admission.check(http)
            check_version(http.headers.get("x-sdk-version", ""))
            value = await handle(http)
            return value if isinstance(value, Response) else JSONResponse(value)

        return answer

    async def _nothing(self, _: Request) -> Any:
        return {}  # the client's own defaults hold

    async def _health(self, _: Request) -> Any:
        return {"status": "ok"}

    async def _telemetry(self, _: Request) -> Any:
        return {"status": "accepted"}  # and read by nobody

    async def _capabilities(self, _: Request) -> Any:
        models = [
            {
                "model_name": name,
                "max_context_length": base.rules.context,
                "trainable": True,
                "sampleable": True,
            }
            for name, base in self._sessions.bases.items()
        ]
        return {"supported_models": models}

    async def _create_session(self, http: Request) -> Any:
        asked = checked(wire.CreateSession, await _json(http))
        check_version(asked.sdk_version)
        return {"type": "create_session", "session_id": self._sessions.create(asked)}

    async def _heartbeat(self, http: Request) -> Any:
        self._sessions.touch(checked(wire.OfSession, await _json(http)).session_id)
        return {"type": "session_heartbeat"}

    async def _finish(self, http: Request) -> Any:
        said = await _json(http)
        self._sessions.finish(
            http.path_params["session"], said.get("reason") if isinstance(said, dict) else None
        )
        return {}

    async def _session(self, http: Request) -> Any:
        said = self._sessions.session(http.path_params["session"])
        mine = f"{said['session_id']}:"
        models = [one["model_id"] for one in self._sessions.all_models() if one["model_id"].startswith(mine)]
        return {"training_run_ids": models, "sampler_ids": [], "display_name": said["display_name"] or None}

    async def _create_model(self, http: Request) -> Any:
        model_id, request_id = self._sessions.create_model(checked(wire.CreateModel, await _json(http)))
        return {"request_id": request_id, "model_id": model_id}

    async def _info(self, http: Request) -> Any:
        model_id = checked(wire.OfModel, await _json(http)).model_id
        said = self._sessions.model_facts(model_id)
        base = self._sessions.base(said["base_model"])
        return {
            "type": "get_info",
            "model_id": model_id,
            "model_data": {
                "arch": base.architecture,
                "model_name": base.name,
                "tokenizer_id": str(base.folder),
            },
            "is_lora": True,
            "lora_rank": said["shape"]["rank"],
            "model_name": base.name,
        }

    async def _unload(self, http: Request) -> Any:
        model_id = checked(wire.OfModel, await _json(http)).model_id
        self._sessions.model_facts(model_id)
        request_id = f"unload:{model_id}"  # it goes with its session
        self._sessions.futures.finish(request_id, Outcome({"type": "unload_model", "model_id": model_id}))
        return {"request_id": request_id, "model_id": model_id}

    async def _forward_backward(self, http: Request) -> Any:
        body = await _body(http)
        message = schema.read("ForwardBackwardRequest", body)
        return self._accept(message.model_id, message.seq_id, "forward_backward", body)

    def _ordered(self, kind: str) -> Handler:
        async def accept(http: Request) -> Any:
            body = await _body(http)
            said = request_json(body)
            return self._accept(*_place(said), kind, body)

        return accept

    def _accept(self, model_id: str, seq_id: int, kind: str, body: bytes) -> Any:
        if seq_id < 1:
            raise RefusedError(400, f"seq_id {seq_id}: a model's requests are numbered from 1 on")
        request_id = self._sessions.model(model_id).accept(Recorded(seq_id, kind, body))
        return {"request_id": request_id, "model_id": model_id}

    async def _load(self, http: Request) -> Any:
        body = await _body(http)
        said = request_json(body)
        if isinstance(said, dict) and said.get("session_id"):
            asked = checked(wire.LoadWeights, said)
            if asked.model_seq_id is None or asked.model_id is not None:
                raise RefusedError(
                    400, "load_weights: give session_id and model_seq_id, or model_id and seq_id"
                )
            model_id, request_id = self._sessions.create_model(asked)
            return {"request_id": request_id, "model_id": model_id}
        return self._accept(*_place(said), "load_weights", body)

    async def _weights_info(self, http: Request) -> Any:
        saved = self._sessions.checkpoints.find(checked(wire.OfPath, await _json(http)).tinker_path)
        shape = saved.shape
        return {
            "base_model": saved.base_model,
            "is_lora": True,
            "lora_rank": shape.rank,
            **{name: getattr(shape, name) for name in ("train_unembed", "train_mlp", "train_attn")},
        }

    async def _create_sampler(self, http: Request) -> Any:
        sampler = self._sessions.create_sampler(checked(wire.CreateSampler, await _json(http)))
        return {"type": "create_sampling_session", "sampling_session_id": sampler}

    async def _sampler(self, http: Request) -> Any:
        said = self._sessions.sampler(http.path_params["sampler"])
        return {name: said.get(name) for name in ("sampler_id", "base_model", "model_path")}

    async def _sample(self, http: Request) -> Any:
        call = checked(wire.SampleCall, await _json(http))
        request_id = self._sessions.sample(call)
        ids = [f"{request_id}:{i}" for i in range(call.num_samples)]
        return {"request_id": request_id, "sample_sequence_ids": ids}

    async def _retrieve(self, http: Request) -> Any:
        asked = checked(wire.RetrieveFuture, await _json(http))
        outcome = await self._sessions.result(asked.request_id, _POLL_S)
        if outcome is None:
            return {"type": "try_again", "request_id": asked.request_id, "queue_state": "active"}
        if outcome.message is not None:
            return Response(outcome.message, media_type=_PROTOBUF)
        return outcome.json()

    async def _training_runs(self, http: Request) -> Any:
        runs = [self._run(said) for said in self._sessions.all_models()]
        return {"training_runs": runs, "cursor": {"offset": 0, "limit": len(runs), "total_count": len(runs)}}

    async def _training_run(self, http: Request) -> Any:
        return self._run(self._sessions.model_facts(http.path_params["model"]))

    def _run(self, said: dict[str, Any]) -> dict[str, Any]:
        return {
            "training_run_id": said["model_id"],
            "base_model": said["base_model"],
            "model_owner": "local",
            "is_lora": True,
            "lora_rank": said["shape"]["rank"],
            "last_request_time": said["time"],
        }

    async def _checkpoints(self, http: Request) -> Any:
        found = self._sessions.checkpoints.all(http.path_params.get("model", ""))
        return {"checkpoints": [saved.listed() for saved in found]}

    async def _delete(self, http: Request) -> Any:
        at = http.path_params
        self._sessions.checkpoints.delete(f"tinker://{at['model']}/{at['kind']}/{at['name']}")
        return {}


def _place(said: Any) -> tuple[str, int]:
    """The model and the number of a request.

    Raises:
        RefusedError: it does not say them.
    """
    if not isinstance(said, dict):
        raise RefusedError(400, "the body is a JSON object")
    model_id, seq_id = said.get("model_id"), said.get("seq_id")
    if not isinstance(model_id, str) or not isinstance(seq_id, int):
        raise RefusedError(400, "say model_id, a text, and seq_id, a whole number")
    return model_id, seq_id


async def _json(http: Request) -> Any:
    return request_json(await _body(http) or b"{}")


async def _body(http: Request) -> bytes:
    if encoding := http.headers.get("content-encoding"):
        raise RefusedError(415, f"Content-Encoding {encoding[:20]!r}: send the body as it is")
    body = bytearray()
    async for chunk in http.stream():
        body += chunk
        if len(body) > _BODY_BYTES:
            raise RefusedError(413, f"the body is larger than {_BODY_BYTES:,} bytes")
    return bytes(body)
