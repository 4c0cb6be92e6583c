"""A call, from the policy to its record: what is asked of the engine, the text while it grows, the row.

A reply, and the end of a stream, are sent only after their rows are on record.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from vertigym.core.errors import EngineError, InputError
from vertigym.core.files import dumps
from vertigym.core.seeds import derive
from vertigym.core.types import Completion, Decoding, Policy, Prompt, Sampling, StopReason
from vertigym.dialects.chat_call import (
    CallReply,
    ChatCall,
    RefusedError,
    ReplyHead,
    TextDeltas,
    choice_id,
    reply_of,
    unsupported,
)
from vertigym.dialects.dialect import Dialect
from vertigym.policies.grammars import calls_grammar, check_grammar, object_grammar
from vertigym.serving.batcher import Batcher, QueueFullError
from vertigym.serving.recorder import Recorder
from vertigym.traces.records import Document, Trace

HungUp = asyncio.Future[None]
OnText = Callable[[int, str], None]


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A policy with its name, version, and the most tokens of a reply."""

    policy: Policy
    name: str
    version: str
    max_tokens: int


class ModelCalls:
    """Answers calls with a model, and records them."""

    def __init__(self, model: ServedModel, batcher: Batcher, recorder: Recorder) -> None:
        self._model, self._batcher, self._recorder = model, batcher, recorder
        self._honours: frozenset[str] = getattr(model.policy, "honours", frozenset())
        self._answering: set[asyncio.Future[CallReply]] = set()
        self.known = recorder.known()

    def check(self, call: ChatCall) -> None:
        """
        Raises:
            RefusedError: another model is asked, or something that its engine does not do.
        """
        if call.model != self._model.name:
            message = f"no model {call.model[:100]!r} here: this is {self._model.name!r}"
            raise RefusedError(404, message, "model_not_found", param="model")
        for ability, parameter in _needs(call):
            if ability not in self._honours:
                raise unsupported(call.name(parameter), "by this engine: leave it out")
        if grammar := _grammar(call):
            try:
                check_grammar(grammar)
            except InputError as error:
                raise RefusedError(400, f"the schema cannot be followed: {error}", param=_why(call)) from None

    async def reply(self, head: ReplyHead, hung_up: HungUp, on_text: OnText | None = None) -> CallReply:
        """The reply to a call, when it is on record. `on_text` is told of each choice's text so far, on the
        engine's thread.

        Raises:
            RefusedError: there is none.
        """
        began = time.time()
        try:
            completions = await asyncio.gather(
                *(self._complete(head.call, i, hung_up, on_text) for i in range(head.call.count))
            )
        finally:
            delivered = not hung_up.done()
            hung_up.cancel()
        for index, completion in enumerate(completions):
            name = choice_id(head, index)
            row = self._row(name, began, head.call, completion)
            await self.record(row if delivered else row | {"delivered": False})
            if delivered:
                self.known.add(name)
        if not delivered:
            raise RefusedError(499, "the caller hung up")
        return reply_of(head, completions)

    async def events(self, dialect: Dialect, head: ReplyHead, hung_up: HungUp) -> AsyncIterator[str]:
        """The reply as a stream. Its first item is empty, and comes once there is a text or the end.

        Raises:
            RefusedError: there is no reply, and nothing was sent.
        """
        loop = asyncio.get_running_loop()
        texts: asyncio.Queue[tuple[int, str] | None] = asyncio.Queue()

        def heard(index: int, text: str) -> None:
            loop.call_soon_threadsafe(texts.put_nowait, (index, text))

        growing = (
            heard if head.call.top_logprobs is None else None
        )  # log-probs come with their text, at the end
        answering = asyncio.ensure_future(self.reply(head, hung_up, growing))
        self._answering.add(answering)  # a stream that nobody reads any more is still recorded
        answering.add_done_callback(lambda _: texts.put_nowait(None))
        answering.add_done_callback(self._ended)
        piece = await texts.get()
        if piece is None and (error := answering.exception()):
            raise error
        yield ""
        stream, deltas = dialect.stream(head), [TextDeltas(head.call) for _ in range(head.call.count)]
        for event in stream.begin():
            yield event
        while piece is not None:
            index, text = piece
            if more := deltas[index].more(text):
                for event in stream.text(index, more):
                    yield event
            piece = await texts.get()
        try:
            reply = answering.result()
        except RefusedError as error:
            yield dialect.error_event(error.status, str(error), error.code)
            return
        rest = {index: deltas[index].rest(answer) for index, answer in enumerate(reply.answers)}
        for event in stream.end(reply, rest):
            yield event

    def count(self, call: ChatCall) -> int:
        """The tokens of a call's prompt.

        Raises:
            RefusedError: there are none to count, or the prompt cannot be rendered.
        """
        if not (renderer := getattr(self._model.policy, "renderer", None)):
            raise RefusedError(404, "this model's tokens are not known here", "not_found")
        try:
            return len(renderer.prompt(call.messages, call.shown_tools))
        except InputError as error:
            raise RefusedError(400, str(error)) from None

    async def finish(self) -> None:
        """Returns when all streams have been recorded."""
        await asyncio.gather(*self._answering, return_exceptions=True)

    def _ended(self, answering: "asyncio.Future[CallReply]") -> None:
        self._answering.discard(answering)
        if not answering.cancelled():
            answering.exception()  # is told to the reader of the stream, if there is one

    async def record(self, row: dict[str, Any]) -> None:
        """
        Raises:
            RefusedError: it cannot be written.
        """
        try:
            await self._recorder.append(dumps(row) + "\n")
        except OSError as error:
            raise RefusedError(
                500, f"it could not be recorded ({error.strerror}), so it is not answered"
            ) from None

    async def _complete(
        self, call: ChatCall, index: int, hung_up: HungUp, on_text: OnText | None
    ) -> Completion:
        most = self._model.max_tokens
        sampling = Sampling(temperature=call.temperature, top_p=call.top_p, max_tokens=most)
        decoding = replace(call.decoding, grammar=_grammar(call))
        prompt = Prompt(
            call.messages,
            seed=derive(call.seed, "choice", index) if index else call.seed,
            tools=call.shown_tools,
            decoding=decoding,
            on_text=(lambda text: on_text(index, text)) if on_text else None,
        )
        try:
            completion = await self._batcher.ask(prompt, sampling, hung_up)
        except QueueFullError:
            raise RefusedError(503, "too many requests are waiting", "overloaded", retry_s=1) from None
        except InputError as error:
            raise RefusedError(400, str(error)) from None
        except EngineError as error:
            raise RefusedError(503, f"the engine failed: {error}", "engine") from None
        return completion if hung_up.done() else _usable(completion, decoding)

    def _row(self, name: str, began: float, call: ChatCall, completion: Completion) -> dict[str, Any]:
        """A choice as a Trace on record."""
        usage = {
            "prompt_tokens": completion.prompt_tokens,
            "completion_tokens": completion.completion_tokens,
            "latency_s": round(time.time() - began, 4),
            "temperature": call.temperature,
        }
        tools = {"tools": list(call.shown_tools)} if call.shown_tools else {}
        trace = Trace(
            id=name,
            time=began,
            messages=call.messages,
            completion=completion.text,
            model=self._model.name,
            version=self._model.version,
            customer=call.user,
            documents=tuple(Document.model_validate(one) for one in call.documents),
            meta={**(call.metadata or {}), **tools, "usage": usage},
        )
        return trace.model_dump(mode="json", exclude_defaults=True)


def _usable(completion: Completion, decoding: Decoding) -> Completion:
    """
    Raises:
        RefusedError: the engine failed, or had no room.
    """
    if completion.stop_reason is StopReason.ERROR:
        raise RefusedError(503, f"the engine failed: {completion.error}", "engine")
    if completion.stop_reason is StopReason.LENGTH and not completion.completion_tokens:
        raise RefusedError(400, "the messages fill the model's context", "context_length_exceeded")
    return completion.cut(decoding)


def _needs(call: ChatCall) -> Iterator[tuple[str, str]]:
    """What a call needs of an engine, and the parameter that says so."""
    if call.top_logprobs is not None:
        yield "logprobs", "logprobs"
    if call.top_logprobs:
        yield "alternatives", "top_logprobs"
    if _grammar(call):
        yield "grammar", _why(call)


def _grammar(call: ChatCall) -> str:
    """What a completion must match; empty where any text will do."""
    if call.schema is not None:
        return object_grammar(call.schema)
    if call.must_call or call.strict:
        functions = [tool["function"] for tool in call.shown_tools]
        return calls_grammar(functions, required=call.must_call, parallel=call.parallel)
    return ""


def _why(call: ChatCall) -> str:
    """The parameter that asks for a grammar."""
    return "response_format" if call.schema is not None else "tool_choice" if call.must_call else "strict"
