"""The exchange as the APIs of models and their SDKs write it: OpenAI, Anthropic, Gemini."""

import json
from typing import Any

from vertigym.tests.trace_exchange import (
    ANSWER,
    ARGUMENTS,
    CHAT,
    QUESTION,
    RESULT,
    SCHEMA,
    SYSTEM,
    THOUGHT,
    TIME,
    TOOL,
    Rows,
    dumped,
)


def openai_completion(**more: Any) -> Any:
    from openai.types.chat import ChatCompletion

    message = {"role": "assistant", "content": ANSWER}
    choice = {"index": 0, "finish_reason": "stop", "logprobs": None, "message": message}
    usage = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
    head = {"id": "r1", "object": "chat.completion", "created": TIME, "model": "large"}
    return ChatCompletion.model_validate({**head, "choices": [choice], "usage": usage, **more})


def openai_request() -> dict[str, Any]:
    from openai.types.chat import ChatCompletionMessageParam
    from pydantic import TypeAdapter

    TypeAdapter(list[ChatCompletionMessageParam]).validate_python(CHAT)
    return {
        "model": "large",
        "messages": CHAT,
        "user": "acme",
        "metadata": {"session_id": "s1"},
        "tools": [TOOL],
    }


def openai_chat() -> Rows:
    return [{"request": openai_request(), "response": dumped(openai_completion(), exclude_none=False)}]


def openai_stream() -> Rows:
    from openai.types.chat import ChatCompletionChunk

    head = {"id": "r1", "object": "chat.completion.chunk", "created": TIME, "model": "large"}
    deltas = [{"role": "assistant", "content": ""}, {"content": "ship"}, {"content": "ping"}, {}]
    chunks = [
        ChatCompletionChunk.model_validate(
            {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}]}
        )
        for delta in deltas
    ]
    sent = "".join(f"data: {chunk.model_dump_json()}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    return [
        {"request": openai_request(), "response": [dumped(chunk, exclude_none=False) for chunk in chunks]},
        {"request": openai_request(), "response": sent},
    ]


def openai_batch() -> Rows:
    asked = {"custom_id": "b1", "method": "POST", "url": "/v1/chat/completions", "body": openai_request()}
    told = {"status_code": 200, "request_id": "q1", "body": dumped(openai_completion())}
    return [asked, {"id": "batch_req_1", "custom_id": "b1", "response": told, "error": None}]


def openai_stored() -> Rows:
    return [{**dumped(openai_completion(metadata={"session_id": "s1"})), "messages": CHAT, "user": "acme"}]


def openai_responses() -> Rows:
    from openai.types.responses import Response

    given = [
        {"role": "user", "content": [{"type": "input_text", "text": QUESTION}]},
        {
            "type": "function_call",
            "call_id": "t1",
            "id": "fc_1",
            "name": "find",
            "arguments": json.dumps(ARGUMENTS),
        },
        {"type": "function_call_output", "call_id": "t1", "output": RESULT},
    ]
    tool = {
        "type": "function",
        "name": "find",
        "description": "An order",
        "parameters": SCHEMA,
        "strict": False,
    }
    output = [
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": THOUGHT}]},
        {
            "type": "message", "id": "m1", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": ANSWER, "annotations": []}],
        },
    ]  # fmt: skip
    response = Response.model_validate(
        {
            "id": "r1", "object": "response", "created_at": TIME, "model": "large", "status": "completed",
            "output": output, "parallel_tool_calls": True, "tool_choice": "auto", "tools": [tool],
            "instructions": SYSTEM, "user": "acme", "metadata": {"session_id": "s1"},
        }
    )  # fmt: skip
    request = {"model": "large", "instructions": SYSTEM, "input": given, "tools": [tool], "user": "acme"}
    told = dumped(response)
    done = {"type": "response.completed", "sequence_number": 9, "response": told}
    created = {"type": "response.created", "sequence_number": 0, "response": {**told, "output": []}}
    return [
        {"request": request, "response": told},
        {**told, "input": given},
        {"request": request, "response": [created, done]},
    ]


def anthropic_parts() -> tuple[dict[str, Any], Any]:
    from anthropic.types import Message, MessageParam
    from pydantic import TypeAdapter

    chat = [
        {"role": "user", "content": QUESTION},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "t1", "name": "find", "input": ARGUMENTS}],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": RESULT}]}
            ],
        },
    ]
    TypeAdapter(list[MessageParam]).validate_python(chat)
    request = {
        "model": "large", "max_tokens": 99, "system": [{"type": "text", "text": SYSTEM}], "messages": chat,
        "metadata": {"user_id": "acme"}, "tools": [{"name": "find", "description": "An order", "input_schema": SCHEMA}],
    }  # fmt: skip
    content = [{"type": "thinking", "thinking": THOUGHT, "signature": "x"}, {"type": "text", "text": ANSWER}]
    message = Message.model_validate(
        {
            "id": "r1", "type": "message", "role": "assistant", "model": "large", "content": content,
            "stop_reason": "end_turn", "usage": {"input_tokens": 9, "output_tokens": 1},
        }
    )  # fmt: skip
    return request, message


def anthropic_messages() -> Rows:
    request, message = anthropic_parts()
    return [{"request": request, "response": dumped(message), "created_at": TIME, "session_id": "s1"}]


def anthropic_stream() -> Rows:
    from anthropic.types import RawMessageStreamEvent
    from pydantic import TypeAdapter

    request, message = anthropic_parts()
    start = {**dumped(message, exclude_none=False), "content": [], "stop_reason": None}
    blocks = (("thinking", THOUGHT), ("text", ANSWER))
    events: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
    for index, (kind, text) in enumerate(blocks):
        opened = {"type": kind, kind: ""} | ({"signature": ""} if kind == "thinking" else {})
        events.append({"type": "content_block_start", "index": index, "content_block": opened})
        for piece in (text[:3], text[3:]):
            delta = {"type": f"{kind}_delta", kind: piece}
            events.append({"type": "content_block_delta", "index": index, "delta": delta})
        events.append({"type": "content_block_stop", "index": index})
    events.append(
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}}
    )
    events.append({"type": "message_stop"})
    reader: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
    sent = [dumped(reader.validate_python(event)) for event in events]
    return [{"request": request, "response": sent, "time": TIME, "session_id": "s1"}]


def anthropic_batch() -> Rows:
    from anthropic.types.messages import MessageBatchIndividualResponse

    request, message = anthropic_parts()
    told = {"custom_id": "b1", "result": {"type": "succeeded", "message": dumped(message)}}
    return [{"custom_id": "b1", "params": request}, dumped(MessageBatchIndividualResponse.model_validate(told))]


def gemini() -> Rows:
    from google.genai import types

    contents = [
        types.Content(role="user", parts=[types.Part(text=QUESTION)]),
        types.Content(
            role="model",
            parts=[types.Part(function_call=types.FunctionCall(id="t1", name="find", args=ARGUMENTS))],
        ),
        types.Content(
            role="user",
            parts=[
                types.Part(
                    function_response=types.FunctionResponse(id="t1", name="find", response={"output": RESULT})
                )
            ],
        ),
    ]
    declared = types.FunctionDeclaration(name="find", description="An order", parameters_json_schema=SCHEMA)
    config = types.GenerateContentConfig(
        system_instruction=SYSTEM, tools=[types.Tool(function_declarations=[declared])]
    )
    parts = [types.Part(text=THOUGHT, thought=True), types.Part(text=ANSWER)]
    usage = types.GenerateContentResponseUsageMetadata(prompt_token_count=9, candidates_token_count=1)

    def response(parts: list[Any], finish: Any) -> Any:
        candidate = types.Candidate(
            content=types.Content(role="model", parts=parts), finish_reason=finish, index=0
        )
        return types.GenerateContentResponse(
            candidates=[candidate], usage_metadata=usage, model_version="large", response_id="r1"
        )

    stop = types.FinishReason.STOP
    streamed = [
        response(parts[:1], None),
        response([types.Part(text="ship")], None),
        response([types.Part(text="ping")], stop),
    ]
    rows = []
    for alias, full in ((True, False), (False, True)):  # the wire's camel case; the SDK's own dump
        options = {"by_alias": alias, "exclude_none": not full}
        request = {"contents": [dumped(c, **options) for c in contents], "config": dumped(config, **options)}
        rows.append({"request": request, "response": dumped(response(parts, stop), **options)})
    rows.append({**rows[0], "response": [dumped(chunk, by_alias=True) for chunk in streamed]})
    return [{**row, "timestamp": TIME, "user_id": "acme", "conversation_id": "s1"} for row in rows]
