"""OpenTelemetry GenAI spans (OTLP `resourceSpans`; the SDK's spans as JSON) and log records (`resourceLogs`),
in the ways instrumentations have written the chat over the years:

    attributes gen_ai.input.messages, gen_ai.output.messages, gen_ai.system_instructions   (of parts)
    events     gen_ai.user.message, …, gen_ai.choice                                       (each one)
    events     gen_ai.content.prompt, gen_ai.content.completion                            (as JSON)
    attributes gen_ai.prompt.0.role, gen_ai.prompt.0.content, gen_ai.completion.0.content  (flat)
    attributes ai.prompt.messages, ai.response.text                                        (the Vercel AI SDK)

Source: OpenTelemetry semantic conventions for generative AI; OTLP/JSON encoding. Spans of other operations are
counted, not rejected: a trace holds the whole request, and most of it is not a call to a model.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vertigym.traces.config import ImportConfig
from vertigym.traces.exchange import FAULTS, attempt, from_call, why
from vertigym.traces.log_format import Found, LogFormat, Row
from vertigym.traces.messages import chat, decoded
from vertigym.traces.readers.openinference import KIND, is_span, nested, spans_calls
from vertigym.traces.records import NotACall, Unreadable
from vertigym.traces.requests import offered_tools

_CHATS = frozenset({"chat", "text_completion", "generate_content"})
_EXPORTS = {
    "resourceSpans", "resource_spans", "scopeSpans", "scope_spans", "resourceLogs", "resource_logs",
    "scopeLogs",
}  # fmt: skip
_WHO = ("user.id", "enduser.id", "session.id", "gen_ai.conversation.id", "gen_ai.usage.cost")
_OURS = ("gen_ai.", "llm.", "ai.")
_ROLE_EVENTS = {f"gen_ai.{role}.message": role for role in ("system", "user", "assistant", "tool")}


def is_export(row: Row) -> bool:
    """Whether a row is an OTLP export of spans or of log records, one element of it, or one span of an SDK."""
    return bool(_EXPORTS & set(row)) or _is_span(row)


def _is_span(row: Row) -> bool:
    inside = row.get("attributes")
    return isinstance(inside, Mapping) and isinstance(row.get("context"), Mapping) and not is_span(row)


def _read(row: Row, name: str, config: ImportConfig) -> Iterator[Found]:
    """Every span, and every call in events that are log records."""
    if _is_span(row):
        yield from _span(row, _resource(row.get("resource")), name, config)
        return
    found = False
    for resource in row.get("resourceSpans", row.get("resource_spans")) or [row]:
        for scope in resource.get("scopeSpans", resource.get("scope_spans")) or ():
            for span in scope.get("spans") or ():
                found = True
                try:
                    yield from _span(span, _resource(resource.get("resource")), name, config)
                except FAULTS as error:
                    yield Unreadable(f"span {span.get('spanId', '?')}: {why(error)}")
    for resource in row.get("resourceLogs", row.get("resource_logs")) or [row]:
        for scope in resource.get("scopeLogs", resource.get("scope_logs")) or ():
            for span in _of_records(scope.get("logRecords", scope.get("log_records")) or ()):
                found = True
                yield from _span(span, _resource(resource.get("resource")), name, config)
    if not found:
        yield NotACall("an export without spans")


def _of_records(records: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Log records of one span as its events; the conventions' events have the message in their body."""
    spans: dict[str, dict[str, Any]] = {}
    for number, record in enumerate(records):
        has = attributes(record.get("attributes"))
        event = str(record.get("eventName") or record.get("event_name") or has.get("event.name") or "")
        if not event.startswith("gen_ai."):
            continue
        key = str(record.get("spanId") or record.get("span_id") or f"record {number}")
        span = spans.setdefault(
            key, {"spanId": key, "traceId": record.get("traceId"), "attributes": {}, "events": []}
        )
        time = record.get("timeUnixNano") or record.get("observedTimeUnixNano")
        span.setdefault("startTimeUnixNano", time)
        body = _value(record.get("body"))
        inside = {**has, **(body if isinstance(body, Mapping) else {})}
        span["attributes"].setdefault("gen_ai.operation.name", "chat")
        span["attributes"] |= {k: v for k, v in has.items() if k.startswith("gen_ai.")}
        span["events"].append({"name": event, "attributes": inside})
    yield from spans.values()


def _resource(resource: Any) -> dict[str, Any]:
    return attributes(resource.get("attributes")) if isinstance(resource, Mapping) else {}


def attributes(pairs: Any) -> dict[str, Any]:
    """OTLP's `[{key, value: {stringValue: …}}]` as a dict; a plain dict is taken as it is."""
    if isinstance(pairs, Mapping):
        return dict(pairs)
    return {pair["key"]: _value(pair.get("value")) for pair in pairs or ()}


def _value(value: Any) -> Any:
    if not isinstance(value, Mapping) or len(value) != 1:
        return value
    (kind, inner), *_ = value.items()
    if kind in ("arrayValue", "array_value"):
        return [_value(item) for item in inner.get("values") or ()]
    if kind in ("kvlistValue", "kvlist_value"):
        return {pair["key"]: _value(pair.get("value")) for pair in inner.get("values") or ()}
    if kind in ("intValue", "int_value"):
        return int(inner)
    return inner


def _span(
    span: Mapping[str, Any], shared: Mapping[str, Any], name: str, config: ImportConfig
) -> Iterator[Found]:
    has = attributes(span.get("attributes"))
    around = _around(span, has, shared)
    if KIND in has:
        yield from spans_calls(has, around, name, config)
        return
    if not any(key.startswith(("gen_ai.", "ai.")) for key in has):
        yield NotACall("a span without gen_ai attributes")
        return
    operation = str(has.get("gen_ai.operation.name", has.get("llm.request.type", "")))
    outer = str(has.get("ai.operationId", ""))
    if (operation and operation not in _CHATS) or (outer and not outer.endswith(("doGenerate", "doStream"))):
        yield NotACall(f"a span of the operation {operation or outer}")
        return
    asked, answers = _chat(has, span.get("events") or ())
    if not asked or not answers:
        raise ValueError(
            f"span {around['id']}: no messages in or out; was the capture of message content switched on?"
        )
    messages = chat([{**m, "tool_calls": decoded(m.get("tool_calls"))} for m in asked])
    tools = decoded(has.get("gen_ai.tool.definitions"))
    around |= {"tools": offered_tools({"tools": tools})} if isinstance(tools, list) else {}
    for number, answer in enumerate(answers):
        part = {**around, "finish_reason": answer.get("finish_reason")}
        part |= {"id": f"{around['id']}#{number}"} if number else {}
        yield attempt(from_call, messages, answer, part, [], name, config)


def _around(span: Mapping[str, Any], has: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    """What a span says of its call: in its attributes, and in itself (OTLP's names, and those of the SDK)."""
    context = span.get("context") or {}
    identity = span.get("spanId") or span.get("span_id") or context.get("span_id") or "?"
    start, end = (int(span.get(key, 0) or 0) for key in ("startTimeUnixNano", "endTimeUnixNano"))
    names = {k: v for k, v in has.items() if k in _WHO}
    return {
        "id": has.get("gen_ai.response.id") or identity,
        "time": start / 1e9 if start else span.get("start_time"),
        "end_time": None if start else span.get("end_time"),
        "latency_s": (end - start) / 1e9 if end > start > 0 else None,
        "model": has.get("gen_ai.response.model") or has.get("gen_ai.request.model") or has.get("ai.model.id"),
        **names,
        "usage": {k.rpartition(".")[2]: v for k, v in has.items() if k.startswith("gen_ai.usage.")} or None,
        "trace_id": span.get("traceId") or context.get("trace_id"),
        "service": shared.get("service.name"),
        "attributes": {k: v for k, v in has.items() if not k.startswith(_OURS) and k not in _WHO} or None,
    }


Chat = tuple[list[dict[str, Any]], list[dict[str, Any]]]


def _chat(has: Mapping[str, Any], events: Any) -> Chat:
    if "ai.prompt.messages" in has:
        calls = decoded(has.get("ai.response.toolCalls"))
        answer = {
            "content": has.get("ai.response.text"),
            "tool_calls": calls if isinstance(calls, list) else None,
        }
        return decoded(has["ai.prompt.messages"]), [answer]
    if "gen_ai.input.messages" in has or "gen_ai.output.messages" in has:
        return _structured(has)
    found: Chat = ([], [])
    for event in events:
        inside = attributes(event.get("attributes"))
        name = event.get("name") or inside.get("event.name", "")
        if name == "gen_ai.client.inference.operation.details":
            return _structured(inside)
        _event(name, inside, found)
    return found if any(found) else _flat(has)


def _structured(has: Mapping[str, Any]) -> Chat:
    system = decoded(has.get("gen_ai.system_instructions")) or []
    asked: list[dict[str, Any]] = [{"role": "system", "parts": system}] if system else []
    asked += decoded(has.get("gen_ai.input.messages")) or []
    return asked, decoded(has.get("gen_ai.output.messages")) or []


def _event(name: str, inside: Mapping[str, Any], found: Chat) -> None:
    """Add what one event holds to the messages in and out."""
    asked, answers = found
    if name in _ROLE_EVENTS:
        role = inside.get("role") or _ROLE_EVENTS[name]
        asked.append({**inside, "role": role, "tool_calls": decoded(inside.get("tool_calls"))})
    elif name == "gen_ai.choice":
        message = decoded(inside.get("message"))
        said = dict(message) if isinstance(message, Mapping) else {"content": message or inside.get("content")}
        calls = decoded(said.get("tool_calls"))
        answers.append({"finish_reason": inside.get("finish_reason"), **said, "tool_calls": calls})
    elif name == "gen_ai.content.prompt":
        prompt = decoded(inside.get("gen_ai.prompt"))
        asked.extend(prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}])
    elif name == "gen_ai.content.completion":
        told = decoded(inside.get("gen_ai.completion"))
        answers.extend(told if isinstance(told, list) else [{"content": told}])


def _flat(has: Mapping[str, Any]) -> Chat:
    chats = nested({k: v for k, v in has.items() if k.startswith(("gen_ai.prompt.", "gen_ai.completion."))})
    asked, answers = (chats.get("gen_ai", {}).get(side, []) for side in ("prompt", "completion"))
    return asked, answers


FORMATS = (LogFormat(is_export, _read, "OpenTelemetry"),)
