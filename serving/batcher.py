"""Requests that wait at the same time are decoded as one batch, on a thread of its own.

Only requests with the same sampling share a batch. A completion depends on its prompt and seed, not on its
neighbours (but for the rounding of matmuls): batching changes the time, not the answer.
"""

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue

from vertigym.core.errors import EngineError
from vertigym.core.types import Completion, Policy, Prompt, Sampling

_Request = tuple[Prompt, Sampling, "Future[Completion]"]


class QueueFullError(Exception):
    """Too many requests wait."""


class Batcher:
    """A policy with many concurrent callers.

    Args:
        most: prompts in one batch. waiting: requests that may wait; more are refused.
    """

    def __init__(self, policy: Policy, *, most: int = 64, waiting: int = 256) -> None:
        self._policy, self._most, self._waiting = policy, most, waiting
        self._queue: SimpleQueue[_Request | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    async def ask(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """The policy's completion.

        Raises:
            QueueFullError: too many requests wait. EngineError: the engine failed.
        """
        if self._queue.qsize() >= self._waiting:
            raise QueueFullError
        done: Future[Completion] = Future()
        self._queue.put((prompt, sampling, done))
        return await asyncio.wrap_future(done)

    def close(self) -> None:
        """Answer what is waiting, then stop."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        held: list[_Request] = []
        ending = False
        while held or not ending:
            if not held and (first := self._queue.get()) is not None:
                held.append(first)
            elif not held:
                return
            while len(held) < self._waiting:
                try:
                    more = self._queue.get_nowait()
                except Empty:
                    break
                if more is None:
                    ending = True
                else:
                    held.append(more)
            sampling = held[0][1]
            batch = [request for request in held if request[1] == sampling][: self._most]
            held = [request for request in held if all(request is not one for one in batch)]
            self._answer(batch, sampling)

    def _answer(self, batch: Sequence[_Request], sampling: Sampling) -> None:
        live = [request for request in batch if request[2].set_running_or_notify_cancel()]
        try:
            completions = self._policy.generate([prompt for prompt, _, _ in live], sampling) if live else []
        except Exception as error:  # whatever the engine raises, the next batch must be answered
            fault = error if isinstance(error, EngineError) else EngineError(f"{type(error).__name__}: {error}")
            for _, _, done in live:
                done.set_exception(fault)
            return
        for (_, _, done), completion in zip(live, completions, strict=True):
            done.set_result(completion)
