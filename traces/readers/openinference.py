"""OpenInference spans (Arize Phoenix): attributes under names with dots, as keys, as columns, or nested.

A call is a span of the kind LLM. Its messages are `llm.input_messages.0.message.role` and so on; where it has
none, `input.value` and `output.value` hold what the API was sent and sent back. Source: the package
openinference-semantic-conventions; Phoenix's exports of spans and of span annotations.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from vertigym.traces.config import ImportConfig
from vertigym.traces.exchange import exchanges
from vertigym.traces.facts import facts, scored
from vertigym.traces.log_format import Found, LogFormat, Row
from vertigym.traces.messages import decoded
from vertigym.traces.records import LateFeedback, NotACall

KIND = "openinference.span.kind"


def is_span(row: Row) -> bool:
    """Whether a row is one span, with OpenInference's attributes."""
    inside = decoded(row.get("attributes"))
    if isinstance(inside, Mapping):
        return (
            KIND in inside or isinstance(inside.get("openinference"), Mapping) or "llm.input_messages" in inside
        )
    return any(key.startswith(("attributes.openinference", "attributes.llm.")) for key in row)


def _span(row: Row, name: str, config: ImportConfig) -> Iterator[Found]:
    columns = {
        key.removeprefix("attributes."): value for key, value in row.items() if key.startswith("attributes.")
    }
    has = nested(decoded(row.get("attributes")) or {key: v for key, v in columns.items() if v is not None})
    context = decoded(row.get("context")) or {}
    around = {
        "id": context.get("span_id") or row.get("context.span_id") or row.get("span_id"),
        "trace_id": context.get("trace_id") or row.get("context.trace_id"),
        "time": row.get("start_time"),
        "end_time": row.get("end_time"),
    }
    if str(row.get("status_code")).endswith("ERROR"):
        raise ValueError(f"the span ended in an error: {row.get('status_message')}")
    yield from spans_calls(has, around, name, config)


def spans_calls(
    attributes: Mapping[str, Any], around: Mapping[str, Any], name: str, config: ImportConfig
) -> Iterator[Found]:
    """The calls of a span with such attributes."""
    has = nested(attributes)
    kind = _at(has, KIND) or "LLM"
    if kind != "LLM":
        yield NotACall(f"a span of the kind {kind}")
        return
    metadata = decoded(_at(has, "metadata"))
    said, _ = facts({"session.id": _at(has, "session.id"), "user.id": _at(has, "user.id")}, metadata)
    tools = [decoded(_at(tool, "tool.json_schema")) for tool in _at(has, "llm.tools") or ()]
    known = {
        **said,
        **around,
        "model": _at(has, "llm.model_name"),
        "cost": _at(has, "llm.cost.total"),
        "usage": _at(has, "llm.token_count"),
        "tools": tools or None,
        "tags": _at(has, "tag.tags"),
        "metadata": metadata if isinstance(metadata, Mapping) else None,
    }
    given, told = (_messages(_at(has, f"llm.{side}_messages")) for side in ("input", "output"))
    values = (decoded(_at(has, f"{side}.value")) for side in ("input", "output"))
    asked, answered = (messages or value for messages, value in zip((given, told), values, strict=True))
    around = {key: value for key, value in known.items() if value is not None}
    yield from exchanges(asked, answered, around, name, config)


def _messages(listed: Any) -> list[dict[str, Any]]:
    """Messages in OpenAI's form."""
    made = []
    for item in decoded(listed) or ():
        message = dict(item.get("message", item))
        parts = message.pop("contents", None)
        if parts and not message.get("content"):
            message["content"] = [part.get("message_content", part) for part in parts]
        message["tool_calls"] = [call.get("tool_call", call) for call in message.get("tool_calls") or ()]
        made.append(message)
    return made


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """`{"a.0.b": 1}` as `{"a": [{"b": 1}]}`; what is nested already stays."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *way, last = path.split(".")
        place = tree
        for key in way:
            inner = place.get(key)
            place[key] = inner if isinstance(inner, dict) else {}
            place = place[key]
        place[last] = value
    found = _lists(tree)
    return found if isinstance(found, dict) else tree


def _lists(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    if tree and all(key.isdecimal() for key in tree):
        return [_lists(tree[key]) for key in sorted(tree, key=int)]
    return {key: _lists(value) for key, value in tree.items()}


def _at(tree: Any, path: str) -> Any:
    for key in path.split("."):
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def _annotation(row: Row, name: str, config: ImportConfig) -> Iterator[Found]:
    result = decoded(row["result"])
    value = result.get("label") if result.get("score") is None else result["score"]
    feedback = scored([(str(row.get("name")), value, result.get("explanation"), None)])
    if not feedback:
        raise ValueError("an annotation that says nothing")
    yield LateFeedback(str(row["span_id"]), {"feedback": feedback})


FORMATS = (
    LogFormat(is_span, _span, "OpenInference spans"),
    LogFormat(
        lambda row: {"span_id", "result", "annotator_kind"} <= set(row), _annotation, "Phoenix annotations"
    ),
)
