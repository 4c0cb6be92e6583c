"""OpenAI's responses: `POST /v1/responses`.

Nothing is kept between calls: the items of earlier output come back as input, and `previous_response_id` is
refused.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from vertigym.core.types import Message
from vertigym.dialects.chat_call import (
    Answer,
    CallReply,
    ChatCall,
    RefusedError,
    ReplyHead,
    ToolCall,
    unsupported,
)
from vertigym.dialects.dialect import error_kind, sent_event, token_logprobs, usage_of
from vertigym.dialects.wire_models import (
    MOST_MESSAGES,
    WireModel,
    function_tool,
    joined_text,
    plain_message,
    validated,
)

_TEXT = ("input_text", "output_text", "text")
_TOOL = {"type": "function", "parameters": {}, "strict": False}  # what the client wants in one
_LOGPROBS = "message.output_text.logprobs"
_ITEM_KEYS = {
    "message": {"type", "role", "content", "id", "status", "phase"},
    "function_call": {"type", "call_id", "name", "arguments", "id", "status"},
    "function_call_output": {"type", "call_id", "output", "id", "status"},
}


class TextFormat(WireModel):
    """What a reply must be."""

    type: Literal["text", "json_object", "json_schema"]
    name: str = ""
    description: str = ""
    schema_: dict[str, Any] = Field(default_factory=lambda: {"type": "object"}, alias="schema")
    strict: bool = False


class TextConfig(WireModel):
    """How a reply is written."""

    NEUTRAL = {"verbosity": ("medium",)}  # noqa: RUF012

    format: TextFormat = TextFormat(type="text")


class NamedResponsesTool(WireModel):
    """The function that must be called."""

    type: Literal["function"]
    name: str


class ResponsesRequest(WireModel):
    """A request. Parameters that are not declared are refused, unless they ask for nothing."""

    NEUTRAL = {  # noqa: RUF012
        "background": (False,),
        "context_management": ([],),
        "reasoning": ({}, {"effort": "none"}),
        "service_tier": ("auto", "default"),
        "truncation": ("disabled",),
    }
    HINTS = frozenset(
        {"prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "safety_identifier", "store"}
    )

    model: str
    input: str | list[Any] = Field(max_length=10 * MOST_MESSAGES**2)
    instructions: str = ""
    temperature: float = Field(0.0, ge=0, le=5)
    top_p: float = Field(1.0, gt=0, le=1)
    max_output_tokens: int | None = Field(None, ge=1)
    include: list[str] = Field(default_factory=list)
    top_logprobs: int = Field(0, ge=0, le=20)
    text: TextConfig = TextConfig()
    stream: bool = False
    stream_options: dict[str, Any] = Field(default_factory=dict)
    tools: list[dict[str, Any]] = Field(default_factory=list)
    tool_choice: Literal["auto", "none", "required"] | NamedResponsesTool = "auto"
    parallel_tool_calls: bool = True
    user: str = Field("", max_length=200)
    metadata: dict[str, Any] = Field(default_factory=dict)

    @field_validator("tools", mode="before")
    @classmethod
    def _are_functions(cls, tools: Any) -> Any:
        if not isinstance(tools, list):
            return tools
        if any(not isinstance(one, dict) or one.get("type") != "function" for one in tools):
            raise ValueError("only tools of type 'function' are known")
        return [function_tool({key: value for key, value in one.items() if key != "type"}) for one in tools]

    def call(self) -> ChatCall:
        """As a call.

        Raises:
            RefusedError: an item that cannot be read.
        """
        opening = (
            [{"type": "message", "role": "system", "content": self.instructions}] if self.instructions else []
        )
        items = [{"role": "user", "content": self.input}] if isinstance(self.input, str) else self.input
        choice, form = self.tool_choice, self.text.format
        asks = {"text": None, "json_object": {"type": "object"}, "json_schema": form.schema_}
        logprobs = _LOGPROBS in self.include or "top_logprobs" in self.model_fields_set
        return ChatCall(
            model=self.model,
            messages=_messages([*opening, *items]),
            temperature=self.temperature,
            top_p=self.top_p,
            max_tokens=self.max_output_tokens,
            top_logprobs=self.top_logprobs if logprobs else None,
            schema=asks[form.type],
            tools=tuple(self.tools),
            choice=f"={choice.name}" if isinstance(choice, NamedResponsesTool) else choice,
            parallel=self.parallel_tool_calls,
            stream=self.stream,
            user=self.user,
            metadata=self.metadata,
            given=frozenset(self.model_fields_set),
            names={"response_format": "text", "max_tokens": "max_output_tokens", "logprobs": "top_logprobs"},
        )


class Responses:
    """The dialect."""

    path = "/v1/responses"
    prefix = "resp_"

    def read(self, value: Any) -> ChatCall:
        """A request as a call."""
        request = validated(ResponsesRequest, value)
        request.refuse_rest()
        request.text.refuse_rest("text.")
        for name in set(request.stream_options) - {"include_obfuscation"}:
            raise unsupported(f"stream_options.{name}")
        if other := set(request.include) - {_LOGPROBS, "reasoning.encrypted_content"}:  # there is no reasoning
            raise unsupported("include", f"with {sorted(other)}")
        return request.call()

    def body(self, reply: CallReply) -> dict[str, Any]:
        """The response."""
        return _response(reply.head, reply)

    def stream(self, head: ReplyHead) -> "ResponseEvents":
        """The response as events."""
        return ResponseEvents(head)

    def error(self, status: int, message: str, param: str | None, code: str | None) -> dict[str, Any]:
        """An error."""
        return {"error": {"message": message, "type": error_kind(status), "param": param, "code": code}}

    def error_event(self, status: int, message: str, code: str | None) -> str:
        """An error in a stream."""
        data = {"type": "error", "code": code, "message": message, "param": None, "sequence_number": 0}
        return sent_event(data, "error")


class ResponseEvents:
    """A stream of responses' events."""

    def __init__(self, head: ReplyHead) -> None:
        self._head, self._count, self._said = head, 0, ""

    def begin(self) -> Iterator[str]:
        """It was made, and goes on."""
        for name in ("created", "in_progress"):
            yield self._event(f"response.{name}", response=_response(self._head))

    def text(self, index: int, more: str) -> Iterator[str]:
        """A piece of text."""
        where = {"item_id": _message_id(self._head), "output_index": 0, "content_index": 0}
        if not self._said:
            item = _message_item(self._head, None)
            yield self._event("response.output_item.added", output_index=0, item=item)
            yield self._event("response.content_part.added", **where, part=_text_part(""))
        self._said += more
        yield self._event("response.output_text.delta", **where, delta=more, logprobs=[])

    def end(self, reply: CallReply, rest: Mapping[int, str]) -> Iterator[str]:
        """The rest, the calls, the whole."""
        (answer,) = reply.answers
        if rest.get(0) or not (self._said or answer.calls):
            yield from self.text(0, rest.get(0, ""))
        response = _response(self._head, reply)
        for place, item in enumerate(response["output"]):
            events = self._message_ends if item["type"] == "message" else self._call_comes
            yield from events(place, item)
        kind = "incomplete" if answer.finish == "length" else "completed"
        yield self._event(f"response.{kind}", response=response)

    def _message_ends(self, place: int, item: dict[str, Any]) -> Iterator[str]:
        (part,) = item["content"]
        where = {"item_id": item["id"], "output_index": place, "content_index": 0}
        yield self._event(
            "response.output_text.done", **where, text=part["text"], logprobs=part.get("logprobs", [])
        )
        yield self._event("response.content_part.done", **where, part=part)
        yield self._event("response.output_item.done", output_index=place, item=item)

    def _call_comes(self, place: int, item: dict[str, Any]) -> Iterator[str]:
        where = {"item_id": item["id"], "output_index": place}
        begun = item | {"arguments": "", "status": "in_progress"}
        yield self._event("response.output_item.added", output_index=place, item=begun)
        yield self._event("response.function_call_arguments.delta", **where, delta=item["arguments"])
        yield self._event("response.function_call_arguments.done", **where, **_named(item))
        yield self._event("response.output_item.done", output_index=place, item=item)

    def _event(self, kind: str, /, **data: Any) -> str:
        self._count += 1
        return sent_event({"type": kind, "sequence_number": self._count - 1, **data}, kind)


def _named(item: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": item["name"], "arguments": item["arguments"]}


def _response(head: ReplyHead, reply: CallReply | None = None) -> dict[str, Any]:
    call = head.call
    answer = reply.answers[0] if reply else None
    cut = bool(answer and answer.finish == "length")
    return {
        "id": head.id, "object": "response", "created_at": head.created, "model": call.model,
        "status": "in_progress" if reply is None else "incomplete" if cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "error": None, "instructions": None, "previous_response_id": None, "truncation": "disabled",
        "output": _output(head, answer) if answer else [],
        "parallel_tool_calls": call.parallel, "tool_choice": _choice(call.choice),
        "tools": [_TOOL | tool["function"] for tool in call.tools],
        "temperature": call.temperature, "top_p": call.top_p, "max_output_tokens": call.max_tokens,
        "metadata": dict(call.metadata or {}), "usage": _usage(reply) if reply else None,
    }  # fmt: skip


def _choice(choice: str) -> Any:
    return {"type": "function", "name": choice[1:]} if choice.startswith("=") else choice


def _usage(reply: CallReply) -> dict[str, Any]:
    return usage_of(reply, "input_tokens", "output_tokens") | {
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": reply.prompt_tokens + reply.completion_tokens,
    }


def _output(head: ReplyHead, answer: Answer) -> list[dict[str, Any]]:
    said = [_message_item(head, answer)] if answer.text or not answer.calls else []
    return [*said, *(_call_item(one) for one in answer.calls)]


def _message_id(head: ReplyHead) -> str:
    return f"msg_{head.id.removeprefix('resp_')}"


def _message_item(head: ReplyHead, answer: Answer | None) -> dict[str, Any]:
    status = "in_progress" if answer is None else "incomplete" if answer.finish == "length" else "completed"
    content = []
    if answer:
        logprobs = {} if head.call.top_logprobs is None else {"logprobs": token_logprobs(answer)}
        content = [_text_part(answer.text) | logprobs]
    return {
        "id": _message_id(head), "type": "message", "role": "assistant", "status": status, "content": content,
    }  # fmt: skip


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": []}


def _call_item(call: ToolCall) -> dict[str, Any]:
    return {
        "id": f"fc_{call.id}", "type": "function_call", "call_id": call.id, "name": call.name,
        "arguments": call.arguments, "status": "completed",
    }  # fmt: skip


def _messages(items: list[Any]) -> tuple[Message, ...]:
    """Items as the messages of a chat: a function call belongs to the message of the assistant before it."""
    found: list[dict[str, Any]] = []
    for place, item in enumerate(items):
        try:
            _add(found, item)
        except (ValueError, KeyError, TypeError) as error:
            raise RefusedError(400, f"input.{place}: {error}"[:300], param="input") from None
    if not 0 < len(found) <= MOST_MESSAGES:
        raise RefusedError(400, f"input: 1 to {MOST_MESSAGES} messages are read", param="input")
    return tuple(validated(_Chat, {"input": found}).input)


class _Chat(WireModel):
    input: list[Message]


def _add(found: list[dict[str, Any]], item: Any) -> None:
    if not isinstance(item, dict):
        raise ValueError("an item is an object")
    kind = item.get("type") or "message"
    if kind not in _ITEM_KEYS:
        raise ValueError(f"an item of type {str(kind)[:50]!r} is not supported")
    if unknown := next((key for key, value in item.items() if value and key not in _ITEM_KEYS[kind]), None):
        raise ValueError(f"{unknown!r} in an item is not supported")
    if kind == "message":
        content = item.get("content")
        text = joined_text(content, _TEXT) if isinstance(content, list) else content
        found.append(plain_message({"role": item.get("role"), "content": text}))
    elif kind == "function_call":
        function = {"name": item["name"], "arguments": item["arguments"]}
        if not found or found[-1]["role"] != "assistant":
            found.append({"role": "assistant", "content": ""})
        call = {"id": item["call_id"], "type": "function", "function": function}
        found[-1].setdefault("tool_calls", []).append(call)
    else:
        output = item["output"]
        text = joined_text(output, _TEXT) if isinstance(output, list) else output
        found.append({"role": "tool", "tool_call_id": item["call_id"], "content": text})
