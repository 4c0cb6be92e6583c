"""Servers on a thread, and how tests ask a chat server."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import uvicorn
from starlette.applications import Starlette

from vertigym.core.types import Completion, Policy, Prompt, Sampling
from vertigym.serving.app import ChatServer, ServerLimits
from vertigym.serving.recorder import Recorder

KEY = "a-key-of-more-than-16"


@contextmanager
def serving(
    policy: Policy,
    record: Path,
    *,
    key: str = "",
    limits: ServerLimits | None = None,
    proxies: Sequence[str] = (),
) -> Iterator[int]:
    """A server on a thread; gives its port."""
    made = ChatServer(
        policy, Recorder(record), name="m", version="v1", key=key, limits=limits or ServerLimits()
    )
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(made.config(proxies))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


@contextmanager
def listening(app: Starlette) -> Iterator[str]:
    """An application on a thread; gives its address."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="websockets-sansio"))
    sockets = [socket.create_server(("127.0.0.1", 0))]
    thread = threading.Thread(target=server.run, kwargs={"sockets": sockets})
    thread.start()
    try:
        yield f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def client(port: int, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=key, max_retries=0)


def post(port: int, path: str, body: Any, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    """Status and JSON (or text) of a request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("POST", path, data, {"Content-Type": "application/json", **(headers or {})})
        response = connection.getresponse()
        text = response.read().decode()
        return response.status, json.loads(text) if text.startswith("{") else text
    finally:
        connection.close()


def ask(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


def recorded(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


class Gathering:
    """Counts batches; the first waits until it is let go."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, int]] = []
        self.began, self.go = threading.Event(), threading.Event()

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        self.began.set()
        self.go.wait(30)
        most = max(prompt.most_tokens(sampling) for prompt in prompts)
        self.batches.append((len(prompts), most))
        return [Completion(prompt.messages[-1]["content"], completion_tokens=1) for prompt in prompts]


def until(holds: Callable[[], bool]) -> None:
    for _ in range(12_000):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to be")
