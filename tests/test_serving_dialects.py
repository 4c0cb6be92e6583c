"""The three dialects through their own clients: what is asked is done, as a whole and as a stream."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from jsonschema import validate

from vertigym.core.types import Completion, Decoding, Prompt, Sampling
from vertigym.policies.engine import GenerationResult
from vertigym.policies.grammars import calls_grammar, can_constrain
from vertigym.policies.scripted import Scripted
from vertigym.policies.transformers_engine import TransformersEngine

from .programs import engine_of_few_words
from .served import KEY, ask, client, post, recorded, serving

SCHEMA = {
    "type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False,
}  # fmt: skip
FIND: dict[str, Any] = {"name": "find", "parameters": SCHEMA}
TOOL: Any = {"type": "function", "function": FIND}
STRICT: Any = {"type": "function", "function": {**FIND, "strict": True}}
CALL = '<tool_call>{"name": "find", "arguments": {"a": 1}}</tool_call>'


class Typing:
    """Writes what it is told a character at a time; a text with `*` is never whole until its last character."""

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        done = []
        for prompt in prompts:
            text = prompt.messages[-1]["content"]
            for end in range(1, len(text)):
                if prompt.on_text:
                    prompt.on_text(text[:end])
            done.append(Completion(text, prompt_tokens=3, completion_tokens=len(text)))
        return done


constrained = pytest.mark.skipif(not can_constrain(), reason="llguidance is not installed")


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with serving(Typing(), tmp_path_factory.mktemp("t") / "t.jsonl") as port:
        yield port


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> TransformersEngine:
    return engine_of_few_words(tmp_path_factory.mktemp("m"), context=1024)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("r") / "t.jsonl"


@pytest.fixture(scope="module")
def port(engine: TransformersEngine, record: Path) -> Iterator[int]:
    with serving(engine, record) as found:
        yield found


def chat(port: int, text: str = "say", **more: Any) -> Any:
    with client(port) as api:
        said = api.chat.completions.create(**ask(text, **{"max_tokens": 24, **more}))
        return list(said) if more.get("stream") else said


def claude(port: int, key: str = "none") -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=f"http://127.0.0.1:{port}", api_key=key, max_retries=0)


def test_a_stop_string_cuts_the_text_and_ends_the_tokens(port: int) -> None:
    whole = chat(port, temperature=1, seed=4).choices[0].message.content
    stop = whole[5:7]
    for asked in (stop, ["never there", stop]):
        cut = chat(port, temperature=1, seed=4, stop=asked)
        assert cut.choices[0].message.content == whole[: whole.index(stop)]
        assert (cut.choices[0].finish_reason, cut.usage.completion_tokens < 24) == ("stop", True)
    pieces = chat(port, temperature=1, seed=4, stop=stop, stream=True)
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == whole[: whole.index(stop)]


def test_tokens_that_an_engine_wrote_past_a_stop_are_not_the_completions(engine: TransformersEngine) -> None:
    text = "say END again"
    ids = engine.tokenizer.encode(text, add_special_tokens=False)
    for decoding, left in ((Decoding(stop=("END",)), "say "), (Decoding(ends=("END",)), "say END")):
        request = engine.request(Prompt((), token_ids=[5], decoding=decoding), Sampling(max_tokens=50))
        done = engine.completion(request, GenerationResult(ids, [-1.0] * len(ids)), 0, 0.0)
        assert (done.text, done.stop_text, done.stop_reason) == (left, "END", "stop")
        assert engine.reply_text(done.token_ids) == "say END"
        assert len(done.logprobs) == len(done.token_ids) == done.completion_tokens


def test_choices_differ_by_seed_and_are_each_on_record(port: int, record: Path) -> None:
    before = len(recorded(record)) if record.exists() else 0
    said = chat(port, n=3, temperature=1, seed=1)
    texts = [choice.message.content for choice in said.choices]
    assert (len(set(texts)), [choice.index for choice in said.choices]) == (3, [0, 1, 2])
    assert texts[0] == chat(port, temperature=1, seed=1).choices[0].message.content
    rows = recorded(record)[before:]
    assert [row["completion"] for row in rows[:3]] == texts
    assert [row["id"] for row in rows[:3]] == [said.id, f"{said.id}-1", f"{said.id}-2"]
    assert said.usage.completion_tokens == sum(row["meta"]["usage"]["completion_tokens"] for row in rows[:3])
    heard = ["", "", ""]
    for piece in chat(port, n=3, temperature=1, seed=1, stream=True):
        for choice in piece.choices:
            heard[choice.index] += choice.delta.content or ""
    assert heard == texts


def test_logprobs_are_of_the_tokens_of_the_text(port: int, engine: TransformersEngine) -> None:
    said = chat(port, logprobs=True, top_logprobs=3)
    told = said.choices[0].logprobs.content
    assert len(told) == said.usage.completion_tokens == 24
    ids = engine.tokenizer.encode(said.choices[0].message.content, add_special_tokens=False)
    whole = [engine.tokenizer.decode([i]) for i in ids]
    assert [one.token for one in told if one.bytes] == [text for text in whole if "\ufffd" not in text]
    for one in told:  # greedy: the sampled token is the likeliest
        assert one.top_logprobs[0].token == one.token
        assert one.top_logprobs[0].logprob == pytest.approx(one.logprob, abs=1e-4)
        assert len(one.top_logprobs) == 3
        assert one.bytes is None or bytes(one.bytes).decode() == one.token
    (plain,) = chat(port, logprobs=True).choices
    assert [one.top_logprobs for one in plain.logprobs.content] == [[]] * len(told)
    pieces = chat(port, logprobs=True, stream=True)
    streamed = [one for piece in pieces if (found := piece.choices[0].logprobs) for one in found.content]
    assert [one.token for one in streamed] == [one.token for one in told]


@constrained
@pytest.mark.parametrize("seed", range(3))
def test_a_schema_is_followed(seed: int, port: int) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
    said = chat(port, response_format=form, temperature=1, seed=seed, max_tokens=400)
    assert said.choices[0].finish_reason == "stop"
    validate(json.loads(said.choices[0].message.content), SCHEMA)
    with client(port) as api:
        text: Any = {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}}
        answered = api.responses.create(model="m", input="say", text=text, max_output_tokens=400)
        validate(json.loads(answered.output_text), SCHEMA)
    with claude(port) as api:
        config: Any = {"format": {"type": "json_schema", "schema": SCHEMA}}
        message = api.messages.create(
            model="m", max_tokens=400, messages=[{"role": "user", "content": "say"}], output_config=config
        )
        validate(json.loads(message.content[0].text), SCHEMA)


@constrained
def test_a_call_that_must_be_made_is_made(port: int) -> None:
    other = {"type": "function", "function": {"name": "other", "parameters": SCHEMA}}
    named = {"type": "function", "function": {"name": "other"}}
    for choice, tools, names in (("required", [TOOL], {"find"}), (named, [TOOL, other], {"other"})):
        for seed in range(2):
            more: dict[str, Any] = {
                "temperature": 1,
                "seed": seed,
                "max_tokens": 500,
                "parallel_tool_calls": False,
            }
            said = chat(port, tools=tools, tool_choice=choice, **more).choices[0]
            assert said.finish_reason == "tool_calls"
            (call,) = said.message.tool_calls
            assert call.function.name in names
            validate(json.loads(call.function.arguments), SCHEMA)


@constrained
def test_a_strict_tool_leaves_text_alone(port: int) -> None:
    said = chat(port, tools=[STRICT], temperature=1, seed=2)
    assert said.choices[0].message.content
    assert said.usage.completion_tokens == 24


@constrained
@pytest.mark.parametrize(
    ("text", "required", "fits"),
    [
        ("just text", False, True),
        (f"first\n{CALL}\nthen {CALL}", False, True),
        (CALL.replace("1", '"x"'), False, False),
        (CALL.replace("find", "fund"), False, False),
        (CALL, True, True),
        (f"{CALL}\n{CALL}", True, True),
        (f"so {CALL}", True, False),
        ("text", True, False),
    ],
)
def test_a_grammar_of_calls(text: str, required: bool, fits: bool, engine: TransformersEngine) -> None:
    matcher = engine._matcher(calls_grammar([FIND], required=required, parallel=True))
    for token in engine.tokenizer.encode(text, add_special_tokens=False):
        if matcher.refused()[token]:
            assert not fits
            return
        matcher.take(token)
    assert fits
    assert not any(matcher.refused()[token] for token in engine.renderer.stop)


@constrained
@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "nonsense"}, "schema cannot be followed"),
        ({"$ref": "#/$defs/none"}, "schema cannot be followed"),
    ],
)
def test_a_schema_that_is_none_is_refused(schema: Any, says: str, port: int) -> None:
    with pytest.raises(openai.BadRequestError, match=says):
        chat(port, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})


UNICODE = "naïve 日本 👩‍👩‍👧 \U0001f1e9\U0001f1ea ﷽ é"


def test_a_stream_has_whole_characters_only_and_all_of_them(port: int, engine: TransformersEngine) -> None:
    for seed in range(6):  # a random model writes bytes in any order
        more: dict[str, Any] = {"temperature": 1.5, "seed": seed, "max_tokens": 64}
        whole = chat(port, **more).choices[0].message.content
        pieces = [piece.choices[0].delta.content or "" for piece in chat(port, stream=True, **more)]
        assert "".join(pieces) == whole
        assert len([piece for piece in pieces if piece]) > 3
    ids = engine.tokenizer.encode(UNICODE, add_special_tokens=False)
    texts = [engine.text_so_far(ids[:count]) for count in range(len(ids) + 1)]
    assert all(UNICODE.startswith(text) for text in texts)
    assert texts[-1] == UNICODE


def test_what_a_stop_or_a_call_may_take_back_is_not_sent(typed: int) -> None:
    for text, more, said in (
        ("one ENough END two", {"stop": "END"}, "one ENough "),
        (f"Look:\n{CALL}", {"tools": [TOOL]}, "Look:"),
        ("a <tool_cal", {"tools": [TOOL]}, "a <tool_cal"),
        ("a <tool_call>{}</tool_call> b", {"tools": [TOOL]}, "a <tool_call>{}</tool_call> b"),
    ):
        assert (chat(typed, text, **more).choices[0].message.content or "") == said
        pieces = chat(typed, text, stream=True, **more)
        assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == said
    assert len(pieces) > 3


def test_responses_as_a_whole_and_as_a_stream(typed: int) -> None:
    with client(typed) as opened:
        api: Any = opened
        tool: Any = {"type": "function", "strict": False, **FIND}
        said = api.responses.create(model="m", input="hello", instructions="be brief", user="acme")
        assert (said.output_text, said.status, said.usage.input_tokens) == (
            "hello",
            "completed",
            3,
        )
        first = api.responses.create(model="m", input=f"Look:\n{CALL}", tools=[tool])
        message, call = first.output
        assert (message.type, call.type) == ("message", "function_call")
        result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "found"}
        items: Any = [{"role": "user", "content": "x"}, *(one.to_dict() for one in first.output), result]
        assert api.responses.create(model="m", input=items, tools=[tool]).output_text == "found"
        with api.responses.stream(model="m", input=f"Look:\n{CALL}", tools=[tool]) as stream:
            kinds = [event.type for event in stream]
            final = stream.get_final_response()
        assert [one.type for one in final.output] == ["message", "function_call"]
        assert (final.output_text, final.output[1].arguments) == ("Look:", '{"a": 1}')
        assert kinds[:2] == ["response.created", "response.in_progress"]
        assert kinds.count("response.output_text.delta") > 2
        assert kinds[-1] == "response.completed"
        with pytest.raises(openai.BadRequestError, match="previous_response_id"):
            api.responses.create(model="m", input="x", previous_response_id="resp_1")


def test_messages_as_a_whole_and_as_a_stream(typed: int) -> None:
    question: Any = {"role": "user", "content": f"Look:\n{CALL}"}
    tool: Any = {"name": "find", "input_schema": SCHEMA}
    with claude(typed) as api:
        create = api.messages.create
        said = create(
            model="m", max_tokens=9, system="be brief", messages=[{"role": "user", "content": "hello"}]
        )
        assert [(block.type, block.text) for block in said.content] == [("text", "hello")]
        assert (said.stop_reason, said.usage.input_tokens, said.usage.output_tokens) == ("end_turn", 3, 5)
        first = create(model="m", max_tokens=9, messages=[question], tools=[tool])
        text, call = first.content
        assert (first.stop_reason, text.text, call.name, call.input) == ("tool_use", "Look:", "find", {"a": 1})
        result: Any = {
            "type": "tool_result",
            "tool_use_id": call.id,
            "content": [{"type": "text", "text": "ok"}],
        }
        turns: Any = [
            question,
            {"role": "assistant", "content": first.content},
            {"role": "user", "content": [result]},
        ]
        assert create(model="m", max_tokens=9, messages=turns, tools=[tool]).content[0].text == "ok"
        stopped = create(
            model="m", max_tokens=9, messages=[{"role": "user", "content": "one END"}], stop_sequences=["END"]
        )
        assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "END")
        with api.messages.stream(model="m", max_tokens=9, messages=[question], tools=[tool]) as stream:
            texts = list(stream.text_stream)
            final = stream.get_final_message()
        assert ("".join(texts), len(texts) > 2) == ("Look:", True)
        assert (final.stop_reason, final.content[1].input) == ("tool_use", {"a": 1})
        assert (final.usage.input_tokens, [model.id for model in api.models.list()]) == (3, ["m"])
        with pytest.raises(anthropic.BadRequestError, match="top_k"):
            create(model="m", max_tokens=9, messages=[question], extra_body={"top_k": 5})


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"role": "assistant", "content": "a"}, "is not continued"),
        ({"role": "user", "content": [{"type": "image", "source": {}}]}, "'image'"),
        (
            {"role": "user", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {}}]},
            "'tool_use'",
        ),
        ({"role": "user", "content": [{"type": "tool_result"}]}, "tool_use_id"),
        ({"role": "system", "content": "a"}, "role"),
        ({"role": "user", "content": 1}, "content"),
    ],
    ids=str,
)
def test_a_message_that_cannot_be_read_is_refused_in_its_dialect(message: Any, says: str, typed: int) -> None:
    status, answer = post(typed, "/v1/messages", {"model": "m", "max_tokens": 1, "messages": [message]})
    assert (status, answer["type"], answer["error"]["type"]) == (400, "error", "invalid_request_error")
    assert says in answer["error"]["message"]


@pytest.mark.parametrize(
    ("path", "headers", "status", "kind"),
    [
        ("/v1/messages", {}, 401, "authentication_error"),
        ("/v1/messages", {"x-api-key": "wrong"}, 401, "authentication_error"),
        ("/v1/messages/batches", {"x-api-key": KEY}, 404, "not_found_error"),
        ("/nothing", {"x-api-key": KEY, "anthropic-version": "2023-06-01"}, 404, "not_found_error"),
        ("/v1/messages", {"x-api-key": KEY}, 413, "request_too_large"),
        ("/v1/responses", {"x-api-key": KEY}, 413, None),
        ("/v1/responses", {}, 401, None),
    ],
)
def test_every_error_is_in_the_callers_dialect(
    path: str, headers: dict[str, str], status: int, kind: str | None, tmp_path: Path
) -> None:
    with serving(Typing(), tmp_path / "t.jsonl", key=KEY) as port:
        got, answer = post(port, path, {"model": "m" * 1_100_000}, headers)
        assert (got, answer["error"]["type"]) == (status, kind or "invalid_request_error")
        assert ("param" in answer["error"]) == (kind is None)
        with claude(port, KEY) as api:
            text = api.messages.create(model="m", max_tokens=5, messages=[{"role": "user", "content": "q"}])
            assert text.content[0].text == "q"


def test_the_tokens_of_a_prompt_are_counted(port: int, typed: int) -> None:
    question: Any = {"role": "user", "content": "say again"}
    with claude(port) as api:
        counted = api.messages.count_tokens(model="m", messages=[question], system="s").input_tokens
        said = api.messages.create(model="m", max_tokens=1, messages=[question], system="s")
        assert counted == said.usage.input_tokens
    with claude(typed) as api, pytest.raises(anthropic.NotFoundError, match="not known"):
        api.messages.count_tokens(model="m", messages=[question])


def test_an_engine_that_fails_in_the_middle_of_a_stream_says_so(tmp_path: Path) -> None:
    class Failing(Typing):
        def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
            super().generate(prompts, sampling)
            raise RuntimeError("broken")

    with serving(Failing(), tmp_path / "t.jsonl") as port:
        with pytest.raises(openai.APIError, match="broken"):
            chat(port, "a long text", stream=True)
        question: Any = {"role": "user", "content": "a long text"}
        stream = claude(port).messages.create(model="m", max_tokens=9, messages=[question], stream=True)
        with pytest.raises(anthropic.APIStatusError, match="broken"):
            list(stream)
        with pytest.raises(openai.InternalServerError, match="broken"):
            chat(port, "a", stream=True)  # nothing was sent: the status says it


def test_a_policy_without_tokens_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    with serving(Scripted(lambda _: "a"), tmp_path / "t.jsonl") as port:
        for path, more, name in (
            ("/v1/responses", {"input": "q", "text": {"format": {"type": "json_object"}}}, "text"),
            ("/v1/responses", {"input": "q", "top_logprobs": 2}, "top_logprobs"),
            (
                "/v1/chat/completions",
                {**ask("q"), "response_format": {"type": "json_object"}},
                "response_format",
            ),
        ):
            status, answer = post(port, path, {"model": "m", **more})
            assert (status, answer["error"]["param"]) == (400, name)
