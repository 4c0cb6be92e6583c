"""The calls that a program makes in one episode, handed from the server's threads to the episode's.

The one idea: one call at a time. The program waits for an answer before it asks again, so what it asks follows
from what it was answered, and an episode repeats. A second call beside the first is refused; a retry of the
last one (the same body, marked by OpenAI's clients) gets its answer.

What goes wrong with a call is kept as a fault: an episode with one is not scored, whatever the program makes of
the error it got.
"""

import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from queue import Empty, Queue
from typing import Any

from pydantic import ValidationError

from vertigym.core.chat_wire import ChatRequest, RefusedError, refuse_unsupported, request_json
from vertigym.traces.records import reason

# What the run says, not the program: the tokens it learns from are sampled by its own settings.
SAMPLING = ("temperature", "top_p", "seed")
_ACKNOWLEDGED_S = 10.0


@dataclass(eq=False, slots=True)
class ProgramCall:
    """A request that waits for its answer. `waiting`: how many connections do."""

    body: bytes
    request: ChatRequest
    answer: bytes | None = None
    ended: bool = False
    waiting: int = 0
    delivered: bool = False


@dataclass(eq=False)
class ProgramCalls:
    """The calls of one episode. `ignored`: parameters that are taken out of every request."""

    ignored: Collection[str] = ()
    faults: list[str] = field(default_factory=list)
    answered: list[ProgramCall] = field(default_factory=list)
    _last: ProgramCall | None = None
    _events: "Queue[ProgramCall | None]" = field(default_factory=Queue)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    # The server's side.

    def put(self, body: bytes, *, retried: bool) -> ProgramCall:
        """The call that a request is.

        Raises:
            RefusedError: it cannot be answered.
        """
        with self._changed:
            last = self._last
            if last and retried and last.body == body:
                last.waiting += 1
                return last
            if last and not (last.answer or last.ended):
                raise RefusedError(400, "another call waits for its answer: make one call at a time")
            call = ProgramCall(body, read_request(body, self.ignored), waiting=1)
            self._last = call
        self._events.put(call)
        return call

    def wait(self, call: ProgramCall) -> bytes:
        """The answer to a call.

        Raises:
            RefusedError: the episode is over.
        """
        with self._changed:
            self._changed.wait_for(lambda: call.answer is not None or call.ended)
            if call.answer is None:
                raise RefusedError(503, "the episode is over")
            return call.answer

    def sent(self, call: ProgramCall, delivered: bool) -> None:
        """Say whether a connection took the answer."""
        with self._changed:
            call.waiting -= 1
            call.delivered |= delivered
            self._changed.notify_all()

    # The episode's side.

    def next(self, within_s: float) -> ProgramCall | None:
        """The program's next call; None: it has ended.

        Raises:
            TimeoutError: neither in time.
        """
        try:
            return self._events.get(timeout=max(within_s, 0.001))
        except Empty:
            raise TimeoutError from None

    def reply(self, call: ProgramCall, answer: bytes) -> None:
        """Answer a call; returns when its connections have the answer, or have failed to take it."""
        with self._changed:
            call.answer = answer
            self._changed.notify_all()
            self._changed.wait_for(lambda: not call.waiting, _ACKNOWLEDGED_S)
            self.answered.append(call)

    def fault(self) -> str:
        """What went wrong with a call; empty where nothing did."""
        lost = any(not call.delivered for call in self.answered)
        return next(iter(self.faults), "the program did not wait for an answer" if lost else "")

    def ended(self) -> None:
        """The program has ended."""
        self._events.put(None)

    def close(self) -> None:
        """Nothing is answered any more."""
        with self._changed:
            if self._last:
                self._last.ended = True
            self._changed.notify_all()


def read_request(body: bytes, ignored: Collection[str]) -> ChatRequest:
    """A request without the parameters that are ignored.

    Raises:
        RefusedError: it cannot be read, or asks for what is not done here.
    """
    value = request_json(body)
    if isinstance(value, dict):
        value = _without(value, ignored)
    try:
        request = ChatRequest.model_validate(value)
    except ValidationError as error:
        where = error.errors()[0]["loc"][:1]
        raise RefusedError(400, reason(error), param=str(where[0]) if where else None) from None
    refuse_unsupported(request)
    if said := next((name for name in SAMPLING if name in request.model_fields_set), None):
        message = f"{said} is the run's to say: leave it out, or list it under ignored in env.toml"
        raise RefusedError(400, message, "unsupported_parameter", param=said)
    return request


def _without(request: Mapping[str, Any], ignored: Collection[str]) -> dict[str, Any]:
    kept = {name: value for name, value in request.items() if name not in ignored}
    if "strict" in ignored and isinstance(tools := kept.get("tools"), list):
        kept["tools"] = [_loose(tool) for tool in tools]
    return kept


def _loose(tool: Any) -> Any:
    function = tool.get("function") if isinstance(tool, dict) else None
    return {**tool, "function": {**function, "strict": None}} if isinstance(function, dict) else tool
