"""One exchange as each vendor's own types write it: a system text, a question, a call of a tool, its result,
an answer.

    python -m tests.trace_vendors           writes tests/logs/FORM.jsonl anew, of the SDKs that are installed

The files are checked in, so that no SDK is needed to read them back; where one is installed, a test makes its
files again and compares them.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "logs"
ANSWER, SYSTEM, QUESTION, RESULT, THOUGHT = (
    "shipping",
    "Sort.",
    "Where is it?",
    "sent on Monday",
    "It was sent.",
)
ARGUMENTS = {"order": 7}
SCHEMA = {"type": "object", "properties": {"order": {"type": "integer"}}}
TIME = 1767225600
CALL = {"id": "t1", "type": "function", "function": {"name": "find", "arguments": json.dumps(ARGUMENTS)}}
TOOL = {"type": "function", "function": {"name": "find", "description": "An order", "parameters": SCHEMA}}
CHAT: list[dict[str, Any]] = [
    {"role": "system", "content": SYSTEM},
    {"role": "user", "content": QUESTION},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "t1", "content": RESULT},
]
Rows = list[dict[str, Any]]


def dumped(value: Any, **options: Any) -> Any:
    """A pydantic model as its JSON."""
    return value.model_dump(mode="json", **{"exclude_none": True, **options})


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


def langchain_messages() -> list[Any]:
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

    call = {"name": "find", "args": ARGUMENTS, "id": "t1", "type": "tool_call"}
    return [
        SystemMessage(SYSTEM),
        HumanMessage(QUESTION),
        AIMessage("", tool_calls=[call]),
        ToolMessage(RESULT, tool_call_id="t1"),
        AIMessage(ANSWER),
    ]


def langchain() -> Rows:
    from langchain_core.load import dumpd
    from langchain_core.messages import messages_to_dict
    from langchain_core.messages.utils import convert_to_openai_messages

    chat, about = (
        langchain_messages(),
        {"thread_id": "s1", "user_id": "acme", "created_at": TIME, "model": "large"},
    )
    openai = convert_to_openai_messages(chat)
    return [{"messages": form, **about} for form in (messages_to_dict(chat), dumpd(chat), openai)]


def langsmith() -> Rows:
    import datetime
    import uuid

    from langchain_core.load import dumpd
    from langchain_core.outputs import ChatGeneration, LLMResult
    from langsmith.schemas import Feedback, Run

    chat, names = langchain_messages(), [uuid.UUID(int=n) for n in range(1, 5)]
    start = datetime.datetime.fromtimestamp(TIME, datetime.UTC)
    told = LLMResult(generations=[[ChatGeneration(message=chat[-1])]])
    extra = {
        "metadata": {"thread_id": "s1", "user_id": "acme", "ls_model_name": "large"},
        "invocation_params": {"tools": [TOOL]},
    }
    run = Run(
        id=names[0], name="ChatModel", start_time=start, end_time=start + datetime.timedelta(seconds=2), run_type="llm",
        inputs={"messages": [dumpd(chat[:-1])]}, outputs=json.loads(told.model_dump_json()), extra=extra,
        trace_id=names[1], session_id=names[2], dotted_order="", prompt_tokens=9, completion_tokens=1, total_tokens=10,
        total_cost=0.25,
    )  # fmt: skip
    said = Feedback(
        id=names[3],
        created_at=start,
        modified_at=start,
        run_id=names[0],
        trace_id=names[1],
        key="user_feedback",
        score=1.0,
        comment="yes",
    )
    generation = {**dumpd(chat[-1])}
    row = _jsonable(run)
    row["outputs"]["generations"][0][0]["message"] = generation
    return [row, _jsonable(said)]


def langfuse() -> Rows:
    from langfuse.api import ObservationV2, Score_Boolean

    observation = {
        "id": "o1", "traceId": "x1", "type": "GENERATION", "name": "answer", "startTime": "2026-01-01T00:00:00Z",
        "endTime": "2026-01-01T00:00:02Z", "model": "large", "modelParameters": {}, "version": "v7", "level": "DEFAULT",
        "input": {"messages": CHAT, "tools": [TOOL]}, "output": {"role": "assistant", "content": ANSWER}, "metadata": {},
        "usageDetails": {"input": 9, "output": 1},
        "costDetails": {"total": 0.25}, "environment": "default", "latency": 2.0,
    }  # fmt: skip
    score = {
        "id": "s", "traceId": "x1", "name": "user-feedback", "value": 1, "stringValue": "True", "dataType": "BOOLEAN",
        "source": "API", "timestamp": "2026-01-01T00:00:09Z", "createdAt": "2026-01-01T00:00:09Z",
        "updatedAt": "2026-01-01T00:00:09Z", "environment": "default", "observationId": "o1",
    }  # fmt: skip
    trace = {
        "id": "x1", "timestamp": "2026-01-01T00:00:00Z", "name": "chat", "userId": "acme", "sessionId": "s1",
        "tags": [], "public": False, "environment": "default", "htmlPath": "/", "latency": 2.0, "totalCost": 0.25,
        "observations": [observation], "scores": [score], "input": None, "output": None, "metadata": {},
    }  # fmt: skip
    return [
        trace,  # as the API answered up to version 4 of the SDK
        _sdk(ObservationV2, {**observation, "id": "o2", "userId": "acme", "sessionId": "s1", "projectId": "p"}),
        _sdk(Score_Boolean, {**score, "observationId": "o2"}),
    ]


def _sdk(kind: Any, value: dict[str, Any]) -> dict[str, Any]:
    """The SDK's model of what the API sends, as the SDK dumps it."""
    snake = {re.sub(r"([A-Z])", lambda m: "_" + m[1].lower(), key): item for key, item in value.items()}
    made: dict[str, Any] = json.loads(kind(**snake).model_dump_json(by_alias=True))
    return made


def _jsonable(value: Any) -> dict[str, Any]:
    dump = value.model_dump if hasattr(value, "model_dump") else value.dict
    made: dict[str, Any] = json.loads(
        json.dumps({k: v for k, v in dump().items() if v is not None}, default=str)
    )
    return made


def spans(attributes: dict[str, Any]) -> list[Any]:
    """The span that the SDK makes of such attributes."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.sdk.trace.id_generator import IdGenerator

    class Fixed(IdGenerator):  # type: ignore[misc]
        def generate_span_id(self) -> int:
            return 1

        def generate_trace_id(self) -> int:
            return 2

    exporter, provider = InMemorySpanExporter(), TracerProvider(id_generator=Fixed(), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    span = provider.get_tracer("vendor").start_span(
        "chat large", attributes=attributes, start_time=TIME * 10**9
    )
    span.end(end_time=(TIME + 2) * 10**9)
    return list(exporter.get_finished_spans())


def _exports(attributes: dict[str, Any]) -> Rows:
    """A span as OTLP's JSON, and as the SDK prints it."""
    from google.protobuf.json_format import MessageToDict
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    (span,) = spans(attributes)
    otlp, printed = MessageToDict(encode_spans([span])), json.loads(span.to_json())
    for row in (*otlp["resourceSpans"], printed):
        row["resource"] = (
            {"attributes": []} if "scopeSpans" in row else {"attributes": {}}
        )  # names this process
    return [otlp, printed]


def opentelemetry() -> Rows:
    call = {"type": "tool_call", "id": "t1", "name": "find", "arguments": ARGUMENTS}
    given = [
        {"role": "user", "parts": [{"type": "text", "content": QUESTION}]},
        {"role": "assistant", "parts": [call]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "t1", "response": RESULT}]},
    ]
    parts = [{"type": "reasoning", "content": THOUGHT}, {"type": "text", "content": ANSWER}]
    told = [{"role": "assistant", "parts": parts, "finish_reason": "stop"}]
    tools = [{"type": "function", "name": "find", "description": "An order", "parameters": SCHEMA}]
    return _exports(
        {
            "gen_ai.operation.name": "chat", "gen_ai.request.model": "large", "gen_ai.response.id": "r1",
            "gen_ai.conversation.id": "s1", "user.id": "acme", "gen_ai.usage.input_tokens": 9,
            "gen_ai.system_instructions": json.dumps([{"type": "text", "content": SYSTEM}]),
            "gen_ai.input.messages": json.dumps(given), "gen_ai.output.messages": json.dumps(told),
            "gen_ai.tool.definitions": json.dumps(tools),
        }
    )  # fmt: skip


def openinference() -> Rows:
    from openinference.semconv.trace import MessageAttributes as Message
    from openinference.semconv.trace import OpenInferenceSpanKindValues as Kind
    from openinference.semconv.trace import SpanAttributes as Span
    from openinference.semconv.trace import ToolAttributes as Tool
    from openinference.semconv.trace import ToolCallAttributes as ToolCall

    flat: dict[str, Any] = {
        Span.OPENINFERENCE_SPAN_KIND: Kind.LLM.value, Span.LLM_MODEL_NAME: "large", Span.SESSION_ID: "s1",
        Span.USER_ID: "acme", Span.LLM_TOKEN_COUNT_PROMPT: 9,
        f"{Span.LLM_TOOLS}.0.{Tool.TOOL_JSON_SCHEMA}": json.dumps(TOOL),
        f"{Span.LLM_OUTPUT_MESSAGES}.0.{Message.MESSAGE_ROLE}": "assistant",
        f"{Span.LLM_OUTPUT_MESSAGES}.0.{Message.MESSAGE_CONTENT}": ANSWER,
    }  # fmt: skip
    for number, message in enumerate(CHAT):
        at = f"{Span.LLM_INPUT_MESSAGES}.{number}"
        flat[f"{at}.{Message.MESSAGE_ROLE}"] = message["role"]
        if message["content"]:
            flat[f"{at}.{Message.MESSAGE_CONTENT}"] = message["content"]
        if "tool_calls" in message:
            call = f"{at}.{Message.MESSAGE_TOOL_CALLS}.0"
            flat[f"{call}.{ToolCall.TOOL_CALL_ID}"] = "t1"
            flat[f"{call}.{ToolCall.TOOL_CALL_FUNCTION_NAME}"] = "find"
            flat[f"{call}.{ToolCall.TOOL_CALL_FUNCTION_ARGUMENTS_JSON}"] = json.dumps(ARGUMENTS)
        if "tool_call_id" in message:
            flat[f"{at}.{Message.MESSAGE_TOOL_CALL_ID}"] = message["tool_call_id"]
    columns = {f"attributes.{key}": value for key, value in flat.items()}
    head = {
        "start_time": "2026-01-01T00:00:00+00:00",
        "end_time": "2026-01-01T00:00:02+00:00",
        "status_code": "OK",
    }
    return [*_exports(flat), {"context.span_id": "1", "context.trace_id": "2", **head, **columns}]


FORMS: dict[str, tuple[str, Callable[[], Rows]]] = {  # form -> (the package that it needs, its rows)
    "openai_chat": ("openai", openai_chat),
    "openai_stream": ("openai", openai_stream),
    "openai_batch": ("openai", openai_batch),
    "openai_stored": ("openai", openai_stored),
    "openai_responses": ("openai", openai_responses),
    "anthropic_messages": ("anthropic", anthropic_messages),
    "anthropic_stream": ("anthropic", anthropic_stream),
    "anthropic_batch": ("anthropic", anthropic_batch),
    "gemini": ("google.genai", gemini),
    "langchain": ("langchain_core", langchain),
    "langsmith": ("langsmith", langsmith),
    "langfuse": ("langfuse", langfuse),
    "opentelemetry": ("opentelemetry.exporter.otlp.proto.common", opentelemetry),
    "openinference": ("openinference.semconv", openinference),
}


def main() -> None:
    """Write the files anew."""
    FOLDER.mkdir(exist_ok=True)
    for form, (package, rows) in FORMS.items():
        try:
            made = rows()
        except ImportError as error:
            print(f"{form}: needs {package} ({error})")
            continue
        (FOLDER / f"{form}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
        print(f"{form}: {len(made)} rows")


if __name__ == "__main__":
    main()
