"""OpenTelemetry GenAI spans (JSON export, OTLP `resourceSpans`), in the four ways instrumentations have written
the chat over the years:

    attributes gen_ai.input.messages, gen_ai.output.messages, gen_ai.system_instructions   (of parts)
    events     gen_ai.user.message, …, gen_ai.choice                                       (each one)
    events     gen_ai.content.prompt, gen_ai.content.completion                            (as JSON)
    attributes gen_ai.prompt.0.role, gen_ai.prompt.0.content, gen_ai.completion.0.content  (flat)

Source: OpenTelemetry semantic conventions for generative AI; OTLP/JSON encoding. Spans of other operations are
counted, not rejected: a trace holds the whole request, and most of it is not a call to a model.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from vertigym.traces.records import NotACall, Unreadable

_FLAT = re.compile(r"gen_ai\.(prompt|completion)\.(\d+)\.(.+)")
_CHATS = frozenset({"chat", "text_completion", "generate_content"})
_ROLE_EVENTS = {f"gen_ai.{role}.message": role for role in ("system", "user", "assistant", "tool")}


def is_export(row: Mapping[str, Any]) -> bool:
    """Whether a row is an OTLP export of spans, or one element of it."""
    return any(key in row for key in ("resourceSpans", "resource_spans", "scopeSpans", "scope_spans"))


def spans(row: Mapping[str, Any]) -> Iterator[dict[str, Any] | NotACall | Unreadable]:
    """Every span: the arguments `messages`, `answer`, `around` of a call, or what else it is."""
    resources = row.get("resourceSpans", row.get("resource_spans")) or [row]
    for resource in resources:
        shared = attributes(resource.get("resource", {}).get("attributes"))
        for scope in resource.get("scopeSpans", resource.get("scope_spans")) or ():
            for span in scope.get("spans") or ():
                yield _span(span, shared)


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


def _span(span: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any] | NotACall | Unreadable:
    has = attributes(span.get("attributes"))
    operation = str(has.get("gen_ai.operation.name", has.get("llm.request.type", "")))
    if not any(key.startswith("gen_ai.") for key in has):
        return NotACall("a span without gen_ai attributes")
    if operation and operation not in _CHATS:
        return NotACall(f"a span of the operation {operation}")
    name = span.get("spanId", span.get("span_id", "?"))
    asked, answers = _chat(has, span.get("events") or ())
    if not asked or not answers:
        return Unreadable(
            f"span {name}: no messages in or out; was the capture of message content switched on?"
        )
    usage = {k.rpartition(".")[2]: v for k, v in has.items() if k.startswith("gen_ai.usage.")}
    start, end = (int(span.get(key, 0) or 0) for key in ("startTimeUnixNano", "endTimeUnixNano"))
    around = {
        "id": has.get("gen_ai.response.id") or name,
        "time": start / 1e9 if start else None,
        "model": has.get("gen_ai.response.model") or has.get("gen_ai.request.model"),
        "cluster": has.get("gen_ai.conversation.id"),
        "usage": usage or None,
        "latency_s": (end - start) / 1e9 if end > start else None,
        "trace_id": span.get("traceId"),
        "service": shared.get("service.name"),
        "customer": has.get("user.id") or has.get("enduser.id"),
        "attributes": {k: v for k, v in has.items() if not k.startswith(("gen_ai.", "llm."))} or None,
    }
    return {"messages": asked, "answer": answers[0], "around": around}


Chat = tuple[list[dict[str, Any]], list[dict[str, Any]]]


def _chat(has: Mapping[str, Any], events: Any) -> Chat:
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
    system = _decode(has.get("gen_ai.system_instructions")) or []
    asked = [_parts({"role": "system", "parts": system})] if system else []
    asked += [_parts(message) for message in _decode(has.get("gen_ai.input.messages")) or ()]
    return asked, [_parts(message) for message in _decode(has.get("gen_ai.output.messages")) or ()]


def _parts(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message of parts (text, tool_call, tool_call_response, reasoning) in the chat-completions form."""
    made: dict[str, Any] = {"role": message.get("role"), "content": message.get("content")}
    texts: list[Any] = []
    for part in message.get("parts") or ():
        kind = part.get("type")
        if kind == "text":
            texts.append({"type": "text", "text": part.get("content")})
        elif kind == "tool_call":
            function = {"name": part.get("name"), "arguments": part.get("arguments")}
            made.setdefault("tool_calls", []).append(
                {"id": part.get("id"), "type": "function", "function": function}
            )
        elif kind == "tool_call_response":
            made["tool_call_id"] = part.get("id")
            told = part.get("response", part.get("result"))
            texts.append({"type": "text", "text": told if isinstance(told, str) else json.dumps(told)})
        elif kind != "reasoning":
            texts.append({"type": kind})  # refused by name, with the whole message
    return {**made, "content": texts} if texts else made


def _event(name: str, inside: Mapping[str, Any], found: Chat) -> None:
    """Add what one event holds to the messages in and out."""
    asked, answers = found
    if name in _ROLE_EVENTS:
        role = inside.get("role") or _ROLE_EVENTS[name]
        asked.append({**inside, "role": role, "tool_calls": _decode(inside.get("tool_calls"))})
    elif name == "gen_ai.choice":
        message = _decode(inside.get("message"))
        answers.append(
            dict(message) if isinstance(message, Mapping) else {"content": message or inside.get("content")}
        )
    elif name == "gen_ai.content.prompt":
        prompt = _decode(inside.get("gen_ai.prompt"))
        asked.extend(prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}])
    elif name == "gen_ai.content.completion":
        told = _decode(inside.get("gen_ai.completion"))
        answers.extend(told if isinstance(told, list) else [{"content": told}])


def _flat(has: Mapping[str, Any]) -> Chat:
    sides: dict[str, dict[int, dict[str, Any]]] = {"prompt": defaultdict(dict), "completion": defaultdict(dict)}
    for key, value in has.items():
        if match := _FLAT.fullmatch(key):
            sides[match[1]][int(match[2])][match[3]] = value
    asked, answers = ([side[i] for i in sorted(side)] for side in sides.values())
    return asked, answers


def _decode(value: Any) -> Any:
    """JSON inside of text, else the value itself."""
    if isinstance(value, str) and value[:1] in "[{":
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value
