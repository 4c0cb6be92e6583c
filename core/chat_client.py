"""A client for any endpoint that speaks OpenAI's chat completions.

Failures that may pass (429, 500 and the like, lost connections, time-outs, replies that are no JSON) are tried
again, with back-off or the server's own `Retry-After`. One that stays is a failure of the machine.
"""

import itertools
import json
import os
import random
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from vertigym.core.errors import ConfigError, InfrastructureError

_RETRIED = (408, 409, 425, 429)  # and all from 500
_LONGEST_PAUSE_S = 60.0


class ChatError(InfrastructureError):
    """An endpoint gave no usable reply. `reached`: it is there. `may_pass`: another try may succeed, after
    `pause_s` (-1: the server names no time)."""

    def __init__(
        self, reason: str, *, reached: bool = True, may_pass: bool = True, pause_s: float = -1
    ) -> None:
        super().__init__(reason)
        self.reached, self.may_pass, self.pause_s = reached, may_pass, pause_s


@dataclass(frozen=True, slots=True)
class ChatReply:
    """The first choice of a chat completion, and its usage (0 where the endpoint counts none)."""

    text: str
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    finish_reason: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0


class ChatClient:
    """Asks `base_url` (`https://…/v1`).

    Args:
        key_variable: the environment variable that holds the key, if there is one.
        timeout_s: for one try of one request. retries: further tries.

    Raises:
        ConfigError: not an http(s) address.
    """

    def __init__(self, base_url: str, *, key_variable: str, timeout_s: float, retries: int) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise ConfigError(f"endpoint {base_url!r}: the address must start with http:// or https://")
        self.url = base_url
        self._key_variable, self._timeout_s, self._retries = key_variable, timeout_s, retries

    def complete(self, body: Mapping[str, Any]) -> ChatReply:
        """The reply to one request.

        Raises:
            ChatError: no usable reply after all tries, or the endpoint refuses the request.
        """
        for attempt in itertools.count():
            try:
                return self._try(body)
            except ChatError as error:
                if attempt == self._retries or not error.may_pass:
                    raise
                backoff_s = min(0.5 * 2**attempt, 8.0) * random.uniform(0.75, 1)
                time.sleep(backoff_s if error.pause_s < 0 else error.pause_s)
        raise AssertionError

    def _try(self, body: Mapping[str, Any]) -> ChatReply:
        key = os.environ.get(self._key_variable, "")
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        url = f"{self.url.rstrip('/')}/chat/completions"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310 (checked above)
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as response:  # noqa: S310
                return _read(json.load(response))
        except urllib.error.HTTPError as error:
            with closing(error):
                raise ChatError(
                    f"endpoint {self.url}: status {error.code}: {_message(error)}",
                    may_pass=error.code >= 500 or error.code in _RETRIED,
                    pause_s=_pause(error.headers.get("Retry-After")),
                ) from None
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            why = f"not a chat completion: {type(error).__name__}: {error}"
            raise ChatError(f"endpoint {self.url}: {why}") from None
        except OSError as error:
            cause = getattr(error, "reason", error)
            late = isinstance(cause, TimeoutError)
            why = "no answer in time" if late else f"unreachable: {cause}"
            raise ChatError(f"endpoint {self.url}: {why}", reached=late) from None


def tool_call_text(name: str, arguments: str) -> str:
    """A tool call as text, in the form that environments read; `arguments` are JSON."""
    return f'<tool_call>{{"name": {json.dumps(name)}, "arguments": {arguments or "{}"}}}</tool_call>'


def _read(reply: Any) -> ChatReply:
    choice = reply["choices"][0]
    message, usage = choice["message"], reply.get("usage") or {}
    return ChatReply(
        message.get("content") or "",
        tuple(call["function"] for call in message.get("tool_calls") or ()),
        choice.get("finish_reason"),
        usage.get("prompt_tokens") or 0,
        usage.get("completion_tokens") or 0,
    )


def _message(error: urllib.error.HTTPError) -> str:
    """What an error reply says, in a line."""
    text = error.read(10_000).decode(errors="replace")
    try:
        found = json.loads(text)
        text = str(found.get("error", found).get("message", found))
    except (ValueError, AttributeError):
        pass
    return " ".join(text.split())[:200]


def _pause(retry_after: str | None) -> float:
    """The seconds that a `Retry-After` names; -1 where it names none (its other form, a date, is ignored)."""
    try:
        return min(max(float(retry_after or ""), 0.0), _LONGEST_PAUSE_S)
    except ValueError:
        return -1
