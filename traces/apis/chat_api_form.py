"""What a chat API's responses look like: how to know one, the answers in it, and how a stream of it ends up
whole.

Requests need no module of their own: `requests.py` reads those of all APIs, since a message is read in any
form.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Body = Mapping[str, Any]
Answer = tuple[
    Mapping[str, Any], dict[str, Any]
]  # the message; what is known of it alone, as its finish_reason


@dataclass(frozen=True, slots=True)
class ChatApi:
    """`answers` gives each answer of a response; `join` makes a response of a stream's chunks. Both raise
    ValueError with the reason where there is none."""

    name: str
    is_response: Callable[[Body], bool]
    answers: Callable[[Body], Iterator[Answer]]
    is_chunk: Callable[[Body], bool] = lambda _: False
    join: Callable[[Sequence[Body]], dict[str, Any]] = lambda chunks: dict(chunks[-1])


def merged(chunks: Sequence[Body]) -> dict[str, Any]:
    """The last word of a stream's chunks on each key."""
    return {key: value for chunk in chunks for key, value in chunk.items() if value is not None}
