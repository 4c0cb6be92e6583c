"""One call and one reply, whatever dialect they are spoken in.

The one idea: a dialect reads its JSON into a `ChatCall` and writes a `CallReply` as its JSON, whole or as a
stream; all else, what is sampled, held back, recorded and learned from, knows these two only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from vertigym.core.bounds import json_value
from vertigym.core.files import dumps
from vertigym.core.seeds import derive
from vertigym.core.types import Completion, Decoding, Message, StopReason, TokenLogprob

OPEN, CLOSE = "<tool_call>", "</tool_call>"


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


def unsupported(name: str, why: str = "") -> RefusedError:
    """What is said of a parameter that asks for something that is not done here."""
    message = f"{name[:100]} is not supported {why or 'with this value: leave it out'}"
    return RefusedError(400, message, "unsupported_parameter", param=name[:100])


@dataclass(frozen=True, slots=True)
class ChatCall:
    """What is asked.

    `tools` are in OpenAI's form; `choice` is auto, none, required, or `=NAME` for a call of that function.
    `schema` is what a reply must be, as a JSON schema. `top_logprobs`: None where no log-probs are asked for.
    `given` has the names of the parameters that were given, `stream_options` whether usage ends a stream.
    `names` are what the dialect calls a parameter, where it is not OpenAI's chat name.
    """

    model: str
    messages: tuple[Message, ...]
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    count: int = 1
    top_logprobs: int | None = None
    schema: Mapping[str, Any] | None = None
    tools: tuple[dict[str, Any], ...] = ()
    choice: str = "auto"
    parallel: bool = True
    stream: bool = False
    include_usage: bool = False
    user: str = ""
    metadata: Mapping[str, Any] | None = None
    documents: tuple[Mapping[str, Any], ...] = ()
    given: frozenset[str] = frozenset()
    names: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        """
        Raises:
            RefusedError: what is asked contradicts itself.
        """
        named = self.choice.startswith("=")
        if named and self.choice[1:] not in [tool["function"]["name"] for tool in self.tools]:
            raise RefusedError(400, f"tool_choice: there is no tool {self.choice[1:]!r}", param="tool_choice")
        if self.choice == "required" and not self.tools:
            raise RefusedError(400, "tool_choice asks for a call, and there are no tools", param="tool_choice")
        if self.schema is not None and self.shown_tools:
            raise unsupported(self.name("response_format"), "beside tools: ask for one of the two")

    def name(self, parameter: str) -> str:
        """What the dialect calls a parameter."""
        return (self.names or {}).get(parameter, parameter)

    @property
    def shown_tools(self) -> tuple[dict[str, Any], ...]:
        """The tools that the model is told of: none where it must not call any, the one that it must."""
        if self.choice.startswith("="):
            return tuple(tool for tool in self.tools if tool["function"]["name"] == self.choice[1:])
        return () if self.choice == "none" else self.tools

    @property
    def must_call(self) -> bool:
        """Whether nothing but tool calls is asked for."""
        return self.choice not in ("auto", "none")

    @property
    def constrained(self) -> bool:
        """Whether a reply must be JSON."""
        return self.schema is not None

    @property
    def told(self) -> bool:
        """Whether log-probs are asked for."""
        return self.top_logprobs is not None

    @property
    def many(self) -> bool:
        """Whether more than one reply is asked for."""
        return self.count > 1

    @property
    def decoding(self) -> Decoding:
        """What it asks of a completion, but for a grammar."""
        ends = (CLOSE,) if self.shown_tools and not self.parallel else ()
        return Decoding(self.max_tokens, self.stop, ends, alternatives=self.top_logprobs)

    @property
    def strict(self) -> bool:
        """Whether a tool's arguments must be right by its schema."""
        return any(tool["function"].get("strict") for tool in self.shown_tools)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that a reply makes; `arguments` are JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Answer:
    """One reply of the model: what it says, what it calls, and why it ended."""

    text: str
    calls: tuple[ToolCall, ...]
    finish: Literal["stop", "length", "tool_calls"]
    stop_text: str = ""
    tokens: Sequence[TokenLogprob] = ()

    def message(self) -> Message:
        """As a message of a chat."""
        if not self.calls:
            return {"role": "assistant", "content": self.text}
        called = [
            {"id": one.id, "type": "function", "function": {"name": one.name, "arguments": one.arguments}}
            for one in self.calls
        ]
        return {"role": "assistant", "content": self.text, "tool_calls": called}


@dataclass(frozen=True, slots=True)
class ReplyHead:
    """What is known of a reply before it is written. `version` is the model's, `created` seconds since 1970."""

    id: str
    call: ChatCall
    version: str
    created: int


@dataclass(frozen=True, slots=True)
class CallReply:
    """All that a call is answered."""

    head: ReplyHead
    answers: tuple[Answer, ...]
    prompt_tokens: int
    completion_tokens: int


def reply_of(head: ReplyHead, completions: Sequence[Completion]) -> CallReply:
    """The reply that some completions are, one a choice."""
    return CallReply(
        head,
        tuple(answer_of(choice_id(head, i), head.call, one) for i, one in enumerate(completions)),
        completions[0].prompt_tokens,
        sum(completion.completion_tokens for completion in completions),
    )


def choice_id(head: ReplyHead, index: int) -> str:
    """The id of one choice: that of the reply for the first."""
    return f"{head.id}-{index}" if index else head.id


def answer_of(id: str, call: ChatCall, completion: Completion) -> Answer:  # noqa: A002
    """One answer; where the call brings tools, the calls in the text are its `calls`."""
    text = completion.text
    said, calls = split_calls(text) if call.shown_tools else (text, [])
    length = completion.stop_reason is StopReason.LENGTH
    return Answer(
        said,
        tuple(
            # Some templates want nine characters.
            ToolCall(f"{derive('tool call', id, place) % 16**9:09x}", name, arguments)
            for place, (name, arguments) in enumerate(calls)
        ),
        "tool_calls" if calls else "length" if length else "stop",
        completion.stop_text if completion.stop_text in call.stop else "",
        completion.tokens,
    )


def split_calls(text: str) -> tuple[str, list[tuple[str, str]]]:
    """What a reply says, and its tool calls: name, and arguments as JSON. A reply with a call that cannot be
    read says all of it and calls nothing."""
    said, calls, at = list[str](), list[tuple[str, str]](), 0
    while (start := text.find(OPEN, at)) >= 0:
        end = text.find(CLOSE, start)
        try:
            call = json_value(text[start + len(OPEN) : end]) if end >= 0 else None
            if not isinstance(call, dict) or not isinstance(call.get("name"), str):
                return text, []
            if not isinstance(arguments := call.get("arguments", {}), dict):
                return text, []
            calls.append((call["name"], dumps(arguments)))
        except (ValueError, RecursionError):
            return text, []
        said.append(text[at:start])
        at = end + len(CLOSE)
    return ("".join([*said, text[at:]]).rstrip(), calls) if calls else (text, [])


class TextDeltas:
    """What of a text may be sent while it grows: nothing that a stop or a tool call may yet take back."""

    def __init__(self, call: ChatCall) -> None:
        self._stops = call.stop
        self._tools = bool(call.shown_tools)
        self._held = [*call.stop, *([OPEN] if self._tools else [])]
        self._sent = ""

    def more(self, text: str) -> str:
        """The part of the text so far that has not been sent and can be."""
        end = min([len(text), *(at for one in self._held if (at := text.find(one)) >= 0)])
        end -= max((_overlap(text[:end], one) for one in self._held), default=0)
        return self._send(text[:end].rstrip() if self._tools else text[:end])

    def rest(self, answer: Answer) -> str:
        """What is left to be sent of a whole answer."""
        return self._send(answer.text)

    def _send(self, text: str) -> str:
        if not text.startswith(self._sent):
            return ""
        more, self._sent = text[len(self._sent) :], text
        return more


def _overlap(text: str, held: str) -> int:
    """How much of the end of a text may be the beginning of `held`."""
    sizes = range(min(len(text), len(held) - 1), 0, -1)
    return next((size for size in sizes if text.endswith(held[:size])), 0)
