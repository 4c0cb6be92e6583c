"""An environment's tools as TRL's `GRPOTrainer` takes them: a class with a typed method for each.

The one idea: a method writes the call as the model of `vertigym train` would have, and plays it. So the
episode, its rules and its verdict are the environment's own; TRL only runs the loop.
"""

import json
from collections.abc import Callable, Mapping
from inspect import Parameter, Signature
from typing import Any

from vertigym.core.chat_client import tool_call_text
from vertigym.core.errors import InputError
from vertigym.envs.env import Env
from vertigym.interop.played_episode import PlayedEpisode

_TYPES: Mapping[str, type] = {
    "string": str, "integer": int, "number": float, "boolean": bool, "array": list, "object": dict,
}  # fmt: skip


def tool_class(env: Env) -> type:
    """A class for `environment_factory`; `episode` of an instance is what it plays.

    Raises:
        InputError: the environment has no tools, or one whose name cannot be a method's.
    """
    if not env.tools:
        raise InputError(
            "to_trl: it has several turns and no tools, and in TRL an episode goes on by tool calls only"
        )

    def reset(self: Any, task_id: str, **_: Any) -> None:
        self.episode = PlayedEpisode(env, task_id)

    tools = [tool["function"] for tool in env.tools]
    for tool in tools:
        name = tool["name"]
        if not name.isidentifier() or name.startswith("_") or name in ("reset", "get_reward", "episode"):
            raise InputError(f"to_trl: tool {name!r} cannot be a method for TRL: rename it")
    return type("VertigymTools", (), {"reset": reset, **{tool["name"]: _method(tool) for tool in tools}})


def _method(tool: Mapping[str, Any]) -> Callable[..., str]:
    """The tool as TRL and transformers read one: a name, annotations, and a docstring with each argument."""
    parameters = tool["parameters"]
    required, fields = set(parameters.get("required", ())), parameters.get("properties", {})

    def play(self: Any, **arguments: Any) -> str:
        if self.episode.over:
            return "The episode is over."
        given = {key: value for key, value in arguments.items() if value is not None}
        answer = self.episode.step(tool_call_text(tool["name"], json.dumps(given, ensure_ascii=False)))
        return "\n\n".join(str(message["content"]) for message in answer)

    annotations = {name: _annotation(schema, name in required) for name, schema in fields.items()}
    play.__name__ = play.__qualname__ = tool["name"]
    play.__annotations__ = {**annotations, "return": str}
    play.__signature__ = Signature(  # type: ignore[attr-defined]
        [
            Parameter("self", Parameter.POSITIONAL_OR_KEYWORD),
            *(
                Parameter(
                    name,
                    Parameter.KEYWORD_ONLY,
                    annotation=kind,
                    default=Parameter.empty if name in required else None,
                )
                for name, kind in annotations.items()
            ),
        ],
        return_annotation=str,
    )
    said = [f"    {name}: {_described(schema)}" for name, schema in fields.items()]
    arguments = ["", "Args:", *said] if said else []
    play.__doc__ = "\n".join([_line(tool["description"]), *arguments, "", "Returns:", "    What it answers."])
    return play


def _annotation(schema: Mapping[str, Any], required: bool) -> Any:
    kind = _TYPES.get(schema.get("type", ""), str)
    return kind if required else kind | None


def _described(schema: Mapping[str, Any]) -> str:
    """A property in one line; TRL shows a model no more of a schema than its type."""
    told = schema.get("description") or json.dumps(schema, ensure_ascii=False)
    choices = ", ".join(json.dumps(value, ensure_ascii=False) for value in schema.get("enum", ()))
    return _line(f"{told} One of: {choices}." if choices else str(told))


def _line(text: str) -> str:
    return " ".join(text.split())
