"""Requests that wait at the same time are decoded as one batch, on a thread of its own.

Only requests with the same sampling share a batch. Where the engine can (`policies/running_batch.py`), a
request joins the batch that is being decoded, and what is known of a prompt from an earlier call is not read
again. A completion depends on its prompt and seed, not on its neighbours (but for the rounding of matmuls,
where the engine decodes whole batches): batching changes the time, not the answer.
"""

import asyncio
import itertools
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from vertigym.core.errors import EngineError, InputError
from vertigym.core.types import Completion, Policy, Prompt, Sampling
from vertigym.policies.running_batch import RunningBatch


class QueueFullError(Exception):
    """Too many requests wait."""


@dataclass(eq=False, slots=True)
class _Request:
    prompt: Prompt
    sampling: Sampling
    done: "Future[Completion]" = field(default_factory=Future)


class Batcher:
    """A policy with many concurrent callers.

    Args:
        most: prompts in one batch. waiting: requests that may wait; more are refused.
    """

    def __init__(self, policy: Policy, *, most: int = 64, waiting: int = 256) -> None:
        self._policy, self._most, self._most_waiting = policy, most, waiting
        self._waiting: list[_Request] = []
        self._running: tuple[Sampling, RunningBatch] | None = None
        self._numbers = itertools.count()
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    async def ask(
        self, prompt: Prompt, sampling: Sampling, hung_up: "asyncio.Future[None] | None" = None
    ) -> Completion:
        """The policy's completion. Once `hung_up` is done, a request that waits comes back empty, and the
        engine is told to stop one that it decodes.

        Raises:
            QueueFullError: too many requests wait. EngineError: the engine failed.
            InputError: the prompt cannot be rendered, or its grammar followed.
        """
        stop = threading.Event()
        request = _Request(replace(prompt, cancelled=stop.is_set), sampling)
        with self._changed:
            if len(self._waiting) >= self._most_waiting:
                raise QueueFullError
            self._waiting.append(request)
            self._changed.notify()

        def abandon(hung_up: "asyncio.Future[None]") -> None:
            if not hung_up.cancelled():
                stop.set()
                self._drop(request)

        if hung_up:
            hung_up.add_done_callback(abandon)
        return await asyncio.wrap_future(request.done)

    def close(self) -> None:
        """Answer what is waiting, then stop."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _drop(self, request: _Request) -> None:
        with self._changed:
            if request in self._waiting:
                self._waiting.remove(request)
                if request.done.set_running_or_notify_cancel():
                    request.done.set_result(Completion(""))

    def _run(self) -> None:
        while batch := self._next():
            taken = [one for one in batch if one.done.set_running_or_notify_cancel()]
            if taken and (running := self._running_batch(taken[0].sampling)):
                self._answer_freely(running, taken)
            else:
                self._answer(taken)

    def _running_batch(self, sampling: Sampling) -> RunningBatch | None:
        """The engine's running batch for this sampling, where it has such; the last one, if it fits."""
        make = getattr(self._policy, "running_batch", None)
        if make and (self._running is None or self._running[0] != sampling):
            running = make(sampling, self._most)
            self._running = (sampling, running) if running else None
        return self._running[1] if self._running else None

    def _next(self) -> list[_Request]:
        """Waits for requests, and takes those that go with the first; none after `close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            first = self._waiting[:1]
            batch = [one for one in self._waiting if one.sampling == first[0].sampling][: self._most]
            self._waiting = [one for one in self._waiting if one not in batch]
            return batch

    def _more(self, sampling: Sampling, room: int) -> list[_Request]:
        """Those that have come since and may join; none once one with another sampling is next."""
        with self._changed:
            same = itertools.takewhile(lambda one: one.sampling == sampling, self._waiting[:room])
            batch = list(same)
            self._waiting = self._waiting[len(batch) :]
        return [one for one in batch if one.done.set_running_or_notify_cancel()]

    def _answer_freely(self, running: RunningBatch, requests: list[_Request]) -> None:
        """Answer these, and those that come while they are decoded."""
        sampling, asked = requests[0].sampling, dict[int, _Request]()
        while requests or asked:
            for one in requests:
                number = next(self._numbers)
                try:
                    running.add(number, one.prompt)
                except Exception as error:  # of this request alone
                    _refuse(one, error)
                else:
                    asked[number] = one
            try:
                ended = running.collect()
            except Exception:  # whose fault it is, whole batches find out
                running.close()
                self._running = None
                self._answer(list(asked.values()))
                return
            for number, completion in ended:
                running.leave(number)
                asked.pop(number).done.set_result(completion)
            requests = self._more(sampling, self._most - len(asked))

    def _answer(self, batch: Sequence[_Request]) -> None:
        if not batch:
            return
        try:
            completions = self._policy.generate([one.prompt for one in batch], batch[0].sampling)
            answers = list(zip(batch, completions, strict=True))
        except EngineError as error:
            for one in batch:
                one.done.set_exception(error)
        except Exception as error:  # one request may be at fault: the others must be answered
            if len(batch) > 1:
                for one in batch:
                    self._answer([one])
            else:
                _refuse(batch[0], error)
        else:
            for one, completion in answers:
                one.done.set_result(completion)


def _refuse(request: _Request, error: Exception) -> None:
    asked = isinstance(error, InputError)  # of what no engine does
    request.done.set_exception(error if asked else EngineError(f"{type(error).__name__}: {error}"))
