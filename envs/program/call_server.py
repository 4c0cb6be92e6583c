"""The chat APIs on loopback for the programs of this process; a key says whose call it is.

with_key = calls_server().open(calls)     # the key; close(key) when the episode is over
"""

import http.server
import os
import secrets
import select
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from vertigym.core.files import dumps
from vertigym.dialects.chat_call import RefusedError
from vertigym.dialects.registry import DIALECTS, dialect_of, models_json, sent_key
from vertigym.envs.program.program_calls import ProgramCall, ProgramCalls

_MOST_BYTES = 16 << 20
_SETTLED_S, _LOOK_S = 5.0, 0.002


class ChatCallServer(http.server.ThreadingHTTPServer):
    """The server, on a thread of its own."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self._episodes: dict[str, ProgramCalls] = {}
        self.reading: set[_Handler] = set()  # connections whose next request is not known yet
        threading.Thread(target=self.serve_forever, name="program-calls", daemon=True).start()

    def url(self, key: str) -> str:
        """What an episode's program takes for its API; the key in it serves a client that sends none."""
        return f"http://127.0.0.1:{self.server_address[1]}/rollouts/{key}"

    def open(self, calls: ProgramCalls) -> str:
        """The key by which calls come to `calls`."""
        key = f"sk-{secrets.token_hex(16)}"
        self._episodes[key] = calls
        return key

    def settle(self) -> None:
        """Return once every request that has been sent is known: a program may hang up and end before its call
        is even read. Connections are taken in order, so a new one is the last."""
        own = "127.0.0.1", self.server_address[1]
        with suppress(OSError), socket.create_connection(own, timeout=_SETTLED_S) as last:
            last.sendall(b"GET /v1/models HTTP/1.0\r\n\r\n")
            last.recv(1)
        quiet, end = 0, time.monotonic() + _SETTLED_S
        while quiet < 2 and time.monotonic() < end:  # twice: a thread may have read and not yet said so
            quiet = 0 if any(one.has_more() for one in self.reading.copy()) else quiet + 1
            time.sleep(_LOOK_S)

    def close(self, key: str) -> None:
        """Nothing is answered under this key any more."""
        if calls := self._episodes.pop(key, None):
            calls.close()

    def calls_of(self, key: str) -> ProgramCalls:
        """
        Raises:
            RefusedError: no episode has this key.
        """
        calls = self._episodes.get(key)
        if calls is None:
            raise RefusedError(401, "no episode has this key: send OPENAI_API_KEY", "invalid_api_key")
        return calls

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks is the caller's affair."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: ChatCallServer

    def handle_one_request(self) -> None:
        """Answer the next request of the connection."""
        self.raw_requestline = b""
        self.server.reading.add(self)
        try:
            super().handle_one_request()
        finally:
            self.server.reading.discard(self)

    def has_more(self) -> bool:
        """Whether it has begun to read a request, or has something to read: if only that the caller is gone."""
        try:
            return bool(self.raw_requestline or select.select([self.connection], [], [], 0)[0])
        except (OSError, ValueError):  # closed
            return False

    def do_POST(self) -> None:
        """A call, or a reward."""
        calls: ProgramCalls | None = None
        try:
            body = self._body()
            key, path = self._place()
            calls = self.server.calls_of(key)
            if path == "/reward":
                calls.post_reward(body)
                self._send_json(200, {"recorded": True})
            elif dialect := DIALECTS.get(path):
                retried = self.headers.get("x-stainless-retry-count", "0") != "0"
                key = self.headers.get("idempotency-key", "")
                self._answer(calls, calls.put(body, dialect, retried=retried, key=key))
            else:
                raise RefusedError(404, f"POST {path[:100]}: there are {', '.join(DIALECTS)} and /reward")
        except RefusedError as error:
            if calls:
                calls.faults.append(f"a call was refused: {error}")
            self._refuse(error)

    def do_GET(self) -> None:
        """The one model."""
        try:
            key, path = self._place()
            self.server.calls_of(key)
            if path != "/v1/models":
                raise RefusedError(404, f"GET {path[:100]}: there is /v1/models, and what takes a POST")
            self._send_json(200, models_json("policy", "policy"))
        except RefusedError as error:
            self._refuse(error)

    def _place(self) -> tuple[str, str]:
        """The key and the path of a request; a key in the path counts before one in a header."""
        path = self.path.partition("?")[0]
        _, rollouts, key, *rest = [*path.split("/", 3), "", "", ""][:4]
        if rollouts == "rollouts":
            return key, f"/{rest[0]}"
        return sent_key(self.headers), path

    def _answer(self, calls: ProgramCalls, call: ProgramCall) -> None:
        delivered = False
        self.server.reading.discard(self)
        try:
            answer = calls.wait(call)
            if self._is_there():
                stream = "text/event-stream" if call.request.stream else "application/json"
                self._send(200, answer, stream)
                delivered = True
        finally:
            calls.sent(call, delivered)

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > _MOST_BYTES:
            self.close_connection = True
            raise RefusedError(411, f"a body needs a Content-Length of at most {_MOST_BYTES:,} bytes")
        return self.rfile.read(int(length))

    def _is_there(self) -> bool:
        """Whether the caller still waits: its end of the connection is open."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        return not readable or self.connection.recv(1, socket.MSG_PEEK) != b""

    def _refuse(self, error: RefusedError) -> None:
        dialect = dialect_of(self._place()[1], self.headers)
        self._send_json(error.status, dialect.error(error.status, str(error), error.param, error.code))

    def _send_json(self, status: int, value: Any) -> None:
        self._send(status, dumps(value).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base's name)
        """Nothing is logged."""


_servers: dict[int, ChatCallServer] = {}
_starting = threading.Lock()


def calls_server() -> ChatCallServer:
    """This process's server. Programs start side by side, and a key is known to one server only."""
    with _starting:
        if os.getpid() not in _servers:
            _servers[os.getpid()] = ChatCallServer()
        return _servers[os.getpid()]
