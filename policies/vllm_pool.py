"""vLLM servers as one backend: the sequences of a batch are split over them, new weights go to all.

The one idea: no server is relied on. Before every batch each is asked whether it is up and has our weights; the
batch is split over those that do. Requests that a server loses are sent again, with the same seeds, to those
that are up then: nothing is lost or doubled. A server that comes back gets the weights and is used again.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

from vertigym.core.errors import EngineError
from vertigym.policies.engine import GenerationRequest, GenerationResult, Weights
from vertigym.policies.vllm_backend import VLLMConfig
from vertigym.policies.vllm_client import LabelledWeights, ServerDownError, VLLMClient, save_weights
from vertigym.policies.vllm_subprocess import VLLMSubprocess

_PAUSE_S = 0.2


class VLLMServerPool:
    """A VLLMBackend of one server or several.

    Args:
        folder: the model folder that our own servers load.
        model_config: the model's config, saved beside the weights at every `load`.
        on_note: told how many servers are up, when that changes.

    Raises:
        MissingDependencyError: vLLM is not installed. EngineError: a server did not start.
        ConfigError: one serves something that training cannot use.
    """

    def __init__(
        self,
        folder: str | Path,
        config: VLLMConfig,
        *,
        dtype: str,
        context: int,
        model_config: Any,
        on_note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.config, self._model_config, self._on_note = config, model_config, on_note
        servers: Sequence[str | VLLMSubprocess] = config.urls or [
            VLLMSubprocess(folder, config, dtype=dtype, context=context) for _ in range(config.servers)
        ]
        alone = len(servers) == 1
        self.servers = [VLLMClient(one, config, context=context, alone=alone) for one in servers]
        self._up = len(servers)
        self._exchange = Path(tempfile.mkdtemp(prefix="vertigym-", dir=config.exchange or None))
        self._nonce = uuid4().hex[:12]
        self._weights = LabelledWeights()
        try:
            self._wait_for_all()
            for server in self.servers:
                server.check()
        except BaseException:
            self.close()
            raise

    def generate(self, requests: Sequence[GenerationRequest]) -> list[GenerationResult]:
        """One result a request, in order. Lost requests are sent again, `retries` times.

        Raises:
            EngineError: some were still missing after that.
        """
        done: dict[int, GenerationResult] = {}
        why = ""
        for _ in range(self.config.retries + 1):
            ready = self._ready()
            missing = [i for i in range(len(requests)) if i not in done]
            cuts = [i * len(missing) // len(ready) for i in range(len(ready) + 1)]  # a group stays together
            parts = [missing[start:end] for start, end in pairwise(cuts)]
            with ThreadPoolExecutor(len(ready)) as pool:
                sent = [
                    pool.submit(server.generate, {i: requests[i] for i in part}, self._weights)
                    for server, part in zip(ready, parts, strict=True)
                ]
            for future in sent:
                got, lost = future.result()
                done |= got
                why = lost or why
            if len(done) == len(requests):
                return [done[i] for i in range(len(requests))]
        raise EngineError(
            f"{self._name()}: {len(requests) - len(done)} of {len(requests)} requests were lost "
            f"{self.config.retries + 1} times over (rollout.vllm.retries), at last by: {why}; the run can be "
            "resumed"
        )

    def load(self, weights: Weights, version: int) -> None:
        """Save the weights, and let all servers that are up load them.

        Raises:
            EngineError: no server did, after `retries` more tries.
        """
        earlier = self._weights.folder
        folder = self._exchange / f"weights-{version}-{uuid4().hex[:6]}"
        folder.mkdir()
        self._model_config.save_pretrained(folder)
        save_weights(weights(), folder)
        self._weights = LabelledWeights(f"{self._nonce}-{version}", folder)
        self._ready()
        if earlier:
            shutil.rmtree(earlier)

    def close(self) -> None:
        """Stop the servers that are ours, and delete the exchanged weights."""
        for server in self.servers:
            if server.process:
                server.process.stop()
        shutil.rmtree(self._exchange, ignore_errors=True)

    def _ready(self) -> list[VLLMClient]:
        """The servers that are up and have the weights; while there is none, wait for one.

        Raises:
            EngineError: none within `start_s`, or none that loads the weights.
        """
        deadline = time.monotonic() + self.config.start_s
        while True:
            with ThreadPoolExecutor(len(self.servers)) as pool:
                tries = [pool.submit(server.prepare, self._weights) for server in self.servers]
            errors = [future.exception() for future in tries]
            ready = [server for server, error in zip(self.servers, errors, strict=True) if error is None]
            if ready:
                self._note_change(errors)
                return ready
            for error in errors:
                if not isinstance(error, ServerDownError):
                    assert error
                    raise error
            if time.monotonic() > deadline:
                raise self._not_up(errors[-1])
            time.sleep(_PAUSE_S)

    def _note_change(self, errors: Sequence[BaseException | None]) -> None:
        up = errors.count(None)
        if up != self._up:
            lost = [
                f"{server.url}: {error}" for server, error in zip(self.servers, errors, strict=True) if error
            ]
            why = f" ({'; '.join(lost)})" if lost else ""
            self._on_note(f"{up} of {len(errors)} vLLM servers are up{why}")
        self._up = up

    def _wait_for_all(self) -> None:
        """Wait until every server answers.

        Raises:
            EngineError: not within `start_s`.
        """
        deadline = time.monotonic() + self.config.start_s
        for server in self.servers:
            if server.process:
                server.process.ensure_running()  # side by side
        for server in self.servers:
            while True:
                try:
                    server.check_health()
                    break
                except ServerDownError as error:
                    if time.monotonic() > deadline:
                        raise self._not_up(error, server) from None
                time.sleep(_PAUSE_S)

    def _not_up(self, error: BaseException | None, server: VLLMClient | None = None) -> EngineError:
        process = (server or self.servers[-1]).process
        return EngineError(
            f"{f'vLLM server {server.url}' if server else self._name()} was not up within "
            f"{self.config.start_s:g} s (rollout.vllm.start_s): {error}"
            f"{process.log_tail() if process else ''}; the run can be resumed"
        )

    def _name(self) -> str:
        one = len(self.servers) == 1
        return f"vLLM server{'' if one else 's'} {', '.join(server.url for server in self.servers)}"
