"""Amazon Bedrock's Converse."""

from collections.abc import Iterator, Mapping

from vertigym.traces.apis.chat_api_form import Answer, Body, ChatApi


def _answers(response: Body) -> Iterator[Answer]:
    metrics = response.get("metrics")
    latency = metrics.get("latencyMs") if isinstance(metrics, Mapping) else None
    yield response["output"]["message"], {"finish_reason": response.get("stopReason"), "latency_ms": latency}


def _is_response(body: Body) -> bool:
    output = body.get("output")
    return isinstance(output, Mapping) and isinstance(output.get("message"), Mapping)


API = ChatApi("Bedrock Converse", _is_response, _answers)
