"""The HTTP side of `vertigym serve`: calls in three dialects, models, feedback.

Every reply is recorded, with the model's version, before it is sent. A caller that hangs up ends its
generation, and its record says that it was not delivered.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import time
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from vertigym.core.files import dumps
from vertigym.core.types import Policy
from vertigym.dialects.chat_call import RefusedError, ReplyHead
from vertigym.dialects.dialect import Dialect
from vertigym.dialects.registry import DIALECTS, MESSAGES, models_json
from vertigym.dialects.wire_models import request_json, validated
from vertigym.serving.admission import Admission, trusted_networks
from vertigym.serving.batcher import Batcher
from vertigym.serving.feedback import FeedbackRequest
from vertigym.serving.model_calls import ModelCalls, ServedModel
from vertigym.serving.recorder import Recorder
from vertigym.serving.refusals import HANDLERS, end

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
        self._calls = ModelCalls(ServedModel(policy, name, version, limits.max_tokens), self._batcher, recorder)

    def app(self) -> Starlette:
        """The ASGI application."""
        check = self._admission.check
        routes = [
            Route("/health", _behind(self._admission.check_host, self._health), methods=["GET"]),
            Route("/v1/models", _behind(check, self._models), methods=["GET"]),
            *(
                Route(path, _behind(check, self._answering(dialect)), methods=["POST"])
                for path, dialect in DIALECTS.items()
            ),
            Route(f"{MESSAGES.path}/count_tokens", _behind(check, self._count), methods=["POST"]),
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
        await self._calls.finish()
        self._batcher.close()
        self._recorder.close()

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _models(self, _: Request) -> Response:
        return JSONResponse(models_json(self.name, self.version))

    def _answering(self, dialect: Dialect) -> Callable[[Request], Awaitable[Response]]:
        """The handler of calls in a dialect."""

        async def answer(http: Request) -> Response:
            call = dialect.read(await self._json(http))
            self._calls.check(call)
            head = ReplyHead(f"{dialect.prefix}{uuid.uuid4().hex}", call, self.version, int(time()))
            hung_up = asyncio.ensure_future(_disconnect(http))
            if not call.stream:
                return _json(dialect.body(await self._calls.reply(head, hung_up)))
            events = self._calls.events(dialect, head, hung_up)
            await anext(events)
            return StreamingResponse(events, media_type="text/event-stream")

        return answer

    async def _count(self, http: Request) -> Response:
        value = await self._json(http)
        call = MESSAGES.read(value | {"max_tokens": 1} if isinstance(value, dict) else value)
        return JSONResponse({"input_tokens": self._calls.count(call)})

    async def _feedback(self, http: Request) -> Response:
        said = validated(FeedbackRequest, await self._json(http))
        if said.id not in self._calls.known:
            raise RefusedError(
                404, f"no call {said.id!r} is on record here: give the id of a reply", "not_found", param="id"
            )
        await self._calls.record(said.row())
        return JSONResponse({"id": said.id, "recorded": True})

    async def _json(self, http: Request) -> Any:
        """The JSON of a request's body, within the limits."""
        if http.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise RefusedError(415, "the body is JSON: send Content-Type: application/json")
        return request_json(await self._body(http))

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
