"""Gemini's generateContent, in the camel case of its wire and the snake case of its SDK's dumps."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vertigym.traces.apis.chat_api_form import Answer, Body, ChatApi, merged


def _answers(response: Body) -> Iterator[Answer]:
    if not response.get("candidates"):
        blocked = response.get("promptFeedback") or response.get("prompt_feedback") or {}
        raise ValueError(f"the response has no candidates; blocked for {blocked.get('blockReason')}")
    for candidate in response["candidates"]:
        content = candidate.get("content")
        said = content if isinstance(content, Mapping) else {}
        finish = candidate.get("finishReason") or candidate.get("finish_reason")
        known = {
            "finish_reason": finish,
            "model": response.get("modelVersion") or response.get("model_version"),
        }
        yield {"role": "assistant", "parts": said.get("parts")}, known


def _join(chunks: Sequence[Body]) -> dict[str, Any]:
    candidates: dict[int, dict[str, Any]] = {}
    for part in (part for chunk in chunks for part in chunk.get("candidates") or ()):
        whole = candidates.setdefault(part.get("index") or 0, {"content": {"role": "model", "parts": []}})
        whole["content"]["parts"] += (part.get("content") or {}).get("parts") or []
        whole |= {key: value for key, value in part.items() if key != "content" and value is not None}
    if not all(whole.get("finishReason") or whole.get("finish_reason") for whole in candidates.values()):
        raise ValueError("a stream that was cut off: no chunk has a finishReason")
    return {**merged(chunks), "candidates": [candidates[i] for i in sorted(candidates)]}


API = ChatApi("Gemini", lambda body: "candidates" in body, _answers, lambda chunk: "candidates" in chunk, _join)
