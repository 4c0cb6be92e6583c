"""The ready-made verifiers by name, for files without Python (`[reward] name = "numeric"` in an env.toml)."""

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from vertigym.core.errors import ConfigError, UnknownNameError, suggest
from vertigym.rewards.calling import RewardFunction

READY: dict[str, str] = {
    "accepted": "vertigym.rewards.outcome:accepted",
    "choice": "vertigym.rewards.text:choice",
    "cited_answer": "vertigym.rewards.citations:cited_answer",
    "exact": "vertigym.rewards.text:exact",
    "fields": "vertigym.rewards.fields:fields",
    "json_schema": "vertigym.rewards.structure:json_schema",
    "label": "vertigym.rewards.labels:label",
    "length_penalty": "vertigym.rewards.structure:length_penalty",
    "matches": "vertigym.rewards.text:matches",
    "math": "vertigym.rewards.math:math_equal",
    "normalised_text": "vertigym.rewards.text:normalised_text",
    "numeric": "vertigym.rewards.text:numeric",
    "repetition_penalty": "vertigym.rewards.structure:repetition_penalty",
    "sql": "vertigym.rewards.sql:sql_result",
}


def named(name: str, arguments: Mapping[str, Any] | None = None) -> RewardFunction:
    """The verifier called `name`, made with `arguments`; or the reward function at `package.module:function`.

    Raises:
        UnknownNameError: no such verifier. ConfigError: arguments it does not take, or that do not fit.
    """
    given = dict(arguments or {})
    path = READY.get(name, name)
    module, colon, attribute = path.partition(":")
    if not colon:
        raise UnknownNameError("reward", name, READY, "Or name a function of yours, package.module:function")
    try:
        found: RewardFunction = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"reward {name!r}: {error}") from None
    if name not in READY:
        if given:
            raise ConfigError(
                f"reward {name!r}: a function of your own takes no arguments here, got {list(given)}"
            )
        return found
    allowed = inspect.signature(found).parameters
    unknown = next((key for key in given if key not in allowed), None)
    if unknown is not None:
        raise ConfigError(f"reward {name!r}: unknown argument {unknown!r}{suggest(unknown, allowed)}")
    try:
        made: RewardFunction = found(**given)
    except TypeError as error:
        raise ConfigError(f"reward {name!r}: {error}") from None
    return made
