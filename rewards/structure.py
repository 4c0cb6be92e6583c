"""Verifiers of form: JSON that fits a schema; penalties for length and repetition."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from vertigym.core.bounds import matches_somewhere
from vertigym.core.errors import ConfigError, MissingDependencyError
from vertigym.core.types import Score
from vertigym.rewards.calling import RewardFunction, bounded
from vertigym.rewards.replies import strict_json


def schema_validator(schema: Mapping[str, Any]) -> Callable[[Any], str]:
    """A function from a value to its first fault under `schema` (draft 2020-12 unless it names another); empty
    where it fits.

    Raises:
        MissingDependencyError: `jsonschema` is not installed. ConfigError: `schema` is not a schema.
    """
    try:
        import jsonschema
        import jsonschema_specifications
    except ImportError:
        raise MissingDependencyError("jsonschema", "schema", "checking replies against a JSON schema") from None
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ConfigError(f"not a JSON schema: {error.message}") from None
    # It reaches for nothing outside of itself, and no text makes one of its patterns take for ever.
    keywords = {"pattern": _pattern, "patternProperties": _named, "additionalProperties": _others}
    known = {name: rule for name, rule in keywords.items() if name in kind.VALIDATORS}
    validator = jsonschema.validators.extend(kind, known)(schema, registry=jsonschema_specifications.REGISTRY)

    def fault(value: Any) -> str:
        found = next(validator.iter_errors(value), None)
        return str(found.message) if found else ""

    return fault


def _pattern(validator: Any, pattern: str, value: Any, _: Any) -> Iterator[Any]:
    if isinstance(value, str) and not matches_somewhere(pattern, value):
        yield _fault(f"{value!r} does not match {pattern!r}")


def _named(validator: Any, rules: Mapping[str, Any], value: Any, _: Any) -> Iterator[Any]:
    for pattern, rule in rules.items() if isinstance(value, dict) else ():
        for name in value:
            if matches_somewhere(pattern, name):
                yield from validator.descend(value[name], rule, path=name, schema_path=pattern)


def _others(validator: Any, rule: Any, value: Any, schema: Mapping[str, Any]) -> Iterator[Any]:
    patterns = schema.get("patternProperties", {})
    for name in value if isinstance(value, dict) else ():
        if name in schema.get("properties", {}) or any(matches_somewhere(p, name) for p in patterns):
            continue
        if rule is False:
            yield _fault(f"Additional properties are not allowed ({name!r} was unexpected)")
        else:
            yield from validator.descend(value[name], rule, path=name)


def _fault(text: str) -> Any:
    import jsonschema

    return jsonschema.ValidationError(text)


def json_schema(schema: Mapping[str, Any]) -> RewardFunction:
    """1 when the whole reply is one JSON value that fits `schema` (draft 2020-12 unless it names another).

    Raises:
        MissingDependencyError: `jsonschema` is not installed. ConfigError: `schema` is not a schema.
    """
    fits = schema_validator(schema)

    @bounded
    def json_schema(completion: str) -> Score:
        try:
            value = strict_json(completion)
        except ValueError as error:
            return Score(0.0, {}, {"json": str(error)})
        fault = fits(value)
        return Score(float(not fault), {}, {"schema": fault[:200]} if fault else {})

    return json_schema


def length_penalty(free: int, limit: int, *, unit: str = "words") -> RewardFunction:
    """0 up to `free` units, falling in a line to -1 at `limit` and beyond. `unit`: `words` or `characters`.

    DAPO's soft overlong punishment (Yu et al. 2025, eq. 13).

    Raises:
        ConfigError: `limit` is not above `free`, or an unknown unit.
    """
    if not 0 <= free < limit:
        raise ConfigError(f"length penalty: free = {free} must lie in [0, limit) with limit = {limit}")
    if unit not in ("words", "characters"):
        raise ConfigError(f"length penalty: unit = {unit!r}: use 'words' or 'characters'")

    @bounded
    def length_penalty(completion: str) -> float:
        length = len(completion.split()) if unit == "words" else len(completion)
        return -min(1.0, max(0.0, (length - free) / (limit - free)))

    return length_penalty


def repetition_penalty(n: int = 4) -> RewardFunction:
    """Minus the share of `n`-word runs that occurred before in the reply: 0 for no repetition, towards -1.

    Raises:
        ConfigError: `n` is not positive.
    """
    if n < 1:
        raise ConfigError(f"repetition penalty: n = {n} must be at least 1")

    @bounded
    def repetition_penalty(completion: str) -> float:
        words = completion.split()
        runs = len(words) - n + 1
        if runs < 2:
            return 0.0
        return len({tuple(words[i : i + n]) for i in range(runs)}) / runs - 1.0

    return repetition_penalty
