"""Generated requests: a parameter of the clients is honoured or refused by name; and many streams."""

import asyncio
import random
import typing
from collections.abc import Iterator, Sequence
from typing import Any

import openai
import pytest
from anthropic.types import message_create_params as anthropic_params
from openai.types.chat import completion_create_params as chat_params
from openai.types.responses import response_create_params as responses_params

from vertigym.core.types import Completion, Prompt, Sampling
from vertigym.dialects.completions_dialect import ChatCompletionsRequest
from vertigym.dialects.messages_dialect import MessagesRequest
from vertigym.dialects.responses_dialect import ResponsesRequest
from vertigym.dialects.wire_models import WireModel
from vertigym.serving.app import ServerLimits

from .served import post, serving

TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}
QUESTION = {"role": "user", "content": "one two END three"}
# What a request may ask for; `True` where it is done by a policy that writes text alone.
CHOICES: dict[str, list[tuple[Any, bool]]] = {
    "temperature": [(0, True), (0.7, True), (None, True), (-1, False), ("1", False)],
    "top_p": [(1, True), (0.5, True), (0, False)],
    "max_tokens": [(5, True), (None, True), (0, False), (1.5, False)],
    "max_completion_tokens": [(9, True), (None, True)],
    "n": [(1, True), (3, True), (0, False), (True, False)],
    "seed": [(7, True), (-1, True), (None, True), ("7", False)],
    "stop": [("END", True), (["x", "END"], True), ([], True), (None, True), ([""], False), (1, False)],
    "logprobs": [(False, True), (True, False)],
    "response_format": [({"type": "text"}, True), ({"type": "json_object"}, False), ({"type": "xml"}, False)],
    "tools": [([], True), ([TOOL], True), ([{"type": "custom"}], False)],
    "tool_choice": [("auto", True), ("none", True), ("required", False), ("maybe", False)],
    "parallel_tool_calls": [(True, True), (False, True), ("no", False)],
    "frequency_penalty": [(0, True), (0.1, False)],
    "presence_penalty": [(None, True), (1, False)],
    "logit_bias": [({}, True), ({"5": 1}, False)],
    "user": [("u", True), ("u" * 201, False)],
    "metadata": [({"a": "b"}, True), (None, True), ([], False)],
    "store": [(True, True)],
    "service_tier": [("auto", True), ("flex", False)],
    "reasoning_effort": [("none", True), ("high", False)],
    "modalities": [(["text"], True), (["audio"], False)],
    "temprature": [(1, False)],
}


class Words:
    """Writes the last message, a word at a time."""

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        texts = [str(prompt.messages[-1]["content"]) for prompt in prompts]
        for end in range(1, max(map(len, texts))):
            for prompt, text in zip(prompts, texts, strict=True):
                if prompt.on_text and end < len(text):
                    prompt.on_text(text[:end])
        return [Completion(text, prompt_tokens=1, completion_tokens=2) for text in texts]


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    limits = ServerLimits(per_minute=0)
    with serving(Words(), tmp_path_factory.mktemp("g") / "t.jsonl", limits=limits) as found:
        yield found


def generated(random_: random.Random) -> tuple[dict[str, Any], set[str]]:
    """A request, and the parameters that must be refused."""
    request: dict[str, Any] = {"model": "m", "messages": [QUESTION]}
    refused = set()
    for name in random_.sample(sorted(CHOICES), random_.randint(1, 4)):
        # Most requests are good.
        value, done = random_.choice(
            [one for one in CHOICES[name] if one[1] or random_.random() < 0.4] or CHOICES[name]
        )
        request[name] = value
        refused |= set() if done else {name}
    return request, refused


@pytest.mark.parametrize("block", range(3))
def test_a_generated_request_is_honoured_or_refused_by_name(block: int, port: int) -> None:
    answered = 0
    for number in range(100):
        request, refused = generated(random.Random(1000 * block + number))
        status, answer = post(port, "/v1/chat/completions", request)
        if status != 200:
            assert status == 400, answer
            assert answer["error"]["param"] in refused, (request, answer)
            continue
        assert not refused, request
        answered += 1
        stop = request.get("stop")
        said = {choice["message"]["content"] for choice in answer["choices"]}
        assert said == {"one two " if stop else QUESTION["content"]}
        assert len(answer["choices"]) == (request.get("n") or 1)
    assert 20 < answered < 90


@pytest.mark.parametrize(
    ("model", "params"),
    [
        (ChatCompletionsRequest, chat_params.CompletionCreateParamsBase),
        (ResponsesRequest, responses_params.ResponseCreateParamsBase),
        (MessagesRequest, anthropic_params.MessageCreateParamsBase),
    ],
)
def test_no_parameter_of_the_clients_is_ignored(model: type[WireModel], params: Any) -> None:
    """One that is neither declared nor a hint is refused with any value that is not neutral."""
    names = set(typing.get_type_hints(params)) - set(model.model_fields) - model.HINTS
    for name in names:
        request = model.model_construct()
        object.__setattr__(request, "__pydantic_extra__", {name: {"asks": "for something"}})
        with pytest.raises(Exception, match=f"{name} is not supported"):
            request.refuse_rest()
    assert model.HINTS.isdisjoint(model.model_fields)


def test_fifty_streams_at_one_time_are_each_whole(port: int) -> None:
    async def stream(api: openai.AsyncOpenAI, number: int) -> tuple[str, int]:
        text, pieces = f"№{number} naïve 日本 👩‍👧 " * (1 + number % 5), []
        events = await api.chat.completions.create(
            model="m", messages=[{"role": "user", "content": text}], stream=True, temperature=(number % 3) / 2
        )
        async for event in events:
            pieces.append(event.choices[0].delta.content or "")
        assert "".join(pieces) == text
        return text, len(pieces)

    async def all_of_them() -> list[tuple[str, int]]:
        async with openai.AsyncOpenAI(
            base_url=f"http://127.0.0.1:{port}/v1", api_key="x", max_retries=0
        ) as api:
            return await asyncio.gather(*(stream(api, number) for number in range(50)))

    done = asyncio.run(all_of_them())
    assert len(done) == 50
    assert min(count for _, count in done) > 2
