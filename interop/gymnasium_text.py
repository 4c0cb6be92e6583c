"""Gymnasium's own environments as texts: `gymnasium:FrozenLake-v1?is_slippery=false`.

The text adapter shows what the environment draws where it can draw text (`ansi`) and its observation, and
reads actions by their space: a whole number (`Discrete`), a text (`Text`), JSON for anything else. Another
adapter is named by its import path: `?adapter=package.module:Adapter`.
"""

import json
import re
from collections.abc import Callable
from importlib.metadata import EntryPoint
from inspect import cleandoc
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from vertigym.core.bounds import json_value
from vertigym.core.errors import ConfigError, UnknownNameError
from vertigym.core.files import jsonable
from vertigym.core.plugins import load_plugin
from vertigym.core.types import Message
from vertigym.interop.foreign_env import ForeignEnv, Observed

_TOLD = ("Description", "Action Space", "Rewards")  # headings of an environment's documentation
_WORD, _WHOLE = re.compile(r"[\w.+-]+"), re.compile(r"[-+]?\d{1,9}")
_COLOURED = re.compile(r"\x1b\[([\d;]+)m(.*?)\x1b\[0m", re.DOTALL)
_COLOURS = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
_TURNS = 100


class TextAdapter:
    """How an environment's observations and actions are written. Subclass it for better words."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        self.env = env

    def opening(self) -> str:
        """What is told once, before the first observation."""
        paragraphs = re.split(r"\n\s*(?=## )", cleandoc(self.env.unwrapped.__doc__ or ""))
        told = [part for part in paragraphs if part.partition("\n")[0].removeprefix("## ").strip() in _TOLD]
        name = self.env.spec.id if self.env.spec else type(self.env.unwrapped).__name__
        return "\n\n".join([name, *(part.strip() for part in told), f"Each turn write {self.allowed()}."])

    def observation(self, observation: Any) -> str:
        """What is shown after each step."""
        drawn = self.env.render() if self.env.render_mode == "ansi" else ""
        seen = observation if isinstance(observation, str) else json.dumps(jsonable(observation))
        return "\n".join(filter(None, [uncoloured(str(drawn)).strip(), f"observation: {seen}"]))

    def allowed(self) -> str:
        """What an action is."""
        space = self.env.action_space
        if isinstance(space, spaces.Discrete):
            return f"a whole number from {space.start} to {space.start + space.n - 1}"
        return "a text" if isinstance(space, spaces.Text) else f"JSON for {space}"

    def action(self, text: str) -> Any:
        """The action that a text is.

        Raises:
            ValueError: none, or more than one.
        """
        space, refusal = self.env.action_space, ValueError(f"write {self.allowed()}")
        if isinstance(space, spaces.Discrete):
            words = {word.strip(".") for word in _WORD.findall(text)}
            numbers = {int(word) for word in words if _WHOLE.fullmatch(word)}
            if len(numbers) != 1:
                raise refusal
            found: Any = np.int64(numbers.pop())
        elif isinstance(space, spaces.Text):
            found = text.strip()
        else:
            try:
                found = _in_space(space, json_value(text))
            except (ValueError, TypeError, KeyError, OverflowError):
                raise refusal from None
        if not space.contains(found):
            raise refusal
        return found


class GymnasiumSession:
    """An environment of gymnasium's registry, through an adapter."""

    def __init__(self, env: gymnasium.Env[Any, Any], adapter: Callable[..., TextAdapter]) -> None:
        self._env, self._adapter = env, adapter(env)

    def open(self, seed: int) -> Observed:
        """Reset to the seed."""
        observation, _ = self._env.reset(seed=seed)
        told = f"{self._adapter.opening()}\n\n{self._adapter.observation(observation)}"
        return Observed(_said(told))

    def step(self, action: str) -> Observed:
        """Step by what a text says."""
        chosen = self._adapter.action(action)
        observation, reward, terminated, truncated, _ = self._env.step(chosen)
        said = _said(self._adapter.observation(observation))
        return Observed(said, float(reward), terminated or truncated)

    def close(self) -> None:
        """Close it."""
        self._env.close()


def load(
    name: str,
    *,
    adapter: str = "",
    turns: int | None = None,
    train: int = 1000,
    eval: int = 200,  # noqa: A002 (the split's name)
    test: int = 200,
    low: float = 0.0,
    high: float = 1.0,
    **arguments: Any,
) -> ForeignEnv:
    """The environment `name` of gymnasium's registry (`module:Name-v0` imports the module first); what is no
    setting here goes to it.

    Raises:
        UnknownNameError: no such environment. ConfigError: it cannot be made, or no such adapter.
    """
    words: Callable[..., TextAdapter] = TextAdapter
    if adapter:
        words = load_plugin(EntryPoint(adapter, adapter, "text adapter"))

    def connect() -> GymnasiumSession:
        try:
            known = gymnasium.spec(name)
            drawn: dict[str, Any] = {"render_mode": "ansi"} if "ansi" in _modes(name) else {}
            env: gymnasium.Env[Any, Any] = gymnasium.make(known, **drawn, **arguments)
        except (gymnasium.error.UnregisteredEnv, ModuleNotFoundError):
            raise UnknownNameError("environment of gymnasium", name, gymnasium.registry) from None
        except (gymnasium.error.Error, TypeError, ValueError) as error:
            raise ConfigError(f"gymnasium:{name} cannot be made: {error}") from None
        return GymnasiumSession(env, words)

    first = connect()
    limit = first._env.spec.max_episode_steps if first._env.spec else None
    first.close()
    return ForeignEnv(
        connect,
        sizes={"train": train, "eval": eval, "test": test},
        turns=turns or limit or _TURNS,
        low=low,
        high=high,
    )


def uncoloured(text: str) -> str:
    """Terminal colours as words, since they may say where one stands: `[S: on red]`."""
    return _COLOURED.sub(lambda found: f"[{found[2]}: {_colours(found[1])}]", text)


def _colours(codes: str) -> str:
    named = []
    for code in map(int, filter(None, codes.split(";"))):
        if 30 <= code % 60 < 48 and code % 10 < 8:
            named.append(("on " if code // 10 in (4, 10) else "") + _COLOURS[code % 10])
        elif code == 1:
            named.append("bold")
    return " ".join(named)


def _said(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def _modes(name: str) -> Any:
    """How the environment can be drawn."""
    made = gymnasium.make(name)
    modes = made.metadata.get("render_modes", ())
    made.close()
    return modes


def _in_space(space: gymnasium.Space[Any], value: Any) -> Any:
    """A JSON value as an element of the space."""
    if isinstance(space, spaces.Dict):
        return {key: _in_space(inner, value[key]) for key, inner in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_in_space(inner, one) for inner, one in zip(space.spaces, value, strict=True))
    return np.asarray(value, space.dtype) if isinstance(space.shape, tuple) and space.shape else value
