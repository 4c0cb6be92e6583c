"""A vLLM server: one that runs already, or one that we start, watch and start again.

The one idea: the server says, for every token, which weights wrote it. Each version of ours goes there under a
label nobody else uses, and only what comes back under that label is taken. So a server that died and came back
with the weights it was started with, or that another run has taken over, is found out with the next answer. It
is then given our weights, and asked again for what is missing, with the same seeds: nothing is lost or doubled.

    GET  /health, /v1/models, /weight_info       is it up, what does it serve, whose weights
    POST /collective_rpc  reload_weights         from a folder that both sides see
    POST /reset_prefix_cache, /update_weight_version
    POST /inference/v1/generate                  token ids in; token ids, log-probs and weight versions out
"""

import http.client
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from safetensors.torch import save_file
from torch import Tensor

from vertigym.core.errors import ConfigError, EngineError
from vertigym.policies.vllm_backend import Order, VLLMConfig, Weights, Written
from vertigym.policies.vllm_process import ServerProcess

_HOW_TO_START = (
    "start vLLM 0.32 or later with VLLM_SERVER_DEV_MODE=1 in its environment and --enable-scale-out "
    "--logprobs-mode processed_logprobs"
)
_ANSWERS_S = 10.0  # a server that is up says so within this
_STARTED_WITH = "default"  # what vLLM calls the weights it started with
_LOST = (OSError, http.client.HTTPException)


class _RefusedError(Exception):
    """The server answered, and the answer is no."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        super().__init__(f"status {status}: {_message(text)}")


class VLLMServer:
    """A Backend behind an address.

    Args:
        folder: the model folder; a server we start serves it.
        model: the model in training, saved for the server at every `load`; None where nothing is trained.

    Raises:
        MissingDependencyError: there is no vLLM to start. EngineError: the server did not come up.
        ConfigError: it serves something that training cannot use.
    """

    def __init__(
        self, folder: str | Path, config: VLLMConfig, *, dtype: str, context: int, model: Any = None
    ) -> None:
        self._config, self._model, self._context = config, model, context
        self._process = None if config.url else ServerProcess(folder, config, dtype=dtype, context=context)
        self.url = config.url or self._process.url  # type: ignore[union-attr]
        self._exchange = Path(tempfile.mkdtemp(prefix="vertigym-", dir=config.exchange or None))
        self._nonce = uuid4().hex[:12]
        self._label = _STARTED_WITH
        self._folder: Path | None = None  # of the weights that the server is to have
        self._broken = ""
        try:
            self._await()
            self._check()
        except BaseException:
            self.close()
            raise

    def write(self, orders: Sequence[Order]) -> list[Written]:
        """One an order, in order. What is lost on the way is asked for again, `retries` times.

        Raises:
            EngineError: something was still missing after that.
        """
        done: dict[int, Written] = {}
        why = ""
        for _ in range(self._config.retries + 1):
            self._prepare()
            missing = [place for place in range(len(orders)) if place not in done]
            got, why = self._send({place: orders[place] for place in missing})
            done |= got
            if len(done) == len(orders):
                return [done[place] for place in range(len(orders))]
        raise EngineError(
            f"vLLM server {self.url}: {len(orders) - len(done)} of {len(orders)} requests were lost "
            f"{self._config.retries + 1} times over (rollout.vllm.retries), at last by: {why}; the run can be "
            "resumed"
        )

    def load(self, weights: Weights, version: int) -> None:
        """Save the weights for the server, and have it take them over.

        Raises:
            EngineError: it did not, after `retries` more tries.
        """
        assert self._model is not None
        earlier, self._folder = self._folder, self._exchange / f"weights-{version}-{uuid4().hex[:6]}"
        save_weights(self._model, weights(), self._folder)
        self._label = f"{self._nonce}-{version}"
        self._prepare()
        if earlier:
            shutil.rmtree(earlier)

    def close(self) -> None:
        """Stop the server where it is ours, and delete what was exchanged."""
        if self._process:
            self._process.stop()
        shutil.rmtree(self._exchange, ignore_errors=True)

    # Up, and with our weights.

    def _prepare(self) -> None:
        """Wait until the server is up and has the weights it is to have."""
        why = ""
        for _ in range(self._config.retries + 1):
            self._await()
            try:
                if self._ask("GET", "/weight_info", seconds=_ANSWERS_S)["weight_version"] == self._label:
                    return
                self._hand_over()
                return
            except (*_LOST, _RefusedError) as error:
                why = _why(error)
                if isinstance(error, _RefusedError) and error.status < 500:
                    break
                self._give_up_on_the_process(error)
        raise EngineError(
            f"vLLM server {self.url} did not take over weights {self._label.rpartition('-')[2]} "
            f"(limit rollout.vllm.sync_s = {self._config.sync_s:g}): {why}; the run can be resumed"
        )

    def _hand_over(self) -> None:
        if self._folder is None:
            raise EngineError(
                f"vLLM server {self.url} holds other weights than the ones it was started with: "
                "another run uses it; start one for each"
            )
        reload = {"method": "reload_weights", "kwargs": {"weights_path": str(self._folder)}}
        began = time.monotonic()
        for path, body in (
            ("/collective_rpc", reload),
            ("/reset_prefix_cache", {}),
            ("/update_weight_version", {"new_version": self._label}),
        ):
            left = self._config.sync_s - (time.monotonic() - began)
            answer = self._ask("POST", path, body, seconds=max(left, 1e-3))
            if answer.get("success") is False:
                raise _RefusedError(503, f"{path} was not done")

    def _await(self) -> None:
        """Wait until the server answers; start ours again where it has ended.

        Raises:
            EngineError: not within `start_s`.
        """
        deadline = time.monotonic() + self._config.start_s
        why = "no answer"
        while time.monotonic() < deadline:
            if self._process:
                self._process.ensure()
            try:
                self._ask("GET", "/health", seconds=min(_ANSWERS_S, self._config.start_s))
                return
            except (*_LOST, _RefusedError) as error:
                why = _why(error)
            time.sleep(0.2)
        raise EngineError(
            f"vLLM server {self.url} was not up within {self._config.start_s:g} s (rollout.vllm.start_s): {why}"
            f"{self._process.last_words() if self._process else ''}; the run can be resumed"
        )

    def _check(self) -> None:
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
        answer = self._ask("POST", "/inference/v1/generate", body, seconds=self._config.request_s)
        first = answer["choices"][0]["logprobs"]["content"][0]
        return max(float(entry["logprob"]) for entry in (first, *first["top_logprobs"]))

    # Requests.

    def _send(self, orders: Mapping[int, Order]) -> tuple[dict[int, Written], str]:
        """What came back of some orders, and why the first lost one was lost."""
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
                    connection = connection or self._connect(self._config.request_s)
                    done[place] = self._one(connection, order)
            except (*_LOST, _RefusedError) as error:
                lost.append(_why(error))
                self._give_up_on_the_process(error)
            finally:
                if connection:
                    connection.close()

        with ThreadPoolExecutor(max(1, min(len(orders), self._config.sequences))) as pool:
            for future in [pool.submit(work) for _ in range(min(len(orders), self._config.sequences))]:
                future.result()
        return done, lost[0] if lost else ""

    def _one(self, connection: http.client.HTTPConnection, order: Order) -> Written:
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
        if stray := {span["version"] for span in choice["weight_versions"] or ()} - {self._label}:
            raise _RefusedError(503, f"it wrote with weights {sorted(stray)}, not {self._label!r}")
        return Written(choice["token_ids"], [entry["logprob"] for entry in choice["logprobs"]["content"]])

    def _give_up_on_the_process(self, error: Exception) -> None:
        """A server of ours that hangs is ended; the next wait starts it again."""
        if self._process and isinstance(error, TimeoutError):
            self._process.kill()

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


def save_weights(model: Any, state: Mapping[str, Tensor], folder: Path) -> None:
    """A folder for `reload_weights`: every name of the state, the output head even where it is the embedding
    (a model folder leaves it out then, and vLLM would go on with the head it has)."""
    folder.mkdir()
    model.config.save_pretrained(folder)
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
