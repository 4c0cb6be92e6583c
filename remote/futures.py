"""Results that are waited for: a request's number, and later what came of it.

Who asks is held for some seconds and then told to ask again. What was fetched is kept a while, since an answer
can be lost on its way; then it is gone, and asking for it says so.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

_FETCHED = 256  # results kept after they were fetched
_UNFETCHED = 20_000  # of clients that never came back


@dataclass(frozen=True, slots=True)
class Outcome:
    """JSON, protobuf bytes, or an error: the client's fault or not."""

    value: Any = None
    message: bytes | None = None
    error: str = ""
    is_ours: bool = False

    def json(self) -> Any:
        """As the client reads it."""
        if self.error:
            return {"error": self.error, "category": "server" if self.is_ours else "user"}
        return self.value


class Futures:
    """Outcomes by request id. Used on the event loop only."""

    def __init__(self) -> None:
        self._pending: dict[str, asyncio.Event] = {}
        self._done: OrderedDict[str, Outcome] = OrderedDict()
        self._fetched: OrderedDict[str, Outcome] = OrderedDict()

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._pending or request_id in self._done or request_id in self._fetched

    @property
    def waiting(self) -> int:
        """How many are not done."""
        return len(self._pending)

    def open(self, request_id: str) -> None:
        """A request was accepted."""
        self._pending[request_id] = asyncio.Event()

    def finish(self, request_id: str, outcome: Outcome) -> None:
        """It is done."""
        self._done[request_id] = outcome
        if len(self._done) > _UNFETCHED:
            self._done.popitem(last=False)
        if event := self._pending.pop(request_id, None):
            event.set()

    async def get(self, request_id: str, wait_s: float) -> Outcome | None:
        """The outcome; None where it is not there in time.

        Raises:
            KeyError: there is no such request (any more).
        """
        if event := self._pending.get(request_id):
            try:
                await asyncio.wait_for(event.wait(), wait_s)
            except TimeoutError:
                return None
        if outcome := self._done.pop(request_id, None):
            self._fetched[request_id] = outcome
            if len(self._fetched) > _FETCHED:
                self._fetched.popitem(last=False)
        return self._fetched[request_id]
