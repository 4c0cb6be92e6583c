"""Anthropic's messages: `POST /v1/messages`."""

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from vertigym.core.files import dumps
from vertigym.core.types import Message
from vertigym.dialects.chat_call import Answer, CallReply, ChatCall, RefusedError, ReplyHead
from vertigym.dialects.dialect import sent_event, usage_of
from vertigym.dialects.wire_models import MOST_MESSAGES, WireModel, function_tool, joined_text, validated

_ERRORS = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    413: "request_too_large", 429: "rate_limit_error", 503: "overloaded_error", 504: "timeout_error",
}  # fmt: skip
_FINISH = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
_CACHE = "cache_control"  # says what a server may keep: it changes no answer
_BLOCK_KEYS = {
    "text": {"type", "text", _CACHE},
    "tool_use": {"type", "id", "name", "input", _CACHE, "caller"},
    "tool_result": {"type", "tool_use_id", "content", "is_error", _CACHE},
}


class MessagesToolChoice(WireModel):
    """Whether a tool is called."""

    type: Literal["auto", "any", "tool", "none"]
    name: str = ""
    disable_parallel_tool_use: bool = False

    @property
    def choice(self) -> str:
        """In the words of a call."""
        return {"any": "required", "tool": f"={self.name}"}.get(self.type, self.type)


class MessagesMetadata(WireModel):
    """About the request."""

    user_id: str = Field("", max_length=200)


class MessagesFormat(WireModel):
    """The schema of a reply."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(WireModel):
    """What a reply must be."""

    format: MessagesFormat | None = None


class MessagesTool(WireModel):
    """A function."""

    NEUTRAL = {  # noqa: RUF012
        "defer_loading": (False,), "eager_input_streaming": (False,), "allowed_callers": (["direct"],),
        "input_examples": ([],),
    }  # fmt: skip
    HINTS = frozenset({_CACHE})

    type: Literal["custom"] = "custom"
    name: str
    description: str | None = None
    input_schema: dict[str, Any]
    strict: bool | None = None


class MessagesRequest(WireModel):
    """A request. Parameters that are not declared are refused, unless they ask for nothing."""

    NEUTRAL = {  # noqa: RUF012
        "mcp_servers": ([],),
        "service_tier": ("auto", "standard_only"),
        "thinking": ({"type": "disabled"},),
        "top_k": (0, -1),
    }
    HINTS = frozenset({_CACHE, "inference_geo"})

    model: str
    messages: list[dict[str, Any]] = Field(min_length=1, max_length=MOST_MESSAGES)
    max_tokens: int = Field(ge=1)
    system: str | list[dict[str, Any]] = ""
    temperature: float = Field(0.0, ge=0, le=5)
    top_p: float = Field(1.0, gt=0, le=1)
    stop_sequences: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list)
    stream: bool = False
    tools: list[MessagesTool] = Field(default_factory=list)
    tool_choice: MessagesToolChoice = MessagesToolChoice(type="auto")
    output_config: OutputConfig = OutputConfig()
    metadata: MessagesMetadata = MessagesMetadata()

    @field_validator("messages")
    @classmethod
    def _end_with_the_user(cls, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if messages[-1].get("role") == "assistant":
            raise ValueError("the last is the assistant's: a reply that has begun is not continued here")
        return messages

    def call(self) -> ChatCall:
        """As a call.

        Raises:
            RefusedError: a message that cannot be read.
        """
        tools = [
            function_tool(
                {
                    "name": one.name,
                    "description": one.description,
                    "parameters": one.input_schema,
                    "strict": one.strict,
                }
            )
            for one in self.tools
        ]
        form = self.output_config.format
        return ChatCall(
            model=self.model,
            messages=_chat(self.system, self.messages),
            temperature=self.temperature,
            top_p=self.top_p,
            max_tokens=self.max_tokens,
            stop=tuple(self.stop_sequences),
            schema=form.schema_ if form else None,
            tools=tuple(tools),
            choice=self.tool_choice.choice,
            parallel=not self.tool_choice.disable_parallel_tool_use,
            stream=self.stream,
            user=self.metadata.user_id,
            given=frozenset(self.model_fields_set),
            names={
                "response_format": "output_config", "stop": "stop_sequences",
                "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
            },
        )  # fmt: skip


class Messages:
    """The dialect."""

    path = "/v1/messages"
    prefix = "msg_"

    def read(self, value: Any) -> ChatCall:
        """A request as a call."""
        request = validated(MessagesRequest, value)
        request.refuse_rest()
        request.tool_choice.refuse_rest("tool_choice.")
        request.output_config.refuse_rest("output_config.")
        request.metadata.refuse_rest("metadata.")
        for tool in request.tools:
            tool.refuse_rest("tools.")
        return request.call()

    def body(self, reply: CallReply) -> dict[str, Any]:
        """The response."""
        (answer,) = reply.answers
        return _message(reply.head) | _ending(answer) | {"content": _content(answer), "usage": _usage(reply)}

    def stream(self, head: ReplyHead) -> "MessageEvents":
        """The response as events."""
        return MessageEvents(head)

    def error(self, status: int, message: str, param: str | None, code: str | None) -> dict[str, Any]:
        """An error."""
        kind = _ERRORS.get(status, "api_error" if status >= 500 else "invalid_request_error")
        return {"type": "error", "error": {"type": kind, "message": message}, "request_id": None}

    def error_event(self, status: int, message: str, code: str | None) -> str:
        """An error in a stream."""
        return sent_event(self.error(status, message, None, code), "error")


class MessageEvents:
    """A stream of messages' events."""

    def __init__(self, head: ReplyHead) -> None:
        self._head, self._said = head, False

    def begin(self) -> Iterator[str]:
        """An empty message; how long the prompt is, the last event but one says."""
        yield _event("message_start", message=_message(self._head))

    def text(self, index: int, more: str) -> Iterator[str]:
        """A piece of text."""
        if not self._said:
            self._said = True
            yield _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        yield _event("content_block_delta", index=0, delta={"type": "text_delta", "text": more})

    def end(self, reply: CallReply, rest: Mapping[int, str]) -> Iterator[str]:
        """The rest, the calls, the reason, the usage."""
        (answer,) = reply.answers
        if rest.get(0):
            yield from self.text(0, rest[0])
        if self._said:
            yield _event("content_block_stop", index=0)
        for place, one in enumerate(answer.calls, start=int(self._said)):
            block = {"type": "tool_use", "id": one.id, "name": one.name, "input": {}}
            yield _event("content_block_start", index=place, content_block=block)
            delta = {"type": "input_json_delta", "partial_json": one.arguments}
            yield _event("content_block_delta", index=place, delta=delta)
            yield _event("content_block_stop", index=place)
        yield _event("message_delta", delta=_ending(answer), usage=_usage(reply))
        yield _event("message_stop")


def _event(name: str, **data: Any) -> str:
    return sent_event({"type": name, **data}, name)


def _message(head: ReplyHead) -> dict[str, Any]:
    return {
        "id": head.id, "type": "message", "role": "assistant", "model": head.call.model, "content": [],
        "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 0, "output_tokens": 0},
    }  # fmt: skip


def _ending(answer: Answer) -> dict[str, Any]:
    reason = "stop_sequence" if answer.stop_text and not answer.calls else _FINISH[answer.finish]
    return {"stop_reason": reason, "stop_sequence": answer.stop_text or None}


def _content(answer: Answer) -> list[dict[str, Any]]:
    said = [{"type": "text", "text": answer.text}] if answer.text else []
    called = [
        {"type": "tool_use", "id": one.id, "name": one.name, "input": json.loads(one.arguments)}
        for one in answer.calls
    ]
    return [*said, *called]


def _usage(reply: CallReply) -> dict[str, Any]:
    return usage_of(reply, "input_tokens", "output_tokens")


def _chat(system: str | list[Any], messages: list[dict[str, Any]]) -> tuple[Message, ...]:
    found: list[dict[str, Any]] = []
    place = "system"
    try:
        if system:
            found.append({"role": "system", "content": _text_of(system)})
        for number, message in enumerate(messages):
            place = f"messages.{number}"
            found += _read_message(message)
    except (ValueError, KeyError, TypeError) as error:
        param = place.partition(".")[0]
        raise RefusedError(400, f"{place}: {error}"[:300], param=param) from None
    return tuple(validated(_Chat, {"messages": found}).messages)


class _Chat(WireModel):
    messages: list[Message]


def _read_message(message: dict[str, Any]) -> list[dict[str, Any]]:
    """A message as some: results of tools come before what the user says."""
    role, content = message.get("role"), message.get("content")
    if role not in ("user", "assistant") or set(message) - {"role", "content"}:
        raise ValueError("a message has a role, user or assistant, and content")
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(blocks, list):
        raise ValueError("content is a text, or a list of blocks")
    for block in blocks:
        _check(block, role)
    said = _text_of([block for block in blocks if block["type"] == "text"])
    if role == "assistant":
        calls = [_call(block) for block in blocks if block["type"] == "tool_use"]
        return [{"role": role, "content": said} | ({"tool_calls": calls} if calls else {})]
    results = [_result(block) for block in blocks if block["type"] == "tool_result"]
    return [*results, *([{"role": role, "content": said}] if said or not results else [])]


def _check(block: Any, role: str) -> None:
    kind = block.get("type") if isinstance(block, dict) else None
    other = "tool_use" if role == "user" else "tool_result"
    if kind not in _BLOCK_KEYS or kind == other:
        raise ValueError(f"a block of type {str(kind)[:50]!r} is not supported in a message of {role}")
    if unknown := next((key for key, value in block.items() if value and key not in _BLOCK_KEYS[kind]), None):
        raise ValueError(f"{unknown!r} in a block is not supported")


def _text_of(content: Any) -> str:
    return content if isinstance(content, str) else joined_text(content or [], ("text",))


def _call(block: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(block["input"], dict):
        raise ValueError("the input of a tool_use is an object")
    function = {"name": block["name"], "arguments": dumps(block["input"])}
    return {"id": block["id"], "type": "function", "function": function}


def _result(block: dict[str, Any]) -> dict[str, Any]:
    text = _text_of(block.get("content"))
    text = f"Error: {text}" if block.get("is_error") else text  # no template has another place for it
    return {"role": "tool", "tool_call_id": block["tool_use_id"], "content": text}
