"""OpenAI's chat completions on the wire, as far as a text model goes: requests, replies, streams, errors.

Every parameter is honoured, accepted because it asks for nothing (null, no tools, a penalty of 0), or
refused by name; none is ignored.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import from_json

from vertigym.core.bounds import MOST_LEVELS, is_too_deep, json_value
from vertigym.core.files import dumps
from vertigym.core.seeds import derive
from vertigym.core.types import Completion, Message, StopReason

# Parameters that are not supported, with the values that ask for nothing.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "min_p": (0,),
    "modalities": (["text"],),
    "n": (1,),
    "presence_penalty": (0,),
    "reasoning_effort": ("none",),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "stop": ([],),
    "tool_choice": ("none", "auto"),
    "top_k": (0, -1),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
}
# Parameters that change no answer.
_HINTS = {
    "prediction",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "store",
}
_MESSAGE_KEYS = set(Message.__annotations__)
_OPEN, _CLOSE = "<tool_call>", "</tool_call>"


class StreamOptions(BaseModel):
    """`include_usage` ends a stream with a chunk of its usage."""

    include_usage: bool = False
    include_obfuscation: bool = False  # padding against eavesdroppers: one piece of text needs none


class RefusedError(Exception):
    """A request that is answered with an error status. `param`: the field at fault."""

    def __init__(
        self, status: int, message: str, code: str | None = None, *, param: str | None = None, retry_s: int = 0
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param
        self.headers = {"Retry-After": str(retry_s)} if retry_s else {}
        if status == 401:
            self.headers["WWW-Authenticate"] = "Bearer"


class ChatRequest(BaseModel):
    """A request."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    model: str
    messages: tuple[Message, ...] = Field(min_length=1, max_length=1000)
    temperature: float = Field(0.0, ge=0, le=5)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    seed: int = 0
    stream: bool = False
    stream_options: StreamOptions | None = None
    tools: tuple[dict[str, Any], ...] = ()
    tool_choice: Any = "auto"
    parallel_tool_calls: bool = True
    user: str = Field("", max_length=200)
    metadata: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, request: Any) -> Any:
        """Null stands for a parameter that is not given."""
        if not isinstance(request, dict):
            return request
        return {name: value for name, value in request.items() if value is not None}

    @field_validator("messages", mode="before")
    @classmethod
    def _plain(cls, messages: Any) -> Any:
        if not isinstance(messages, list):
            return messages
        return [plain_message(message) if isinstance(message, dict) else message for message in messages]

    @field_validator("tools")
    @classmethod
    def _are_functions(cls, tools: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        for one in tools:
            function = one.get("function")
            if one.get("type") != "function" or not isinstance(function, dict):
                raise ValueError("only tools of type 'function' are known, with a 'function' that has a name")
            if not isinstance(function.get("name"), str):
                raise ValueError("a function has no name")
        return tools

    @field_validator("stream_options")
    @classmethod
    def _belong_to_a_stream(cls, options: StreamOptions | None, info: Any) -> StreamOptions | None:
        if options and not info.data.get("stream"):
            raise ValueError("only allowed with stream = true")
        return options

    @property
    def limit(self) -> int | None:
        """The most tokens of the reply."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def shown_tools(self) -> tuple[dict[str, Any], ...]:
        """The tools that the model is told of: none where it must not call any."""
        return () if self.tool_choice == "none" else self.tools

    @property
    def unsupported(self) -> str | None:
        """The name of a parameter that asks for something that is not done here."""
        if self.tool_choice not in ("none", "auto"):
            return "tool_choice"
        if self.tools and not self.parallel_tool_calls:
            return "parallel_tool_calls"
        if any(tool["function"].get("strict") for tool in self.tools):
            return "strict"
        extra = (self.model_extra or {}).items()
        return next((n for n, value in extra if n not in _HINTS and value not in _NEUTRAL.get(n, ())), None)


def request_json(body: bytes) -> Any:
    """The JSON in a request's body.

    Raises:
        RefusedError: none, nested too deeply, or a number that no record can hold.
    """
    try:
        value = from_json(body, allow_inf_nan=False)
        dumps(value)  # fails on 1e999
    except ValueError as error:
        raise RefusedError(400, f"Invalid JSON: {error}") from None
    if is_too_deep(value):
        raise RefusedError(400, f"Invalid JSON: nested more than {MOST_LEVELS} levels deep")
    return value


def refuse_unsupported(request: ChatRequest) -> None:
    """
    Raises:
        RefusedError: the request asks for something that is not done here; names it.
    """
    if name := request.unsupported:
        message = f"{name[:100]} is not supported with this value: leave it out"
        raise RefusedError(400, message, "unsupported_parameter", param=name[:100])


def error_json(status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """An error as OpenAI's API reports it."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def split_calls(text: str) -> tuple[str, list[tuple[str, str]]]:
    """What a reply says, and its tool calls: name, and arguments as JSON. A reply with a call that cannot be
    read says all of it and calls nothing."""
    said, calls, at = list[str](), list[tuple[str, str]](), 0
    while (start := text.find(_OPEN, at)) >= 0:
        end = text.find(_CLOSE, start)
        try:
            call = json_value(text[start + len(_OPEN) : end]) if end >= 0 else None
            if not isinstance(call, dict) or not isinstance(call.get("name"), str):
                return text, []
            if not isinstance(arguments := call.get("arguments", {}), dict):
                return text, []
            calls.append((call["name"], dumps(arguments)))
        except (ValueError, RecursionError):
            return text, []
        said.append(text[at:start])
        at = end + len(_CLOSE)
    return ("".join([*said, text[at:]]).strip(), calls) if calls else (text, [])


def reply_message(id: str, request: ChatRequest, completion: Completion) -> dict[str, Any]:  # noqa: A002
    """The assistant's message; where the request brings tools, the calls in the text are `tool_calls`."""
    said, calls = split_calls(completion.text) if request.shown_tools else (completion.text, [])
    if not calls:
        return {"role": "assistant", "content": said}
    called = [
        {
            "id": f"{derive('tool call', id, place) % 16**9:09x}",  # some templates want nine characters
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }
        for place, (name, arguments) in enumerate(calls)
    ]
    return {"role": "assistant", "content": said or None, "tool_calls": called}


def reply(
    id: str,  # noqa: A002
    request: ChatRequest,
    completion: Completion,
    version: str,
    created: int,
) -> dict[str, Any]:
    """The response to a request; `system_fingerprint` is the model's version, `created` seconds since 1970."""
    message = reply_message(id, request, completion)
    return _head(id, request, version, created, "chat.completion") | {
        "choices": [_choice(message=message, finish_reason=_finish(message, completion))],
        "usage": _usage(completion),
    }


def chunks(
    id: str,  # noqa: A002
    request: ChatRequest,
    completion: Completion,
    version: str,
    created: int,
) -> list[dict[str, Any]]:
    """The same as a stream: all of the text in one piece, since it is on record before any of it is sent."""
    head = _head(id, request, version, created, "chat.completion.chunk")
    message = reply_message(id, request, completion)
    calls = [{"index": place, **call} for place, call in enumerate(message.get("tool_calls", ()))]
    said = _choice(delta=message | ({"tool_calls": calls} if calls else {}), finish_reason=None)
    ended = _choice(delta={}, finish_reason=_finish(message, completion))
    if not (request.stream_options and request.stream_options.include_usage):
        return [head | {"choices": [said]}, head | {"choices": [ended]}]
    head |= {"usage": None}
    usage = {"choices": [], "usage": _usage(completion)}
    return [head | {"choices": [said]}, head | {"choices": [ended]}, head | usage]


def event_stream(events: list[dict[str, Any]]) -> list[str]:
    """Chunks as server-sent events."""
    return [f"data: {event}\n\n" for event in [*map(dumps, events), "[DONE]"]]


def _head(id: str, request: ChatRequest, version: str, created: int, kind: str) -> dict[str, Any]:  # noqa: A002
    return {"id": id, "object": kind, "created": created, "model": request.model, "system_fingerprint": version}


def _choice(**parts: Any) -> dict[str, Any]:
    return {"index": 0, "logprobs": None, **parts}


def _usage(completion: Completion) -> dict[str, int]:
    return {
        "prompt_tokens": completion.prompt_tokens,
        "completion_tokens": completion.completion_tokens,
        "total_tokens": completion.prompt_tokens + completion.completion_tokens,
    }


def _finish(message: Mapping[str, Any], completion: Completion) -> str:
    if message.get("tool_calls"):
        return "tool_calls"
    return "length" if completion.stop_reason is StopReason.LENGTH else "stop"


def plain_message(message: dict[str, Any]) -> dict[str, Any]:
    """A message as templates know it: what is null or empty left out, parts as one text, `developer` (OpenAI's
    newer name) as `system`."""
    if unknown := next((key for key, value in message.items() if value and key not in _MESSAGE_KEYS), None):
        raise ValueError(f"{unknown!r} in a message is not supported")
    plain = {key: value for key, value in message.items() if key == "content" or value}
    if plain.get("role") == "developer":
        plain["role"] = "system"
    if plain.get("content") is None and "tool_calls" in plain:
        plain["content"] = ""
    if isinstance(plain.get("content"), list):
        plain["content"] = "".join(map(_text, plain["content"]))
    return plain


def _text(part: Any) -> str:
    if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise ValueError("only text can be read: a message has a part of another type")
    text: str = part["text"]
    return text
