"""A request with its response, of any chat API: side by side, in one object, or in two files of a batch.

    {"request": {…}, "response": {…}}                  also as JSON text, in a body, in a stream of chunks
    {"messages": […], "choices": […]}                  a stored completion
    {"object": "response", "input": …, "output": …}    a stored response
    {"custom_id": …, "body": {…}}                      a batch's request, joined with the line
    {"custom_id": …, "response": {"body": {…}}}        that has its response, wherever that stands

Each API is a form of its own, so that the report names it.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from vertigym.traces.apis.chat_api_form import ChatApi
from vertigym.traces.apis.registry import APIS, api_of, whole
from vertigym.traces.config import ImportConfig
from vertigym.traces.exchange import exchanges
from vertigym.traces.log_format import Found, LogFormat, Row
from vertigym.traces.messages import decoded
from vertigym.traces.records import HalfCall

_PAIRS = (("request", "response"), ("requestBody", "responseBody"), ("request_body", "response_body"),
          ("input", "output"))  # fmt: skip
_KEYS = ("custom_id", "key", "recordId")


def _pair(row: Row) -> tuple[Any, Any] | None:
    """The request and the response of a row."""
    if ("messages" in row and "choices" in row) or (row.get("object") == "response" and row.get("input")):
        return row, row
    for request, response in _PAIRS:
        if request == "input" and not (row.get("schemaType") or row.get("modelId")):
            continue  # Bedrock's log of invocations has these names, and tracing tools have them, too
        if row.get(request) is not None and row.get(response) is not None:
            return row[request], row[response]
    return None


def _is_pair(api: ChatApi | None, row: Row) -> bool:
    pair = _pair(row)
    if pair is None:
        return api is None and (row.get("request") or row.get("response")) is not None and not _half(row)
    try:
        return api_of(whole(pair[1])) is api
    except (ValueError, TypeError, KeyError, AttributeError):
        return api is None


def _read(row: Row, name: str, config: ImportConfig) -> Iterator[Found]:
    pair = _pair(row)
    if pair is None:
        raise ValueError(f"a call needs both a request and a response; the keys are {', '.join(row)}")
    given, told = (decoded(side) for side in pair)
    if not isinstance(given, Mapping) or (isinstance(told, str) and "data:" not in told):
        raise ValueError("request or response is text that is not JSON")
    if given is row or given == row:
        return (
            yield from exchanges(
                given, told, {"id": row.get("id"), "metadata": row.get("metadata")}, name, config
            )
        )
    around = {key: value for key, value in row.items() if not any(value is side for side in pair)}
    yield from exchanges(given, told, around, name, config)


def _half(row: Row) -> HalfCall | None:
    """A line of a batch: OpenAI's (body; response), Anthropic's (params; result), Gemini's and Bedrock's."""
    key = next((str(row[key]) for key in _KEYS if row.get(key) is not None), None)
    if key is None:
        return None
    if row.get("response") is not None or row.get("result") is not None or row.get("modelOutput") is not None:
        told = next(row[side] for side in ("response", "result", "modelOutput") if row.get(side) is not None)
        if "request" in row or "modelInput" in row:
            return None
        if isinstance(told, Mapping) and "type" in told and ("message" in told or "error" in told):
            told = told.get("message") or {"error": told.get("error")}
        return HalfCall(key, "response", told)
    if row.get("error"):
        return HalfCall(key, "response", {"error": row["error"]})
    given = next((row[side] for side in ("body", "params", "request", "modelInput") if row.get(side)), None)
    return HalfCall(key, "request", given) if isinstance(given, Mapping) else None


def _batch(row: Row, name: str, config: ImportConfig) -> Iterator[Found]:
    half = _half(row)
    assert half is not None
    yield half


FORMATS = (
    *(LogFormat(partial(_is_pair, api), _read, api.name) for api in APIS),
    LogFormat(partial(_is_pair, None), _read, "a request with its response"),
    LogFormat(
        lambda row: _pair(row) is None and _half(row) is not None, _batch, "a batch of requests or responses"
    ),
)
