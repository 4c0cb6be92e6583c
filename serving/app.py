"""The HTTP side of `vertigym serve`: chat completions, models, feedback; keys and limits.

Without a key a server listens on this machine only, accepts only this machine's host names (against DNS
rebinding by a web page) and only JSON (against HTML forms). Every reply is recorded, with the model's version,
before it is sent.
"""

import hmac
import ipaddress
import json
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from vertigym.core.errors import ConfigError, EngineError
from vertigym.core.files import dumps
from vertigym.core.types import Completion, Policy, Prompt, Sampling, StopReason
from vertigym.serving.batcher import Batcher, QueueFullError
from vertigym.serving.chat_api import ChatRequest, FeedbackRequest, chunks, fault, reply
from vertigym.serving.recorder import Recorder
from vertigym.traces.records import Trace, reason

M = TypeVar("M", bound=BaseModel)
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1", "[::1]")
_CLIENTS = 10_000  # whose rate is remembered


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What one request may ask for, and how often one client may ask. `per_minute` 0: no limit."""

    body_bytes: int = 1_000_000
    max_tokens: int = 512
    per_minute: float = 600
    waiting: int = 256
    batch: int = 64


class RefusedError(Exception):
    """A request that is answered with an error status."""

    def __init__(self, status: int, message: str, code: str | None = None, retry_s: int = 0) -> None:
        super().__init__(message)
        self.status, self.code, self.retry_s = status, code, retry_s


def check_address(host: str, key: str) -> None:
    """Refuse an address that others can reach, without a key.

    Raises:
        ConfigError: `host` is not this machine's own and there is no key, or the key is short.
    """
    if key and len(key) < 16:
        raise ConfigError("the key is shorter than 16 characters: make one with openssl rand -hex 24")
    if not key and not is_loopback(host):
        raise ConfigError(
            f"host {host!r} can be reached by others, and there is no key: set VERTIGYM_SERVE_KEY, "
            "or use 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


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
        self._key = key.encode()
        self._batcher = Batcher(policy, most=limits.batch, waiting=limits.waiting)
        self._recorder = recorder
        self._known = recorder.known()
        self._rate_limiter = RateLimiter(limits.per_minute)

    def app(self) -> Starlette:
        """The ASGI application."""
        local = [] if self._key else [Middleware(TrustedHostMiddleware, allowed_hosts=list(_LOCAL_NAMES))]
        routes = [
            Route("/health", self._health, methods=["GET"]),
            Route("/v1/models", self._answering(self._models), methods=["GET"]),
            Route("/v1/chat/completions", self._answering(self._chat), methods=["POST"]),
            Route("/feedback", self._answering(self._feedback), methods=["POST"]),
        ]
        return Starlette(routes=routes, middleware=local, lifespan=self._life)

    @asynccontextmanager
    async def _life(self, _: Starlette) -> AsyncIterator[None]:
        yield
        self._batcher.close()
        self._recorder.close()

    def _answering(
        self, handle: Callable[[Request], Awaitable[Response]]
    ) -> Callable[..., Awaitable[Response]]:
        """The handler behind the checks of key and rate; a RefusedError becomes an error response."""

        async def answer(request: Request) -> Response:
            try:
                self._admit(request)
                return await handle(request)
            except RefusedError as no:
                kind = "server_error" if no.status >= 500 else "invalid_request_error"
                headers = {"Retry-After": str(no.retry_s)} if no.retry_s else None
                return JSONResponse(fault(str(no), kind, no.code), no.status, headers)

        return answer

    def _admit(self, request: Request) -> None:
        if self._key:
            given = request.headers.get("authorization", "").removeprefix("Bearer ").encode()
            if not hmac.compare_digest(given, self._key):
                raise RefusedError(
                    401, "no key, or a wrong one: send Authorization: Bearer KEY", "invalid_api_key"
                )
        wait = self._rate_limiter.wait(request.client.host if request.client else "")
        if wait:
            raise RefusedError(
                429, f"more than {self.limits.per_minute:g} requests a minute", "rate_limit", wait
            )

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _models(self, _: Request) -> Response:
        known = {"id": self.name, "object": "model", "created": 0, "owned_by": "vertigym"}
        return JSONResponse({"object": "list", "data": [known | {"version": self.version}]})

    async def _chat(self, http: Request) -> Response:
        request = await self._read(http, ChatRequest)
        if request.model != self.name:
            raise RefusedError(
                404, f"no model {request.model!r} here: this is {self.name!r}", "model_not_found"
            )
        began = time.time()
        completion = await self._complete(request)
        call = f"chatcmpl-{uuid.uuid4().hex}"
        await self._record(self._trace(call, began, request, completion).line())
        self._known.add(call)
        if not request.stream:
            return JSONResponse(reply(call, request, completion, self.version))
        events = [*map(json.dumps, chunks(call, request, completion, self.version)), "[DONE]"]
        return StreamingResponse((f"data: {event}\n\n" for event in events), media_type="text/event-stream")

    async def _complete(self, request: ChatRequest) -> Completion:
        limit = min(request.limit or self.limits.max_tokens, self.limits.max_tokens)
        sampling = Sampling(temperature=request.temperature, top_p=request.top_p, max_tokens=limit)
        try:
            prompt = Prompt(request.messages, seed=request.seed % 2**63)
            completion = await self._batcher.ask(prompt, sampling)
        except QueueFullError:
            raise RefusedError(503, "too many requests are waiting", "overloaded", 1) from None
        except EngineError as error:
            raise RefusedError(503, f"the engine failed: {error}", "engine") from None
        if completion.stop_reason is StopReason.ERROR:
            raise RefusedError(503, f"the engine failed: {completion.error}", "engine")
        if completion.stop_reason is StopReason.LENGTH and not completion.completion_tokens:
            raise RefusedError(400, "the messages fill the model's context", "context_length_exceeded")
        return completion

    async def _feedback(self, http: Request) -> Response:
        said = await self._read(http, FeedbackRequest)
        if said.id not in self._known:
            raise RefusedError(
                404, f"no call {said.id!r} is on record here: give the id of a reply", "not_found"
            )
        await self._record(dumps(said.row()) + "\n")
        return JSONResponse({"id": said.id, "recorded": True})

    async def _record(self, line: str) -> None:
        try:
            await self._recorder.append(line)
        except OSError as error:
            raise RefusedError(
                500, f"it could not be recorded ({error.strerror}), so it is not answered"
            ) from None

    async def _read(self, http: Request, model: type[M]) -> M:
        """The request's body as a `model`, JSON within the limit."""
        if http.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise RefusedError(415, "the body is JSON: send Content-Type: application/json")
        body = bytearray()
        async for chunk in http.stream():
            body += chunk
            if len(body) > self.limits.body_bytes:
                raise RefusedError(413, f"the body is larger than {self.limits.body_bytes:,} bytes")
        try:
            return model.model_validate_json(bytes(body))
        except ValidationError as error:
            raise RefusedError(400, reason(error)) from None

    def _trace(self, call: str, began: float, request: ChatRequest, completion: Completion) -> Trace:
        usage = {
            "prompt_tokens": completion.prompt_tokens,
            "completion_tokens": completion.completion_tokens,
            "latency_s": round(time.time() - began, 4),
            "temperature": request.temperature,
        }
        return Trace(
            id=call,
            time=began,
            messages=request.messages,
            completion=completion.text,
            model=self.name,
            version=self.version,
            customer=request.user,
            documents=request.documents,
            meta={**request.metadata, "usage": usage},
        )


class RateLimiter:
    """Token buckets: each client may ask `per_minute` times a minute, all at once if it likes."""

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._most, self._clock = per_minute / 60, max(1.0, per_minute), clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str) -> int:
        """0, or the whole seconds after which `client` may ask again."""
        if not self._rate:
            return 0
        now = self._clock()
        left, seen = self._left.pop(client, (self._most, now))
        left = min(self._most, left + (now - seen) * self._rate)
        self._left[client] = (left - 1 if left >= 1 else left, now)
        if len(self._left) > _CLIENTS:
            self._left.popitem(last=False)
        return 0 if left >= 1 else max(1, round((1 - left) / self._rate + 0.5))
