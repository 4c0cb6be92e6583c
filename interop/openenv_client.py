"""Environments that others serve by OpenEnv's protocol: `openenv:http://localhost:8000`.

An episode is a WebSocket session, opened by a seed. An action is what its schema says: where that has one text
field, what the model wrote goes there; else the model writes a JSON object of its fields. A server of ours
is played as it is, messages and tools.
"""

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Any

from vertigym.core.errors import InfrastructureError, MissingDependencyError
from vertigym.core.types import Message
from vertigym.interop.foreign_env import ForeignEnv, Observed
from vertigym.interop.json_client import JsonClient
from vertigym.rewards.replies import json_in

_OWN = ("metadata",)  # fields of every action and observation that say nothing to a model
_FULL_S = 10.0  # that a full server is asked for a place
_TOOL_CALLS = ("Action", "CallToolAction", "ListToolsAction")  # schemas of servers whose actions are MCP calls


class _FullError(InfrastructureError):
    """A server has no place for another session."""


class OpenEnvActions:
    """How a text becomes an action of the schema."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        fields = {key: one for key, one in schema.get("properties", {}).items() if key not in _OWN}
        self._fields, required = fields, schema.get("required", list(fields))
        texts = [key for key in required if fields.get(key, {}).get("type") == "string"]
        self._text = texts[0] if len(texts) == len(required) == 1 else ""

    def allowed(self) -> str:
        """What an action is."""
        if self._text:
            return str(self._fields[self._text].get("description") or f"the {self._text}")
        return f"a JSON object with these fields: {json.dumps(self._fields, ensure_ascii=False)}"

    def action(self, text: str) -> dict[str, Any]:
        """The action that a text is.

        Raises:
            ValueError: no JSON object, where one is needed.
        """
        if self._text:
            return {self._text: text}
        try:
            found = json_in(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ValueError(f"write {self.allowed()}")
        return found


class OpenEnvClientSession:
    """A WebSocket to the server; `told` is said once, before the first observation."""

    def __init__(self, url: str, told: str, actions: OpenEnvActions, timeout_s: float) -> None:
        self._address = url.replace("http", "ws", 1).rstrip("/") + "/ws"
        self._actions, self._told, self._timeout_s = actions, told, timeout_s
        self._held = ExitStack()

    def open(self, seed: int) -> Observed:
        """Reset by the seed, in a session of its own. A server frees a place some time after a session has
        ended: where it is full, it is asked again for a while."""
        waited, pause = 0.0, 0.05
        while (seen := self._reset(seed)) is None:
            if waited > _FULL_S:
                raise InfrastructureError(
                    f"{self._address} has no place for another session: let it serve more, or say sessions=N "
                    "in the environment's address, as many as it serves at once"
                )
            time.sleep(pause)
            waited, pause = waited + pause, min(2 * pause, 1.0)
        if self._told:
            first = seen.messages[0]
            opening: Message = {"role": "user", "content": f"{self._told}\n\n{first['content']}"}
            return Observed([opening, *seen.messages[1:]])
        return seen

    def step(self, action: str) -> Observed:
        """Send what the model wrote; half a character becomes a mark, which JSON can hold."""
        action = action.encode("utf-8", "replace").decode()
        return self._ask("step", self._actions.action(action))

    def close(self) -> None:
        """End the session."""
        self._held.close()

    def _reset(self, seed: int) -> Observed | None:
        """The first observation of a new session; None where the server is full."""
        from websockets.sync.client import connect

        self.close()
        try:
            self._socket = self._held.enter_context(
                connect(self._address, open_timeout=self._timeout_s, proxy=None, max_size=None)
            )
            return self._ask("reset", {"seed": seed})
        except OSError as error:
            raise InfrastructureError(f"{self._address} does not answer: {error}") from None
        except _FullError:
            return None

    def _ask(self, kind: str, data: Mapping[str, Any]) -> Observed:
        from websockets.exceptions import ConnectionClosed, WebSocketException

        try:
            with suppress(ConnectionClosed):  # a server that refuses says so, and closes before it is asked
                self._socket.send(json.dumps({"type": kind, "data": data}))
            said = json.loads(self._socket.recv(self._timeout_s))
        except (OSError, WebSocketException, ValueError) as error:
            raise InfrastructureError(f"the OpenEnv session was lost at a {kind}: {error}") from None
        found = said.get("data") or {}
        if said.get("type") == "observation":
            return _observed(found)
        reason = f"{found.get('code')}: {found.get('message')} {found.get('errors') or ''}".strip()
        if kind == "step" and found.get("code") == "VALIDATION_ERROR":
            raise ValueError(reason)
        refused = _FullError if found.get("code") == "CAPACITY_REACHED" else InfrastructureError
        raise refused(f"the OpenEnv server refuses a {kind}: {reason}")


def load(
    url: str,
    *,
    turns: int = 32,
    train: int = 1000,
    eval: int = 200,  # noqa: A002 (the split's name)
    test: int = 200,
    low: float = 0.0,
    high: float = 1.0,
    parallel: int = 8,
    sessions: int = 0,
    timeout_s: float = 60.0,
) -> ForeignEnv:
    """The environment at an address.

    Raises:
        ConfigError: no address, or its actions are MCP calls. InfrastructureError: nobody answers there.
    """
    try:
        import websockets  # noqa: F401
    except ImportError:
        raise MissingDependencyError("websockets", "serve", "openenv:") from None
    client = JsonClient(url, timeout_s)
    schema, about = client.ask("/schema"), client.ask("/metadata")
    action = schema.get("action", {})
    if action.get("title") in _TOOL_CALLS:
        raise InfrastructureError(f"{url}: its actions are MCP calls, which are not played here yet")
    ours = "messages" in schema.get("observation", {}).get("properties", {})
    actions = OpenEnvActions(action)
    told = (
        ""
        if ours
        else f"{about.get('description') or about.get('name')}\n\nEach turn write: {actions.allowed()}"
    )
    return ForeignEnv(
        lambda: OpenEnvClientSession(url, told, actions, timeout_s),
        sizes={"train": train, "eval": eval, "test": test},
        turns=turns,
        low=low,
        high=high,
        parallel=parallel,
        sessions=sessions,
    )


def _observed(data: Mapping[str, Any]) -> Observed:
    """A reply of the server; messages as they are where it speaks in messages."""
    seen = {key: value for key, value in data.get("observation", {}).items() if key not in _OWN}
    reward = data.get("reward")
    earned, done = None if reward is None else float(reward), bool(data.get("done"))
    if isinstance(messages := seen.get("messages"), list):
        return Observed(messages, earned, done, seen.get("tools") or ())
    texts = [value for value in seen.values() if isinstance(value, str)]
    said = texts[0] if len(seen) == len(texts) == 1 else json.dumps(seen, ensure_ascii=False)
    return Observed([{"role": "user", "content": said}], earned, done)
