"""The HTTP side of `vertigym serve`: chat completions, models, feedback.

Every reply is recorded, with the model's version, before it is sent. A caller that hangs up ends its
generation, and its record says that it was not delivered.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import uvicorn
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from vertigym.core.chat_wire import (
    RefusedError,
    chunks,
    event_stream,
    refuse_unsupported,
    reply,
    request_json,
)
from vertigym.core.errors import EngineError
from vertigym.core.files import dumps
from vertigym.core.types import Completion, Policy, Prompt, Sampling, StopReason
from vertigym.serving.admission import Admission, trusted_networks
from vertigym.serving.batcher import Batcher, QueueFullError
from vertigym.serving.chat_api import FeedbackRequest, ServedRequest
from vertigym.serving.recorder import Recorder
from vertigym.serving.refusals import HANDLERS, end
from vertigym.traces.records import Trace, reason

M = TypeVar("M", bound=BaseModel)

_CONNECTIONS = 1000  # open at once, idle ones too; who waits for an answer is counted by the batcher


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What one request may ask for, and how often one client may ask. `per_minute` 0: no limit. `body_s`: how
    long a body may take to arrive."""

    body_bytes: int = 1_000_000
    body_s: float = 30
    max_tokens: int = 512
    per_minute: float = 600
    waiting: int = 256
    batch: int = 64


class ChatServer:
    """A policy with its name and version, the record of its answers, and the limits on requests."""

    def __init__(
        self,
        policy: Policy,
        recorder: Recorder,
        *,
        name: str,
        version: str,
        key: str = "",
        limits: ServerLimits,
    ) -> None:
        self.name, self.version, self.limits = name, version, limits
        self._admission = Admission(key, limits.per_minute)
        self._batcher = Batcher(policy, most=limits.batch, waiting=limits.waiting)
        self._recorder = recorder
        self._known = recorder.known()

    def app(self) -> Starlette:
        """The ASGI application."""
        check = self._admission.check
        routes = [
            Route("/health", _behind(self._admission.check_host, self._health), methods=["GET"]),
            Route("/v1/models", _behind(check, self._models), methods=["GET"]),
            Route("/v1/chat/completions", _behind(check, self._chat), methods=["POST"]),
            Route("/feedback", _behind(check, self._feedback), methods=["POST"]),
        ]
        return Starlette(routes=routes, exception_handlers=HANDLERS, lifespan=self._life)

    def config(self, proxies: Sequence[str] = ()) -> uvicorn.Config:
        """How uvicorn is to run it. Only `proxies` say for whom they ask (X-Forwarded-For): the caller is the
        last address that is not a proxy's.

        Raises:
            ConfigError: as in `trusted_networks`.
        """
        return uvicorn.Config(
            self.app(),
            log_level="warning",
            ws="none",
            http="h11",
            loop="asyncio",
            limit_concurrency=max(_CONNECTIONS, 4 * self.limits.waiting),
            timeout_graceful_shutdown=30,
            forwarded_allow_ips=trusted_networks(proxies),  # an empty list: nobody
        )

    @asynccontextmanager
    async def _life(self, _: Starlette) -> AsyncIterator[None]:
        yield
        self._batcher.close()
        self._recorder.close()

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _models(self, _: Request) -> Response:
        known = {"id": self.name, "object": "model", "created": 0, "owned_by": "vertigym"}
        return JSONResponse({"object": "list", "data": [known | {"version": self.version}]})

    async def _chat(self, http: Request) -> Response:
        request = await self._read(http, ServedRequest)
        if request.model != self.name:
            message = f"no model {request.model[:100]!r} here: this is {self.name!r}"
            raise RefusedError(404, message, "model_not_found", param="model")
        refuse_unsupported(request)
        began, call = time.time(), f"chatcmpl-{uuid.uuid4().hex}"
        hung_up = asyncio.ensure_future(_disconnect(http))
        try:
            completion = await self._complete(request, hung_up)
        finally:
            delivered = not hung_up.done()
            hung_up.cancel()
        row = self._row(call, began, request, completion)
        await self._record(row if delivered else row | {"delivered": False})
        if not delivered:
            raise RefusedError(499, "the caller hung up")
        self._known.add(call)
        if not request.stream:
            return _json(reply(call, request, completion, self.version, int(began)))
        events = event_stream(chunks(call, request, completion, self.version, int(began)))
        return StreamingResponse(iter(events), media_type="text/event-stream")

    async def _complete(self, request: ServedRequest, hung_up: "asyncio.Future[None]") -> Completion:
        limit = min(request.limit or self.limits.max_tokens, self.limits.max_tokens)
        sampling = Sampling(temperature=request.temperature, top_p=request.top_p, max_tokens=limit)
        try:
            prompt = Prompt(request.messages, seed=request.seed % 2**63, tools=request.shown_tools)
            completion = await self._batcher.ask(prompt, sampling, hung_up)
        except QueueFullError:
            raise RefusedError(503, "too many requests are waiting", "overloaded", retry_s=1) from None
        except EngineError as error:
            raise RefusedError(503, f"the engine failed: {error}", "engine") from None
        if hung_up.done():
            return completion
        if completion.stop_reason is StopReason.ERROR:
            raise RefusedError(503, f"the engine failed: {completion.error}", "engine")
        if completion.stop_reason is StopReason.LENGTH and not completion.completion_tokens:
            raise RefusedError(400, "the messages fill the model's context", "context_length_exceeded")
        return completion

    async def _feedback(self, http: Request) -> Response:
        said = await self._read(http, FeedbackRequest)
        if said.id not in self._known:
            raise RefusedError(
                404, f"no call {said.id!r} is on record here: give the id of a reply", "not_found", param="id"
            )
        await self._record(said.row())
        return JSONResponse({"id": said.id, "recorded": True})

    async def _record(self, row: dict[str, Any]) -> None:
        try:
            await self._recorder.append(dumps(row) + "\n")
        except OSError as error:
            raise RefusedError(
                500, f"it could not be recorded ({error.strerror}), so it is not answered"
            ) from None

    async def _read(self, http: Request, model: type[M]) -> M:
        """The request's body as a `model`: JSON within the limits."""
        if http.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise RefusedError(415, "the body is JSON: send Content-Type: application/json")
        value = request_json(await self._body(http))
        try:
            return model.model_validate(value)
        except ValidationError as error:
            where = error.errors()[0]["loc"][:1]
            raise RefusedError(400, reason(error), param=str(where[0]) if where else None) from None

    async def _body(self, http: Request) -> bytes:
        body = bytearray()
        try:
            async with asyncio.timeout(self.limits.body_s):
                async for chunk in http.stream():
                    body += chunk
                    if len(body) > self.limits.body_bytes:
                        raise RefusedError(413, f"the body is larger than {self.limits.body_bytes:,} bytes")
        except TimeoutError:
            raise RefusedError(408, f"the body was not whole within {self.limits.body_s:g} s") from None
        return bytes(body)

    def _row(self, call: str, began: float, request: ServedRequest, completion: Completion) -> dict[str, Any]:
        """The call as a Trace on record."""
        usage = {
            "prompt_tokens": completion.prompt_tokens,
            "completion_tokens": completion.completion_tokens,
            "latency_s": round(time.time() - began, 4),
            "temperature": request.temperature,
        }
        tools = {"tools": list(request.shown_tools)} if request.shown_tools else {}
        trace = Trace(
            id=call,
            time=began,
            messages=request.messages,
            completion=completion.text,
            model=self.name,
            version=self.version,
            customer=request.user,
            documents=request.documents,
            meta={**request.metadata, **tools, "usage": usage},
        )
        return trace.model_dump(mode="json", exclude_defaults=True)


def _behind(
    check: Callable[[Request], None], handle: Callable[[Request], Awaitable[Response]]
) -> Callable[[Request], Awaitable[Response]]:
    """The handler of requests that pass the check."""

    async def answer(http: Request) -> Response:
        check(http)
        return await end(http, await handle(http))

    return answer


async def _disconnect(http: Request) -> None:
    """Returns when the caller, whose body was read, closes the connection."""
    while (await http.receive())["type"] != "http.disconnect":
        pass


def _json(value: Any) -> Response:
    """JSON that holds whatever a model writes, half a surrogate pair, too."""
    return Response(dumps(value), media_type="application/json")
