"""The calls that a program makes in one episode, handed from the server's threads to the episode's.

The one idea: calls wait in a queue, and what one is answered depends on what it says, not on when it came. So
a program may make several side by side, and an episode repeats. A retry gets the answer of its first try: the
same `Idempotency-Key`, or the same body where a client says that it tries again.

What goes wrong with a call is kept as a fault: an episode with one is not scored, whatever the program makes of
the error it got.
"""

import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from queue import Empty, Queue
from typing import Any

from pydantic import ConfigDict

from vertigym.core.errors import InfrastructureError
from vertigym.dialects.chat_call import ChatCall, RefusedError, unsupported
from vertigym.dialects.dialect import Dialect
from vertigym.dialects.wire_models import WireModel, request_json, validated

# What the run says, not the program: the tokens it learns from are sampled by its own settings.
SAMPLING = ("temperature", "top_p", "seed")
# What would have samples drawn otherwise than the learner thinks, or not every engine tells, and the property
# that asks for it.
_CONSTRAINED = {
    "response_format": "constrained",
    "tool_choice": "must_call",
    "strict": "strict",
    "n": "many",
    "logprobs": "told",
}
_ACKNOWLEDGED_S = 10.0


class PostedReward(WireModel):
    """What a program says of its work."""

    model_config = ConfigDict(extra="forbid")

    reward: float


@dataclass(eq=False, slots=True)
class ProgramCall:
    """A request that waits for its answer. `waiting`: how many connections do."""

    body: bytes
    dialect: Dialect
    request: ChatCall
    answer: bytes | None = None
    waiting: int = 0
    delivered: bool = False


@dataclass(eq=False)
class ProgramCalls:
    """The calls of one episode. `ignored`: parameters that are taken out of every request. `reward`: what the
    program itself says of its work."""

    ignored: Collection[str] = ()
    faults: list[str] = field(default_factory=list)
    answered: list[ProgramCall] = field(default_factory=list)
    reward: float | None = None
    _by_key: dict[str, ProgramCall] = field(default_factory=dict)
    _by_body: dict[bytes, ProgramCall] = field(default_factory=dict)
    _closed: bool = False
    _events: "Queue[ProgramCall | None]" = field(default_factory=Queue)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    # The server's side.

    def put(self, body: bytes, dialect: Dialect, *, retried: bool = False, key: str = "") -> ProgramCall:
        """The call that a request is: a new one, that of the same `key`, or the last with the body of a retry.

        Raises:
            RefusedError: it cannot be answered.
        """
        with self._changed:
            if self._closed:
                raise RefusedError(503, "the episode is over")
            same = self._by_key.get(key) if key else self._by_body.get(body) if retried else None
            if same:
                if same.body != body:
                    raise RefusedError(400, f"the idempotency key {key[:100]!r} is another request's")
                same.waiting += 1
                return same
            call = ProgramCall(body, dialect, read_call(body, dialect, self.ignored), waiting=1)
            self._by_body[body] = call
            if key:
                self._by_key[key] = call
        self._events.put(call)
        return call

    def post_reward(self, body: bytes) -> None:
        """Take a reward, `{"reward": 0.5}`; the last one stands.

        Raises:
            RefusedError: it is no number.
        """
        self.reward = validated(PostedReward, request_json(body)).reward

    def wait(self, call: ProgramCall) -> bytes:
        """The answer to a call.

        Raises:
            RefusedError: the episode is over.
        """
        with self._changed:
            self._changed.wait_for(lambda: call.answer is not None or self._closed)
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
            self._closed = True
            self._changed.notify_all()


def read_call(body: bytes, dialect: Dialect, ignored: Collection[str]) -> ChatCall:
    """A request without the parameters that are ignored.

    Raises:
        RefusedError: it cannot be read, or asks for what is not done here.
    """
    value = request_json(body)
    call = dialect.read(_without(value, ignored) if isinstance(value, dict) else value)
    if call.documents:
        raise unsupported("documents")
    if said := next((name for name in _CONSTRAINED if getattr(call, _CONSTRAINED[name])), None):
        why = "while a model learns from what it samples: leave it out, or list it under ignored in env.toml"
        raise unsupported(call.name(said), why)
    if said := next((name for name in SAMPLING if name in call.given), None):
        message = f"{said} is the run's to say: leave it out, or list it under ignored in env.toml"
        raise RefusedError(400, message, "unsupported_parameter", param=said)
    return call


def _without(request: Mapping[str, Any], ignored: Collection[str]) -> dict[str, Any]:
    kept = {name: value for name, value in request.items() if name not in ignored}
    if "strict" in ignored and isinstance(tools := kept.get("tools"), list):
        kept["tools"] = [_loose(tool) for tool in tools]
    return kept


def _loose(tool: Any) -> Any:
    if not isinstance(tool, dict):
        return tool
    return {
        key: _loose(value) if key == "function" else value for key, value in tool.items() if key != "strict"
    }


class TimedCalls:
    """The calls of one program, within `timeout_s` of its own time; `count` have come."""

    def __init__(self, calls: ProgramCalls, timeout_s: float) -> None:
        self.calls, self.count = calls, 0
        self._timeout_s = self._left_s = timeout_s

    def next_call(self) -> ProgramCall | None:
        """Its next call; None: it has ended.

        Raises:
            InfrastructureError: its time is over.
        """
        began = time.monotonic()
        try:
            call = self.calls.next(self._left_s)
        except TimeoutError:
            raise InfrastructureError(f"the program ran for more than {self._timeout_s:g} s") from None
        self._left_s -= time.monotonic() - began
        self.count += call is not None
        return call
