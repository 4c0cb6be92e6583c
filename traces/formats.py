"""Other people's rows become Traces. A row of a log, already JSON, is recognised by what is in it.

Every form is a LogFormat; `readers/` has them, a module a tool or an API. A row that has two forms is
refused, for what it says would depend on which is asked first; `format = "…"` in the settings says which one
is meant. Forms of installed packages (entry-point group `vertigym.log_formats`) are asked before ours.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from vertigym.core.errors import ConfigError
from vertigym.core.plugins import load_plugin, plugins
from vertigym.traces.config import ImportConfig
from vertigym.traces.exchange import FAULTS, why
from vertigym.traces.log_format import Found, LogFormat, Row
from vertigym.traces.messages import decoded, is_chat, is_message
from vertigym.traces.parts import kind_of
from vertigym.traces.readers import (
    conversations,
    langfuse,
    langsmith,
    mapped_columns,
    openinference,
    otel,
    own_rows,
    request_response,
)
from vertigym.traces.records import Unreadable

__all__ = ["BUILT_IN", "GROUP", "LogFormat", "calls", "read_row"]

GROUP = "vertigym.log_formats"
_READERS = (own_rows, request_response, conversations, langfuse, langsmith, openinference, otel)
BUILT_IN: tuple[LogFormat, ...] = tuple(form for reader in _READERS for form in reader.FORMATS)
MAPPED = LogFormat(lambda _: True, mapped_columns.mapped, "your columns")
UNKNOWN = "unknown"
_LISTS = ("data", "runs", "items", "results", "traces", "observations", "feedback")  # of an answer of an API
_LIST_ONLY = {
    "object",
    "meta",
    "has_more",
    "first_id",
    "last_id",
    "cursors",
    "cursor",
    "next_cursor",
    "next_page",
}
_TEXT_CELLS = {"completion", "label", "outcome", "edit", "question", "answer"}  # never JSON of ours


def calls(row: Any, name: str, config: ImportConfig) -> Iterator[Found]:
    """What one row of a log holds, or why not; `name` becomes the id where the row has none. Never raises."""
    for _, item in read_row(row, name, config):
        yield item


def read_row(row: Any, name: str, config: ImportConfig) -> Iterator[tuple[str, Found]]:
    """The same, each with the name of the form that was recognised."""
    form, found = UNKNOWN, 0
    try:
        if (rows := _listed(row)) is not None:
            for number, one in enumerate(rows, 1):
                yield from read_row(one, f"{name}.{number}", config)
            return
        known, row = _recognised({"messages": row} if is_chat(row) else row, config)
        form = known.name
        for item in known.read(row, name, config):
            found += 1
            yield form, item
        if not found:
            yield form, Unreadable(f"nothing in it is a call ({form})")
    except FAULTS as error:
        yield form, Unreadable(why(error))


def known_formats(config: ImportConfig) -> Sequence[LogFormat]:
    """The forms that a row may have under these settings.

    Raises:
        ConfigError: the settings name a form that nobody knows.
    """
    if config.columns.input or config.columns.completion:
        return (MAPPED,)
    known = (*_installed(), *BUILT_IN)
    if config.format:
        known = tuple(form for form in known if form.name.casefold() == config.format.casefold())
        if not known:
            names = ", ".join(dict.fromkeys(form.name for form in (*_installed(), *BUILT_IN)))
            raise ConfigError(f"format = {config.format!r}: no such form of logs; known: {names}")
    return known


def _recognised(row: Any, config: ImportConfig) -> tuple[LogFormat, Row]:
    """The form of a row; cells that hold JSON are opened where no form is known without."""
    if not isinstance(row, Mapping):
        raise ValueError(f"a row is a JSON object, this is {kind_of(row)}")
    known = known_formats(config)
    for shape in _shapes(row):
        found = [form for form in known if form.matches(shape)]
        own = [form for form in found if form in _installed()]
        if len(found) == 1 or own:
            return (own or found)[0], shape
        if found:
            names = " and as ".join(form.name for form in found)
            raise ValueError(
                f'this can be read as {names}: say which one is meant, --set format="{found[0].name}"'
            )
    if is_message(row):
        raise ValueError(
            "a single message is not a call: what was asked and what was answered belong on one line"
        )
    raise ValueError(
        f"no format is known with the keys {', '.join(map(str, list(row)[:8])) or 'none'}; "
        "name the columns: [columns] input and completion"
    )


def _shapes(row: Row) -> Iterator[Row]:
    """The row, then with its cells of JSON opened."""
    yield row
    yield {key: value if key in _TEXT_CELLS else decoded(value) for key, value in row.items()}


def _listed(row: Any) -> list[Any] | None:
    """The rows in a page of an API: a list, and beside it only what says where the page is."""
    if not isinstance(row, Mapping):
        return None
    keys = [key for key in _LISTS if isinstance(row.get(key), list)]
    if (
        len(keys) != 1
        or set(row) - _LIST_ONLY - {keys[0]}
        or not all(isinstance(one, Mapping) for one in row[keys[0]])
    ):
        return None
    listed: list[Any] = row[keys[0]]
    return listed or None


@cache
def _installed() -> tuple[LogFormat, ...]:
    loaded = {name: load_plugin(point) for name, point in plugins(GROUP, {}).items()}
    return tuple(LogFormat(form.matches, form.read, form.name or name) for name, form in loaded.items())
