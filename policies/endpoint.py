"""A policy behind any endpoint that speaks OpenAI's chat completions: text in, text out, no log-probs.

A request that fails after all tries comes back as a Completion with stop reason ERROR, which is never scored as
wrong; only when nothing answers at all does the eval end, and it can be resumed.
"""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from vertigym.core.chat_client import ChatClient, ChatError, tool_call_text
from vertigym.core.errors import ConfigError, EngineError
from vertigym.core.types import Completion, Prompt, Sampling, StopReason
from vertigym.policies.registry import EngineKind, LoadOptions

_STOP_REASONS = {"stop": StopReason.STOP, "tool_calls": StopReason.STOP, "length": StopReason.LENGTH}


class EndpointPolicy:
    """A Policy behind `base_url` (`https://…/v1`).

    Args:
        key_variable: the environment variable that holds the key.
        concurrency: requests under way at once.
        requests_per_minute: at most so many are started in a minute; 0 sets no limit.
        timeout_s: for one try of one request. retries: further tries.

    Raises:
        ConfigError: not an http(s) address.
    """

    def __init__(
        self,
        model: str,
        base_url: str,
        *,
        key_variable: str = "OPENAI_API_KEY",
        concurrency: int = 16,
        requests_per_minute: float = 0,
        timeout_s: float = 120.0,
        retries: int = 5,
    ) -> None:
        self._client = ChatClient(base_url, key_variable=key_variable, timeout_s=timeout_s, retries=retries)
        self.model, self.base_url = model, base_url
        self.concurrency = concurrency
        self._pacer = _Pacer(requests_per_minute)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """One completion a prompt, in order.

        Raises:
            EngineError: not one request reached the endpoint.
        """
        with ThreadPoolExecutor(max(1, min(self.concurrency, len(prompts)))) as pool:
            found = list(pool.map(lambda prompt: self._complete(prompt, sampling), prompts))
        if found and all(isinstance(one, ChatError) and not one.reached for one in found):
            raise EngineError(str(found[0]))
        return [_failed(str(one)) if isinstance(one, ChatError) else one for one in found]

    def _complete(self, prompt: Prompt, sampling: Sampling) -> Completion | ChatError:
        self._pacer.wait()
        if prompt.cancelled and prompt.cancelled():
            return _failed("nobody waits for it any more")
        began = time.perf_counter()
        try:
            reply = self._client.complete(self._request(prompt, sampling))
        except ChatError as error:
            return error
        if reply.finish_reason not in _STOP_REASONS:
            return _failed(f"finish reason {reply.finish_reason!r}")
        return Completion(
            text=reply.text
            + "".join(tool_call_text(call["name"], call["arguments"]) for call in reply.tool_calls),
            stop_reason=_STOP_REASONS[reply.finish_reason],
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=reply.completion_tokens,
            latency_s=time.perf_counter() - began,
        )

    def _request(self, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self.model,
            "messages": [dict(message) for message in prompt.messages],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": prompt.most_tokens(sampling),
            "seed": prompt.seed % 2**31,
        }
        return request | {"tools": [dict(tool) for tool in prompt.tools]} if prompt.tools else request


class _Pacer:
    """Spaces the starts of requests evenly."""

    def __init__(self, per_minute: float) -> None:
        self._gap = 60 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Block until the next request may start."""
        if not self._gap:
            return
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + self._gap
        time.sleep(start - now)


def _failed(reason: str) -> Completion:
    return Completion("", StopReason.ERROR, error=reason[:300])


def _load(rest: str, options: LoadOptions) -> EndpointPolicy:
    """
    Raises:
        ConfigError: there is no model or no address.
    """
    model, at, url = rest.partition("@")
    if not (model and at):
        raise ConfigError(f"model {'openai:' + rest!r}: the form is openai:MODEL@http://host:port/v1")
    return EndpointPolicy(
        model, url, concurrency=options.concurrency, requests_per_minute=options.requests_per_minute
    )


ENGINE = EngineKind("openai", load=_load)
