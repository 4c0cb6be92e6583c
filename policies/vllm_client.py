"""The client of one vLLM server, which runs already or is a subprocess of ours.

The one idea: the server says which weights wrote every token. Each version of our weights has a label that
nobody else uses, and only tokens with that label are accepted. So the next answer shows when a server was
restarted with its first weights, or when another run has taken it over.

    GET  /health, /v1/models, /weight_info       is it up, what does it serve, whose weights
    POST /collective_rpc  reload_weights         from a folder that both sides can read
    POST /reset_prefix_cache, /update_weight_version
    POST /inference/v1/generate                  token ids in; token ids, log-probs and weight versions out
"""

import http.client
import json
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from safetensors.torch import save_file
from torch import Tensor

from vertigym.core.errors import ConfigError, EngineError
from vertigym.policies.engine import GenerationRequest, GenerationResult
from vertigym.policies.vllm_backend import VLLMConfig, sampling_parameters
from vertigym.policies.vllm_subprocess import VLLMSubprocess

_HOW_TO_START = (
    "start vLLM 0.32 or later with VLLM_SERVER_DEV_MODE=1 in its environment and --enable-scale-out "
    "--logprobs-mode processed_logprobs"
)
_HEALTH_S = 10.0  # a server that is up answers within this time
FIRST_LABEL = "default"  # vLLM's label of the weights it started with
_CONNECTION_ERRORS = (OSError, http.client.HTTPException)


class ServerDownError(Exception):
    """The server does not answer now; it may later."""


class _StatusError(Exception):
    """The server answered with an error."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        super().__init__(f"status {status}: {_message(text)}")


@dataclass(frozen=True, slots=True)
class LabelledWeights:
    """Weights for a server: a label that is ours alone, and the folder they are in (None: the folder that the
    server was started with)."""

    label: str = FIRST_LABEL
    folder: Path | None = None

    @property
    def version(self) -> str:
        """The policy version, for messages."""
        return self.label.rpartition("-")[2]


class VLLMClient:
    """A server at one address.

    Args:
        server: its address, or the subprocess behind it.
        context: the most tokens of a prompt and its completion together.
        alone: there is no other server. Otherwise a server that has hung is not asked again until it restarts.
    """

    def __init__(
        self, server: str | VLLMSubprocess, config: VLLMConfig, *, context: int, alone: bool = True
    ) -> None:
        self.process = None if isinstance(server, str) else server
        self.url = server if isinstance(server, str) else server.url
        self.config, self._context, self._alone = config, context, alone
        self._label = FIRST_LABEL  # of its weights, by its last answer
        self._hung_label = ""
        self._failed: tuple[LabelledWeights, int] | None = None  # how often loading these weights failed

    def prepare(self, weights: LabelledWeights) -> None:
        """Make sure that it is up and has these weights. A subprocess of ours that has ended is started again.

        Raises:
            ServerDownError: it does not answer (yet). EngineError: it cannot load them.
        """
        self.check_health()
        try:
            self._label = self._ask("GET", "/weight_info", seconds=_HEALTH_S)["weight_version"]
            if self._label == self._hung_label:
                raise ServerDownError("it has hung and has not been restarted")
            if self._label != weights.label:
                self._load(weights)
                self._label = weights.label
            self._hung_label, self._failed = "", None
        except (*_CONNECTION_ERRORS, _StatusError) as error:
            self._count_failure(weights, error)

    def check_health(self) -> None:
        """Make sure that it is up.

        Raises:
            ServerDownError: it does not answer (yet).
        """
        if self.process:
            self.process.ensure_running()
        try:
            self._ask("GET", "/health", seconds=min(_HEALTH_S, self.config.start_s))
        except (*_CONNECTION_ERRORS, _StatusError) as error:
            raise ServerDownError(_why(error)) from None

    def _count_failure(self, weights: LabelledWeights, error: Exception) -> None:
        earlier = self._failed[1] if self._failed and self._failed[0] == weights else 0
        self._failed = weights, earlier + 1
        self._abandon_if_hung(error)
        final = isinstance(error, _StatusError) and error.status < 500
        if not final and earlier < self.config.retries:
            raise ServerDownError(_why(error)) from None
        raise EngineError(
            f"vLLM server {self.url} did not take over weights {weights.version} "
            f"(limit rollout.vllm.sync_s = {self.config.sync_s:g}): {_why(error)}; the run can be resumed"
        ) from None

    def _load(self, weights: LabelledWeights) -> None:
        if weights.folder is None:
            raise EngineError(
                f"vLLM server {self.url} holds other weights than the ones it was started with: "
                "another run uses it; start one for each"
            )
        reload = {"method": "reload_weights", "kwargs": {"weights_path": str(weights.folder)}}
        began = time.monotonic()
        for path, body in (
            ("/collective_rpc", reload),
            ("/reset_prefix_cache", {}),
            ("/update_weight_version", {"new_version": weights.label}),
        ):
            left = self.config.sync_s - (time.monotonic() - began)
            answer = self._ask("POST", path, body, seconds=max(left, 1e-3))
            if answer.get("success") is False:
                raise _StatusError(503, f"{path} was not done")

    def check(self) -> None:
        """Check that what it serves fits what we ask of it.

        Raises:
            ConfigError: a shorter context than the model's; no way to send weights or token ids;
                log-probs of another distribution than the one sampled from.
        """
        served = self._ask("GET", "/v1/models", seconds=_HEALTH_S)["data"][0]
        length = served.get("max_model_len") or self._context
        if length < self._context:
            raise ConfigError(
                f"vLLM server {self.url} serves {served.get('root')!r} with a context of {length} tokens, the "
                f"model has {self._context}: start it with --max-model-len {self._context}"
            )
        try:
            self._ask("GET", "/weight_info", seconds=_HEALTH_S)
            warm, cool = (self._largest_logprob(temperature) for temperature in (1.0, 0.5))
        except _StatusError as error:
            raise ConfigError(f"vLLM server {self.url}: {error}; {_HOW_TO_START}") from None
        if warm == cool:  # the temperature changes nothing: they are not of the distribution sampled from
            raise ConfigError(
                f"vLLM server {self.url} gives log-probs without the temperature; {_HOW_TO_START}"
            )

    def _largest_logprob(self, temperature: float) -> float:
        """The largest log-prob of the first token after some prompt."""
        request = GenerationRequest([0, 1], 1, 0, temperature, 1.0, ())
        body = {"token_ids": request.prompt, "sampling_params": sampling_parameters(request) | {"logprobs": 1}}
        answer = self._ask("POST", "/inference/v1/generate", body, seconds=self.config.request_s)
        first = answer["choices"][0]["logprobs"]["content"][0]
        return max(float(entry["logprob"]) for entry in (first, *first["top_logprobs"]))

    # Requests.

    def generate(
        self, requests: Mapping[int, GenerationRequest], weights: LabelledWeights
    ) -> tuple[dict[int, GenerationResult], str]:
        """The results that these weights wrote, by request, and why the first lost request was lost."""
        done: dict[int, GenerationResult] = {}
        lost: list[str] = []
        waiting = iter(list(requests.items()))
        lock = threading.Lock()

        def work() -> None:
            connection: http.client.HTTPConnection | None = None
            try:
                while not lost:
                    with lock:
                        index, request = next(waiting, (None, None))
                    if index is None or request is None:
                        return
                    connection = connection or self._connect(self.config.request_s)
                    done[index] = self._generate_one(connection, request, weights.label)
            except (*_CONNECTION_ERRORS, _StatusError) as error:
                lost.append(_why(error))
                self._abandon_if_hung(error)
            finally:
                if connection:
                    connection.close()

        count = min(len(requests), self.config.sequences)
        with ThreadPoolExecutor(max(1, count)) as pool:
            for future in [pool.submit(work) for _ in range(count)]:
                future.result()
        return done, lost[0] if lost else ""

    def _generate_one(
        self, connection: http.client.HTTPConnection, request: GenerationRequest, label: str
    ) -> GenerationResult:
        body = {"token_ids": list(request.prompt), "sampling_params": sampling_parameters(request)}
        try:
            answer = _exchange(connection, "POST", "/inference/v1/generate", body)
        except _StatusError as error:
            if error.status >= 500:
                raise
            return GenerationResult(error=str(error))  # the fault of this request: another try would not help
        (choice,) = answer["choices"]
        if choice["finish_reason"] not in ("stop", "length"):
            raise _StatusError(503, f"it ended a request with {choice['finish_reason']!r}")
        if stray := {span["version"] for span in choice["weight_versions"] or ()} - {label}:
            raise _StatusError(503, f"it wrote with weights {sorted(stray)}, not {label!r}")
        return GenerationResult(
            choice["token_ids"], [entry["logprob"] for entry in choice["logprobs"]["content"]]
        )

    def _abandon_if_hung(self, error: Exception) -> None:
        """A server that hangs is not asked again; `check_health` restarts a subprocess of ours."""
        if not isinstance(error, TimeoutError):
            return
        if self.process:
            self.process.kill()
        elif not self._alone:
            self._hung_label = self._label

    def _ask(self, method: str, path: str, body: Any = None, *, seconds: float) -> Any:
        connection = self._connect(seconds)
        try:
            return _exchange(connection, method, path, body)
        finally:
            connection.close()

    def _connect(self, seconds: float) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return kind(parts.netloc, timeout=seconds)


def save_weights(state: Mapping[str, Tensor], folder: Path) -> None:
    """A file for `reload_weights`: every name of the state, the output head even where it is tied to the
    embedding (a model folder leaves it out then, and vLLM would keep the head it has)."""
    state = {name: weight.detach().cpu().contiguous().clone() for name, weight in state.items()}
    save_file(state, folder / "model.safetensors", {"format": "pt"})


def _exchange(connection: http.client.HTTPConnection, method: str, path: str, body: Any = None) -> Any:
    """The JSON of the response.

    Raises:
        OSError, HTTPException: the connection was lost, or the time limit passed.
        _StatusError: the status is not 200.
    """
    sent = None if body is None else json.dumps(body)
    connection.request(method, path, sent, {"Content-Type": "application/json"})
    response = connection.getresponse()
    text = response.read().decode(errors="replace")
    if response.status != 200:
        raise _StatusError(response.status, text)
    try:
        return json.loads(text) if text else {}
    except json.JSONDecodeError:
        return {}


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) if isinstance(error, _StatusError) else f"{type(error).__name__}: {error}"


def _message(text: str) -> str:
    """The message of an error response, in one line."""
    try:
        found = json.loads(text)
        text = str(found.get("error", found).get("message", found))
    except (json.JSONDecodeError, AttributeError):
        pass
    return " ".join(text.split())[:200]
