"""Any endpoint that speaks OpenAI's chat completions, through the official client. For evals: text in, text
out, no log-probs that training could use.

The client retries what may pass (429, 500 and the like, lost connections, time-outs), with back-off and the
server's own `Retry-After`. What still fails comes back as a Completion with stop reason ERROR, which is never
scored as wrong; only when nothing answers at all does the eval end, and it can be resumed.
"""

import json
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from vertigym.core.errors import ConfigError, EngineError, MissingDependencyError
from vertigym.core.types import Completion, Prompt, Sampling, StopReason
from vertigym.policies.registry import EngineKind, LoadOptions

_STOPPED = {"stop": StopReason.STOP, "tool_calls": StopReason.STOP, "length": StopReason.LENGTH}


class EndpointPolicy:
    """A Policy behind `base_url` (`https://…/v1`).

    Args:
        key_variable: the environment variable that holds the key.
        concurrency: requests under way at once.
        requests_per_minute: at most so many are started in a minute; 0 sets no limit.
        timeout_s: for one try of one request. retries: further tries.

    Raises:
        MissingDependencyError: the package `openai` is not installed. ConfigError: not an http(s) address.
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
        if not base_url.startswith(("http://", "https://")):
            raise ConfigError(
                f"endpoint {base_url!r}: an address that starts with http:// or https:// is needed"
            )
        try:
            import openai
        except ImportError:
            raise MissingDependencyError("openai", "openai", f"the endpoint {base_url}") from None
        self._openai = openai
        key = os.environ.get(key_variable) or "none"  # servers on this machine ask for no key
        self._client = openai.OpenAI(base_url=base_url, api_key=key, timeout=timeout_s, max_retries=retries)
        self.model, self.base_url = model, base_url
        self.concurrency = concurrency
        self._pace = _Pace(requests_per_minute)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """One completion a prompt, in order.

        Raises:
            EngineError: not one request reached the endpoint.
        """
        with ThreadPoolExecutor(max(1, min(self.concurrency, len(prompts)))) as pool:
            found = list(pool.map(lambda prompt: self._one(prompt, sampling), prompts))
        if found and all(completion.error.startswith("unreachable") for completion in found):
            raise EngineError(f"endpoint {self.base_url}: {found[0].error}")
        return found

    def _one(self, prompt: Prompt, sampling: Sampling) -> Completion:
        self._pace.wait()
        began = time.perf_counter()
        try:
            reply = self._client.chat.completions.create(**self._request(prompt, sampling))
            return self._completion(reply, time.perf_counter() - began)
        except self._openai.APITimeoutError:
            return _failed("no answer in time")
        except self._openai.APIConnectionError as error:
            return _failed(f"unreachable: {error.__cause__ or error}")
        except self._openai.APIStatusError as error:
            return _failed(f"status {error.status_code}: {error.message}")
        except Exception as error:  # a reply of any other shape is the endpoint's fault, not the policy's
            return _failed(f"not a chat completion: {type(error).__name__}: {error}")

    def _request(self, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self.model,
            "messages": [dict(message) for message in prompt.messages],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": prompt.seed % 2**31,
        }
        return request | {"tools": [dict(tool) for tool in prompt.tools]} if prompt.tools else request

    def _completion(self, reply: Any, elapsed: float) -> Completion:
        (choice,) = reply.choices
        if choice.finish_reason not in _STOPPED:
            return _failed(f"finish reason {choice.finish_reason!r}")
        usage = reply.usage
        return Completion(
            text=(choice.message.content or "") + _called(choice.message),
            stop_reason=_STOPPED[choice.finish_reason],
            prompt_tokens=usage.prompt_tokens if usage else 0,
            completion_tokens=usage.completion_tokens if usage else 0,
            latency_s=elapsed,
        )


def _called(message: Any) -> str:
    """The tool calls that came beside the text, in the form that environments read."""
    calls = [call.function for call in getattr(message, "tool_calls", None) or ()]
    return "".join(
        f'<tool_call>{{"name": {json.dumps(c.name)}, "arguments": {c.arguments or "{}"}}}</tool_call>'
        for c in calls
    )


class _Pace:
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
