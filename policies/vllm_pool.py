"""vLLM servers as one Backend: the sequences of a batch are spread over them, each new version goes to all.

The one idea: a server is never relied on. Before every batch each is asked whether it is there and has our
weights; those that have get a part of it, and what one of them loses is asked for again, with the same seeds,
from whichever are there then: nothing is lost or doubled. One that comes back is handed the weights and used.
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
from vertigym.policies.vllm_backend import Order, VLLMConfig, Weights, Written
from vertigym.policies.vllm_client import DownError, Labelled, VLLMServer, save_weights
from vertigym.policies.vllm_subprocess import ServerProcess

_PAUSE_S = 0.2


class VLLMServers:
    """A Backend behind one address or several.

    Args:
        folder: the model folder; servers we start serve it.
        about: the model's config, which goes with the weights at every `load`.
        on_note: told how many servers are left, when that changes.

    Raises:
        MissingDependencyError: there is no vLLM to start. EngineError: a server did not come up.
        ConfigError: one serves something that training cannot use.
    """

    def __init__(
        self,
        folder: str | Path,
        config: VLLMConfig,
        *,
        dtype: str,
        context: int,
        about: Any,
        on_note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.config, self._about, self._on_note = config, about, on_note
        places: Sequence[str | ServerProcess] = config.urls or [
            ServerProcess(folder, config, dtype=dtype, context=context) for _ in range(config.servers)
        ]
        alone = len(places) == 1
        self.servers = [VLLMServer(at, config, context=context, alone=alone) for at in places]
        self._there = len(places)
        self._exchange = Path(tempfile.mkdtemp(prefix="vertigym-", dir=config.exchange or None))
        self._nonce = uuid4().hex[:12]
        self._weights = Labelled()
        try:
            self._await_all()
            for server in self.servers:
                server.check()
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
        for _ in range(self.config.retries + 1):
            ready = self._ready()
            missing = [place for place in range(len(orders)) if place not in done]
            cuts = [i * len(missing) // len(ready) for i in range(len(ready) + 1)]  # a group stays together
            parts = [missing[start:end] for start, end in pairwise(cuts)]
            with ThreadPoolExecutor(len(ready)) as pool:
                sent = [
                    pool.submit(server.send, {place: orders[place] for place in part}, self._weights)
                    for server, part in zip(ready, parts, strict=True)
                ]
            for future in sent:
                got, lost = future.result()
                done |= got
                why = lost or why
            if len(done) == len(orders):
                return [done[place] for place in range(len(orders))]
        raise EngineError(
            f"{self._name()}: {len(orders) - len(done)} of {len(orders)} requests were lost "
            f"{self.config.retries + 1} times over (rollout.vllm.retries), at last by: {why}; the run can be "
            "resumed"
        )

    def load(self, weights: Weights, version: int) -> None:
        """Save the weights for the servers, and have all that are there take them over.

        Raises:
            EngineError: none did, after `retries` more tries.
        """
        earlier = self._weights.folder
        folder = self._exchange / f"weights-{version}-{uuid4().hex[:6]}"
        folder.mkdir()
        self._about.save_pretrained(folder)
        save_weights(weights(), folder)
        self._weights = Labelled(f"{self._nonce}-{version}", folder)
        self._ready()
        if earlier:
            shutil.rmtree(earlier)

    def close(self) -> None:
        """Stop the servers that are ours, and delete what was exchanged."""
        for server in self.servers:
            if server.process:
                server.process.stop()
        shutil.rmtree(self._exchange, ignore_errors=True)

    def _ready(self) -> list[VLLMServer]:
        """The servers that are up and have the weights; where there is none, the first that comes back.

        Raises:
            EngineError: none within `start_s`, or none that takes the weights over.
        """
        deadline = time.monotonic() + self.config.start_s
        while True:
            with ThreadPoolExecutor(len(self.servers)) as pool:
                tries = [pool.submit(server.prepare, self._weights) for server in self.servers]
            errors = [future.exception() for future in tries]
            ready = [server for server, error in zip(self.servers, errors, strict=True) if error is None]
            if ready:
                self._tell(errors)
                return ready
            for error in errors:
                if not isinstance(error, DownError):
                    assert error
                    raise error
            if time.monotonic() > deadline:
                raise self._late(errors[-1])
            time.sleep(_PAUSE_S)

    def _tell(self, errors: Sequence[BaseException | None]) -> None:
        there = errors.count(None)
        if there != self._there:
            lost = [
                f"{server.url}: {error}" for server, error in zip(self.servers, errors, strict=True) if error
            ]
            why = f" ({'; '.join(lost)})" if lost else ""
            self._on_note(f"{there} of {len(errors)} vLLM servers are there{why}")
        self._there = there

    def _await_all(self) -> None:
        """Until every server answers.

        Raises:
            EngineError: not within `start_s`.
        """
        deadline = time.monotonic() + self.config.start_s
        for server in self.servers:
            if server.process:
                server.process.ensure()  # side by side
        for server in self.servers:
            while True:
                try:
                    server.look()
                    break
                except DownError as error:
                    if time.monotonic() > deadline:
                        raise self._late(error, server) from None
                time.sleep(_PAUSE_S)

    def _late(self, error: BaseException | None, server: VLLMServer | None = None) -> EngineError:
        words = (server or self.servers[-1]).process
        return EngineError(
            f"{f'vLLM server {server.url}' if server else self._name()} was not up within "
            f"{self.config.start_s:g} s (rollout.vllm.start_s): {error}"
            f"{words.last_words() if words else ''}; the run can be resumed"
        )

    def _name(self) -> str:
        one = len(self.servers) == 1
        return f"vLLM server{'' if one else 's'} {', '.join(server.url for server in self.servers)}"
