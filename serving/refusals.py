"""Errors of the API: whatever raised one, the caller gets it as JSON in the dialect that it speaks.

A response to a body that is not read to its end closes the connection. What was sent already is read first and
thrown away, within bounds: closing on it could destroy the response on its way.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from vertigym.dialects.chat_call import RefusedError
from vertigym.dialects.registry import dialect_of

_DISCARDED_BYTES = 16_000_000
_DISCARDED_S = 2.0


async def end(http: Request, response: Response) -> Response:
    """The response; it closes the connection where the body does not come to its end."""
    if not await _discard(http):
        response.headers["Connection"] = "close"
    return response


async def _discard(http: Request) -> bool:
    """Read what is left of the body; False where that takes too long or too much."""
    size = 0
    with suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(_DISCARDED_S):
            try:
                async for chunk in http.stream():
                    size += len(chunk)
                    if size > _DISCARDED_BYTES:
                        return False
            except RuntimeError:  # starlette's: it was read to its end already
                pass
            return True
    return False


async def _refused(http: Request, error: Any) -> Response:
    return await end(http, _response(http, error.status, str(error), error.headers, error.param, error.code))


async def _not_routed(http: Request, error: Any) -> Response:
    message = f"{http.method} {http.url.path[:100]}: {error.detail}"
    return await end(http, _response(http, error.status_code, message, error.headers))


async def _hung_up(http: Request, error: Any) -> Response:
    return _response(http, 499, "the caller hung up")  # nginx's status for it; nobody reads it


async def _failed(http: Request, error: Any) -> Response:
    return _response(http, 500, "the server failed; its log has the traceback")


def _response(
    http: Request,
    status: int,
    message: str,
    headers: Mapping[str, str] | None = None,
    param: str | None = None,
    code: str | None = None,
) -> JSONResponse:
    dialect = dialect_of(http.url.path, http.headers)
    return JSONResponse(dialect.error(status, message, param, code), status, headers)


HANDLERS: Mapping[Any, Any] = {
    RefusedError: _refused,
    HTTPException: _not_routed,
    ClientDisconnect: _hung_up,
    Exception: _failed,
}
