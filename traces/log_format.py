"""What a reader of a log is: a name, whether a row is of its form, and the calls in such a row."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vertigym.traces.config import ImportConfig
from vertigym.traces.records import HalfCall, LateFeedback, NotACall, Trace, Unreadable

Found = Trace | LateFeedback | HalfCall | NotACall | Unreadable
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LogFormat:
    """`matches` says whether a row has this format; `read` gives what such a row holds: it gets the id for a
    call that has none, and what it raises sets the row aside with the message as the reason."""

    matches: Callable[[Row], bool]
    read: Callable[[Row, str, ImportConfig], Iterator[Found]]
    name: str = ""
