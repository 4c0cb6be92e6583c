"""One row of a log, read."""

from typing import Any

from vertigym.core.config import parse
from vertigym.traces.config import ImportConfig
from vertigym.traces.formats import calls
from vertigym.traces.records import Trace, Unreadable

CHATML = "<|im_start|>system\nSort.<|im_end|>\n<|im_start|>user\nWhere is it?<|im_end|>\n<|im_start|>assistant\nshipping<|im_end|>\n"


def read(row: Any, **settings: Any) -> list[Any]:
    return list(calls(row, "log-1", parse(ImportConfig, settings, source="test")))


def one(row: Any, **settings: Any) -> Trace:
    (trace,) = read(row, **settings)
    assert isinstance(trace, Trace), trace
    return trace


def why(row: Any, **settings: Any) -> str:
    (bad,) = read(row, **settings)
    assert isinstance(bad, Unreadable), bad
    return bad.reason
