"""The exchange as what watches programs writes it: LangChain, LangSmith, Langfuse, OpenTelemetry, OpenInference."""

import json
import re
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
)


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
