"""A server that speaks the part of vLLM's protocol that training uses, around the transformers engine: the
faults of real ones, at will and in a moment."""

import json
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from vertigym.core.types import Prompt, Sampling
from vertigym.policies import tiny
from vertigym.policies.transformers_engine import TransformersEngine

Fault = Callable[
    [str, int], str
]  # (path, how many generate requests came before) -> "", hang, die, or a status


_LOADING = threading.Lock()  # transformers cannot load two models side by side in one process


TEXTS = ['{"days": 12, "tier": "gold"}', "approve or reject the return of 40 items"] * 3
SIZE = tiny.TinySize(hidden=32, layers=2, heads=2, key_heads=1, ffn=48, context=256, init_std=0.3)
QUICK = {"mode": "server", "start_s": 30.0, "sync_s": 30.0, "request_s": 30.0, "retries": 2, "sequences": 4}


def tiny_folder(parent: Path) -> Path:
    """A small model in a folder there."""
    torch.set_num_threads(1)
    tiny.build(TEXTS, parent / "tiny", size=SIZE)
    return parent / "tiny"


class FakeVLLM:
    """Serves on `url` from `start` until `stop`; `die` ends it as SIGKILL would, and it then starts with the
    weights it was made with."""

    def __init__(self, folder: Path, *, context: int = 256, port: int = 0) -> None:
        self.folder, self.context = folder, context
        self.fault: Fault = lambda path, count: ""
        self.answered: list[tuple[int, ...]] = []  # the prompts it has answered, in order
        self.asked = 0
        self.raw = False  # log-probs without the temperature
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        self.release = threading.Event()  # ends what hangs

    def start(self) -> "FakeVLLM":
        with _LOADING:
            self.engine = TransformersEngine.load(self.folder)
        self.label = "default"
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                fake.handle(self, None)

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                fake.handle(self, json.loads(self.rfile.read(length) or b"null"))

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: Any) -> None:
                pass  # the connections that dying has cut

        self._server = Server(("127.0.0.1", self.port), Handler)
        self._alive = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def stop(self) -> None:
        self.release.set()
        self._alive = False
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def die(self) -> None:
        """Answer nothing any more, and take no connection."""
        self._alive = False
        server, self._server = self._server, None
        if server:
            server.socket.close()
            threading.Thread(target=server.shutdown, daemon=True).start()

    def handle(self, request: BaseHTTPRequestHandler, body: Any) -> None:
        generating = request.path.startswith("/inference")
        with self._lock:
            count = self.asked
            self.asked += generating
        fault = self.fault(request.path, count)
        if fault == "die":
            self.die()
        if fault == "hang":
            self.release.wait()
        if not self._alive or fault == "hang":
            request.close_connection = True
            request.connection.shutdown(socket.SHUT_RDWR)
            return
        if fault:
            self._reply(request, int(fault), {"error": {"message": "CUDA out of memory"}})
            return
        with self._lock:
            answer = self._answer(request.path, body)
            if generating and self._alive:
                self.answered.append(tuple(body["token_ids"]))
        if self._alive:
            self._reply(request, 200, answer)
        else:
            request.close_connection = True

    def _answer(self, path: str, body: Any) -> Any:
        match path:
            case "/health":
                return {}
            case "/v1/models":
                return {"data": [{"id": "m", "root": str(self.folder), "max_model_len": self.context}]}
            case "/weight_info":
                return {"weight_version": self.label}
            case "/collective_rpc":
                assert body["method"] == "reload_weights"
                with _LOADING:
                    model = AutoModelForCausalLM.from_pretrained(body["kwargs"]["weights_path"])
                self.engine.model.load_state_dict(model.state_dict())  # its own config stays
                self.engine.refresh(0)
                return {"results": [None]}
            case "/reset_prefix_cache":
                return {"success": True}
            case "/update_weight_version":
                self.label = body["new_version"]
                return {"success": True}
            case "/inference/v1/generate":
                return {"choices": [self._choice(body["token_ids"], body["sampling_params"])]}
        raise AssertionError(path)

    def _choice(self, ids: list[int], asked: dict[str, Any]) -> dict[str, Any]:
        sampling = Sampling(
            temperature=1.0 if self.raw else asked["temperature"], max_tokens=asked["max_tokens"]
        )
        (wrote,) = self.engine.generate([Prompt((), token_ids=ids, seed=asked["seed"])], sampling)
        entries = [
            {"token_id": token, "logprob": logp, "top_logprobs": []}
            for token, logp in zip(wrote.token_ids, wrote.logprobs, strict=True)
        ]
        span = {"version": self.label, "start": 0, "end": len(entries)}
        return {
            "finish_reason": wrote.stop_reason.value,
            "token_ids": list(wrote.token_ids),
            "logprobs": {"content": entries},
            "weight_versions": [span],
        }

    def _reply(self, request: BaseHTTPRequestHandler, status: int, answer: Any) -> None:
        data = json.dumps(answer).encode()
        request.send_response(status)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)
