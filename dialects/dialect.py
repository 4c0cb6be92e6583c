"""What a dialect is: a path, how its requests are read, and how replies, streams and errors are written."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from vertigym.core.files import dumps
from vertigym.dialects.chat_call import Answer, CallReply, ChatCall, ReplyHead


class EventStream(Protocol):
    """The events of one reply, in order: `begin`, `text` any number of times for each choice, `end`. All are
    server-sent events, ready to be sent."""

    def begin(self) -> Iterable[str]:
        """What comes before any text."""
        ...

    def text(self, index: int, more: str) -> Iterable[str]:
        """More of what a choice says."""
        ...

    def end(self, reply: CallReply, rest: Mapping[int, str]) -> Iterable[str]:
        """What is left: `rest` of what each choice says, calls, usage, why it ended."""
        ...


class Dialect(Protocol):
    """A chat API."""

    path: str
    prefix: str  # of the ids of its replies

    def read(self, value: Any) -> ChatCall:
        """A request's JSON as a call.

        Raises:
            RefusedError: it cannot be read, or asks for what is not done here.
        """
        ...

    def body(self, reply: CallReply) -> dict[str, Any]:
        """The response to a call."""
        ...

    def stream(self, head: ReplyHead) -> EventStream:
        """The response as a stream."""
        ...

    def error(self, status: int, message: str, param: str | None, code: str | None) -> dict[str, Any]:
        """An error's JSON."""
        ...

    def error_event(self, status: int, message: str, code: str | None) -> str:
        """An error in the middle of a stream."""
        ...


def sent_event(data: Mapping[str, Any], name: str = "") -> str:
    """A server-sent event."""
    return f"event: {name}\ndata: {dumps(data)}\n\n" if name else f"data: {dumps(data)}\n\n"


def whole_stream(stream: EventStream, reply: CallReply) -> str:
    """The events of a reply that is known as a whole."""
    rest = {index: answer.text for index, answer in enumerate(reply.answers)}
    return "".join([*stream.begin(), *stream.end(reply, rest)])


def error_kind(status: int) -> str:
    """OpenAI's type of an error."""
    return "server_error" if status >= 500 else "invalid_request_error"


def usage_of(reply: CallReply, prompt: str, completion: str) -> dict[str, int]:
    """The tokens of a reply, by the dialect's names."""
    return {prompt: reply.prompt_tokens, completion: reply.completion_tokens}


def token_logprobs(answer: Answer) -> list[dict[str, Any]]:
    """The tokens of an answer as OpenAI reports them."""
    return [
        _token(one.text, one.logprob) | {"top_logprobs": [_token(*other) for other in one.alternatives]}
        for one in answer.tokens
    ]


def _token(text: str, logprob: float) -> dict[str, Any]:
    """`bytes` is null where the token is part of a character."""
    whole = "\ufffd" not in text
    return {
        "token": text,
        "logprob": logprob,
        "bytes": list(text.encode("utf-8", "replace")) if whole else None,
    }
