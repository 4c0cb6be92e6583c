"""A vLLM server: one that runs already, or one that we start, watch and start again.

The one idea: the server says, for every token, which weights wrote it. Each version of ours goes there under a
label nobody else uses, and only what comes back under that label is taken. So a server that died and came back
with the weights it was started with, or that another run has taken over, is found out with the next answer.

    GET  /health, /v1/models, /weight_info       is it up, what does it serve, whose weights
    POST /collective_rpc  reload_weights         from a folder that both sides see
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
from vertigym.policies.vllm_backend import Order, VLLMConfig, Written
from vertigym.policies.vllm_subprocess import ServerProcess

_HOW_TO_START = (
    "start vLLM 0.32 or later with VLLM_SERVER_DEV_MODE=1 in its environment and --enable-scale-out "
    "--logprobs-mode processed_logprobs"
)
_ANSWERS_S = 10.0  # a server that is up says so within this
STARTED_WITH = "default"  # what vLLM calls the weights it started with
_LOST = (OSError, http.client.HTTPException)


class DownError(Exception):
    """The server does not answer; it may yet."""


class _RefusedError(Exception):
    """The server answered, and the answer is no."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        super().__init__(f"status {status}: {_message(text)}")


@dataclass(frozen=True, slots=True)
class Labelled:
    """Weights as a server is to have them: the label that is ours alone, and the folder they are in (None: the
    folder it was started with)."""

    label: str = STARTED_WITH
    folder: Path | None = None

    @property
    def version(self) -> str:
        """For people."""
        return self.label.rpartition("-")[2]


class VLLMServer:
    """One address.

    Args:
        at: the address, or the process behind it.
        context: the most tokens of a prompt and its completion together.
        alone: there is no other to turn to. Otherwise one that has hung is left alone until it is restarted.
    """

    def __init__(
        self, at: str | ServerProcess, config: VLLMConfig, *, context: int, alone: bool = True
    ) -> None:
        self.process = None if isinstance(at, str) else at
        self.url = at if isinstance(at, str) else at.url
        self.config, self._context, self._alone = config, context, alone
        self._has = STARTED_WITH  # the label of its weights, when last heard of
        self._hung_with = ""
        self._failed: tuple[Labelled, int] | None = None  # how often it did not take these weights over

    def prepare(self, weights: Labelled) -> None:
        """See that it is up and has these weights. A process of ours that has ended is started again.

        Raises:
            DownError: it does not answer (yet). EngineError: it will not take them over.
        """
        self.look()
        try:
            self._has = self._ask("GET", "/weight_info", seconds=_ANSWERS_S)["weight_version"]
            if self._has == self._hung_with:
                raise DownError("it has hung, and was not restarted since")
            if self._has != weights.label:
                self._hand_over(weights)
                self._has = weights.label
            self._hung_with, self._failed = "", None
        except (*_LOST, _RefusedError) as error:
            self._count_failure(weights, error)

    def look(self) -> None:
        """See that it is up.

        Raises:
            DownError: it does not answer (yet).
        """
        if self.process:
            self.process.ensure()
        try:
            self._ask("GET", "/health", seconds=min(_ANSWERS_S, self.config.start_s))
        except (*_LOST, _RefusedError) as error:
            raise DownError(_why(error)) from None

    def _count_failure(self, weights: Labelled, error: Exception) -> None:
        earlier = self._failed[1] if self._failed and self._failed[0] == weights else 0
        self._failed = weights, earlier + 1
        self._give_up_on_the_process(error)
        final = isinstance(error, _RefusedError) and error.status < 500
        if not final and earlier < self.config.retries:
            raise DownError(_why(error)) from None
        raise EngineError(
            f"vLLM server {self.url} did not take over weights {weights.version} "
            f"(limit rollout.vllm.sync_s = {self.config.sync_s:g}): {_why(error)}; the run can be resumed"
        ) from None

    def _hand_over(self, weights: Labelled) -> None:
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
                raise _RefusedError(503, f"{path} was not done")

    def check(self) -> None:
        """What is served fits what is asked of it.

        Raises:
            ConfigError: a shorter context than the model's; no way to hand weights over, or to send token ids;
                log-probs of another distribution than the one sampled from.
        """
        served = self._ask("GET", "/v1/models", seconds=_ANSWERS_S)["data"][0]
        length = served.get("max_model_len") or self._context
        if length < self._context:
            raise ConfigError(
                f"vLLM server {self.url} serves {served.get('root')!r} with a context of {length} tokens, the "
                f"model has {self._context}: start it with --max-model-len {self._context}"
            )
        try:
            self._ask("GET", "/weight_info", seconds=_ANSWERS_S)
            warm, cool = (self._most_probable(temperature) for temperature in (1.0, 0.5))
        except _RefusedError as error:
            raise ConfigError(f"vLLM server {self.url}: {error}; {_HOW_TO_START}") from None
        if warm == cool:  # whatever the temperature: they are not of the distribution sampled from
            raise ConfigError(
                f"vLLM server {self.url} gives log-probs without the temperature; {_HOW_TO_START}"
            )

    def _most_probable(self, temperature: float) -> float:
        """The largest log-prob of the first token after some prompt."""
        order = Order([0, 1], 1, 0, temperature, 1.0, ())
        body = {"token_ids": order.prompt, "sampling_params": order.parameters() | {"logprobs": 1}}
        answer = self._ask("POST", "/inference/v1/generate", body, seconds=self.config.request_s)
        first = answer["choices"][0]["logprobs"]["content"][0]
        return max(float(entry["logprob"]) for entry in (first, *first["top_logprobs"]))

    # Requests.

    def send(self, orders: Mapping[int, Order], weights: Labelled) -> tuple[dict[int, Written], str]:
        """What these weights wrote of some orders, and why the first lost one was lost."""
        done: dict[int, Written] = {}
        lost: list[str] = []
        waiting = iter(list(orders.items()))
        turn = threading.Lock()

        def work() -> None:
            connection: http.client.HTTPConnection | None = None
            try:
                while not lost:
                    with turn:
                        place, order = next(waiting, (None, None))
                    if place is None or order is None:
                        return
                    connection = connection or self._connect(self.config.request_s)
                    done[place] = self._one(connection, order, weights.label)
            except (*_LOST, _RefusedError) as error:
                lost.append(_why(error))
                self._give_up_on_the_process(error)
            finally:
                if connection:
                    connection.close()

        with ThreadPoolExecutor(max(1, min(len(orders), self.config.sequences))) as pool:
            for future in [pool.submit(work) for _ in range(min(len(orders), self.config.sequences))]:
                future.result()
        return done, lost[0] if lost else ""

    def _one(self, connection: http.client.HTTPConnection, order: Order, label: str) -> Written:
        body = {"token_ids": list(order.prompt), "sampling_params": order.parameters()}
        try:
            answer = _exchange(connection, "POST", "/inference/v1/generate", body)
        except _RefusedError as error:
            if error.status >= 500:
                raise
            return Written(error=str(error))  # this request's own fault: asking again would not help
        (choice,) = answer["choices"]
        if choice["finish_reason"] not in ("stop", "length"):
            raise _RefusedError(503, f"it ended a request with {choice['finish_reason']!r}")
        if stray := {span["version"] for span in choice["weight_versions"] or ()} - {label}:
            raise _RefusedError(503, f"it wrote with weights {sorted(stray)}, not {label!r}")
        return Written(choice["token_ids"], [entry["logprob"] for entry in choice["logprobs"]["content"]])

    def _give_up_on_the_process(self, error: Exception) -> None:
        """What hangs is not asked again: a process of ours is ended, and started again by the next `look`."""
        if not isinstance(error, TimeoutError):
            return
        if self.process:
            self.process.kill()
        elif not self._alone:
            self._hung_with = self._has

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
    """A file for `reload_weights`: every name of the state, the output head even where it is the embedding
    (a model folder leaves it out then, and vLLM would go on with the head it has)."""
    whole = {name: weight.detach().cpu().contiguous().clone() for name, weight in state.items()}
    save_file(whole, folder / "model.safetensors", {"format": "pt"})


def _exchange(connection: http.client.HTTPConnection, method: str, path: str, body: Any = None) -> Any:
    """The JSON that comes back.

    Raises:
        OSError, HTTPException: the connection was lost, or nothing came in its time.
        _RefusedError: the status is not 200.
    """
    sent = None if body is None else json.dumps(body)
    connection.request(method, path, sent, {"Content-Type": "application/json"})
    response = connection.getresponse()
    text = response.read().decode(errors="replace")
    if response.status != 200:
        raise _RefusedError(response.status, text)
    try:
        return json.loads(text) if text else {}
    except json.JSONDecodeError:
        return {}


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) if isinstance(error, _RefusedError) else f"{type(error).__name__}: {error}"


def _message(text: str) -> str:
    """What an error reply says, in a line."""
    try:
        found = json.loads(text)
        text = str(found.get("error", found).get("message", found))
    except (json.JSONDecodeError, AttributeError):
        pass
    return " ".join(text.split())[:200]
