"""Sampling calls that wait, and which of them are computed together.

The one idea: calls of the same weights, temperature and top-p are rows of one batch, in which what a row gets
does not depend on the others (`policies/running_batch.py`).
"""

import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from vertigym.dialects.chat_call import RefusedError
from vertigym.remote.adapted_base import AdaptedBase
from vertigym.remote.call_models import SampleCall
from vertigym.remote.checkpoint_store import SavedWeights

_MOST_ROWS = 64  # of calls that are computed together


@dataclass(frozen=True, slots=True)
class WaitingCall:
    """A sampling call: of these weights over this base. Without a seed, one is made of `seed_path`."""

    id: str
    call: SampleCall
    base: AdaptedBase
    saved: SavedWeights | None
    seed_path: Sequence[str | int]

    @property
    def kind(self) -> Hashable:
        """What calls that are computed together have in common; None: this one is computed by itself."""
        try:
            prompt_of(self.call, self.base)
        except RefusedError:
            return None
        asked = self.call.sampling_params
        return self.base.name, self.saved and self.saved.folder, asked.temperature, asked.top_p


class SampleQueue:
    """Calls in the order they came. Filled by the server, emptied by the worker."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: OrderedDict[str, tuple[WaitingCall, Hashable]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, waiting: WaitingCall) -> None:
        """It waits."""
        with self._lock:
            self._waiting[waiting.id] = waiting, waiting.kind

    def take(self, request_id: str) -> list[WaitingCall]:
        """The call and those to be computed with it; none where it was taken with another."""
        with self._lock:
            if request_id not in self._waiting:
                return []
            first, kind = self._waiting.pop(request_id)
            taken, rows = [first], first.call.num_samples
            for other, its in list(self._waiting.values()) if kind is not None else ():
                if its == kind and rows + other.call.num_samples <= _MOST_ROWS:
                    taken.append(self._waiting.pop(other.id)[0])
                    rows += other.call.num_samples
            return taken


def prompt_of(call: SampleCall, base: AdaptedBase) -> list[int]:
    """The prompt's tokens, checked.

    Raises:
        RefusedError: a prompt that leaves no room, or an unknown token.
    """
    prompt = [token for chunk in call.prompt.chunks for token in chunk.tokens]
    base.rules.check(prompt, "prompt")
    if len(prompt) == base.rules.context:
        raise RefusedError(400, f"prompt: {len(prompt)} tokens leave no room in a context of as many")
    return prompt
