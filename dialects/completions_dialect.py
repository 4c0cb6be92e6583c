"""OpenAI's chat completions: `POST /v1/chat/completions`."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from vertigym.core.types import Message
from vertigym.dialects.chat_call import Answer, CallReply, ChatCall, ReplyHead
from vertigym.dialects.dialect import error_kind, sent_event, token_logprobs, usage_of
from vertigym.dialects.wire_models import (
    MOST_MESSAGES,
    WireModel,
    function_tool,
    plain_message,
    validated,
)

Metadata = dict[str, Any]


class StreamOptions(WireModel):
    """`include_usage` ends a stream with a chunk of its usage; obfuscation pads against eavesdroppers."""

    HINTS = frozenset({"include_obfuscation"})

    include_usage: bool = False


class ShownDocument(WireModel):
    """A passage that a call is about (not OpenAI's). `id` is what a citation names."""

    id: str = Field(min_length=1)
    text: str


class JsonSchemaFormat(WireModel):
    """The schema of a reply."""

    name: str = ""
    description: str = ""
    schema_: dict[str, Any] = Field(default_factory=lambda: {"type": "object"}, alias="schema")
    strict: bool = False


class ResponseFormat(WireModel):
    """What a reply must be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema belongs to the type 'json_schema', and only to it")
        return self

    @property
    def schema_of_reply(self) -> dict[str, Any] | None:
        """None where any text will do."""
        if self.json_schema:
            return self.json_schema.schema_
        return {"type": "object"} if self.type == "json_object" else None


class NamedFunction(WireModel):
    """A function by its name."""

    name: str


class NamedTool(WireModel):
    """The function that must be called."""

    type: Literal["function"]
    function: NamedFunction


class ChatCompletionsRequest(WireModel):
    """A request. Parameters that are not declared are refused, unless they ask for nothing."""

    NEUTRAL = {  # noqa: RUF012 (pydantic's own annotation is the base's)
        "frequency_penalty": (0,),
        "function_call": ("none", "auto"),
        "functions": ([],),
        "logit_bias": ({},),
        "min_p": (0,),
        "modalities": (["text"],),
        "presence_penalty": (0,),
        "reasoning_effort": ("none",),
        "repetition_penalty": (1,),
        "service_tier": ("auto", "default"),
        "top_k": (0, -1),
        "verbosity": ("medium",),
    }
    HINTS = frozenset(
        {"prediction", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"}
        | {"safety_identifier", "store"}
    )

    model: str
    messages: list[Message] = Field(min_length=1, max_length=MOST_MESSAGES)
    temperature: float = Field(0.0, ge=0, le=5)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    seed: int = 0
    n: int = Field(1, ge=1, le=128)
    stop: str | list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list)
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=20)
    response_format: ResponseFormat = ResponseFormat(type="text")
    stream: bool = False
    stream_options: StreamOptions | None = None
    tools: list[dict[str, Any]] = Field(default_factory=list)
    tool_choice: Literal["auto", "none", "required"] | NamedTool = "auto"
    parallel_tool_calls: bool = True
    user: str = Field("", max_length=200)
    metadata: Metadata = Field(default_factory=dict)
    documents: list[ShownDocument] = Field(default_factory=list)

    @field_validator("messages", mode="before")
    @classmethod
    def _plain(cls, messages: Any) -> Any:
        if not isinstance(messages, list):
            return messages
        return [plain_message(message) if isinstance(message, dict) else message for message in messages]

    @field_validator("tools", mode="before")
    @classmethod
    def _are_functions(cls, tools: Any) -> Any:
        if not isinstance(tools, list):
            return tools
        functions = [one.get("function") if isinstance(one, dict) else None for one in tools]
        if any(isinstance(one, dict) and one.get("type") != "function" for one in tools):
            raise ValueError("only tools of type 'function' are known")
        return [function_tool(function) for function in functions]

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        if self.stream_options and not self.stream:
            raise ValueError("stream_options: only allowed with stream = true")
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs: only allowed with logprobs = true")
        return self

    def call(self) -> ChatCall:
        """As a call."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop
        choice = self.tool_choice
        return ChatCall(
            model=self.model,
            messages=tuple(self.messages),
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed % 2**63,
            max_tokens=self.max_completion_tokens or self.max_tokens,
            stop=tuple(one for one in stop if one),
            count=self.n,
            top_logprobs=self.top_logprobs if self.logprobs else None,
            schema=self.response_format.schema_of_reply,
            tools=tuple(self.tools),
            choice=f"={choice.function.name}" if isinstance(choice, NamedTool) else choice,
            parallel=self.parallel_tool_calls,
            stream=self.stream,
            include_usage=bool(self.stream_options and self.stream_options.include_usage),
            user=self.user,
            metadata=self.metadata,
            documents=tuple({"id": one.id, "text": one.text} for one in self.documents),
            given=frozenset(self.model_fields_set),
        )


class ChatCompletions:
    """The dialect."""

    path = "/v1/chat/completions"
    prefix = "chatcmpl-"

    def read(self, value: Any) -> ChatCall:
        """A request as a call."""
        request = validated(ChatCompletionsRequest, value)
        request.refuse_rest()
        if request.stream_options:
            request.stream_options.refuse_rest("stream_options.")
        request.response_format.refuse_rest("response_format.")
        return request.call()

    def body(self, reply: CallReply) -> dict[str, Any]:
        """The response."""
        choices = [
            _choice(i, reply.head.call, one, message=_message(one)) for i, one in enumerate(reply.answers)
        ]
        return _head(reply.head, "chat.completion") | {"choices": choices, "usage": _usage(reply)}

    def stream(self, head: ReplyHead) -> "CompletionChunks":
        """The response as chunks."""
        return CompletionChunks(head)

    def error(self, status: int, message: str, param: str | None, code: str | None) -> dict[str, Any]:
        """An error."""
        return {"error": {"message": message, "type": error_kind(status), "param": param, "code": code}}

    def error_event(self, status: int, message: str, code: str | None) -> str:
        """An error in a stream."""
        return sent_event(self.error(status, message, None, code))


class CompletionChunks:
    """A stream of `chat.completion.chunk`."""

    def __init__(self, head: ReplyHead) -> None:
        self._call = head.call
        self._head = _head(head, "chat.completion.chunk")
        self._head |= {"usage": None} if head.call.include_usage else {}

    def begin(self) -> Iterator[str]:
        """The role."""
        for index in range(self._call.count):
            yield self._delta(index, {"role": "assistant", "content": ""})

    def text(self, index: int, more: str) -> Iterator[str]:
        """A piece of text."""
        yield self._delta(index, {"content": more})

    def end(self, reply: CallReply, rest: Mapping[int, str]) -> Iterator[str]:
        """The rest, the calls, the reasons, the usage."""
        for index, answer in enumerate(reply.answers):
            if (more := rest.get(index)) or answer.tokens:
                logprobs = _logprobs(self._call, answer)
                yield self._delta(index, {"content": more or ""}, logprobs=logprobs)
            for place, one in enumerate(_calls(answer)):
                yield self._delta(index, {"tool_calls": [{"index": place, **one}]})
            yield self._delta(index, {}, finish=answer.finish)
        if self._call.include_usage:
            yield sent_event(self._head | {"choices": [], "usage": _usage(reply)})
        yield "data: [DONE]\n\n"

    def _delta(
        self, index: int, delta: dict[str, Any], *, finish: str | None = None, logprobs: Any = None
    ) -> str:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return sent_event(self._head | {"choices": [choice]})


def _head(head: ReplyHead, kind: str) -> dict[str, Any]:
    return {
        "id": head.id, "object": kind, "created": head.created, "model": head.call.model,
        "system_fingerprint": head.version,
    }  # fmt: skip


def _choice(index: int, call: ChatCall, answer: Answer, **said: Any) -> dict[str, Any]:
    return {"index": index, **said, "logprobs": _logprobs(call, answer), "finish_reason": answer.finish}


def _logprobs(call: ChatCall, answer: Answer) -> dict[str, Any] | None:
    if call.top_logprobs is None:
        return None
    return {"content": token_logprobs(answer), "refusal": None}


def _message(answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
    return message | {"content": answer.text or None, "tool_calls": _calls(answer)} if answer.calls else message


def _calls(answer: Answer) -> list[dict[str, Any]]:
    return [
        {"id": one.id, "type": "function", "function": {"name": one.name, "arguments": one.arguments}}
        for one in answer.calls
    ]


def _usage(reply: CallReply) -> dict[str, int]:
    tokens = usage_of(reply, "prompt_tokens", "completion_tokens")
    return tokens | {"total_tokens": reply.prompt_tokens + reply.completion_tokens}
