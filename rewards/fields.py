"""The verifier of an extractor: one JSON object that fits a schema, scored field by field.

A field that the reference leaves empty (null, or absent) earns nothing when it is rightly left empty, and
counts against the reply when it is filled: else a record of nulls would be paid for every document that says
little.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from vertigym.core.errors import ConfigError, suggest
from vertigym.core.types import Score
from vertigym.rewards.calling import RewardFunction, bounded
from vertigym.rewards.decision import DecisionVerifier
from vertigym.rewards.field_rules import field_rule
from vertigym.rewards.replies import json_in
from vertigym.rewards.structure import schema_validator


def fields(
    schema: Mapping[str, Any],
    *,
    weights: Mapping[str, float] | None = None,
    rules: Mapping[str, str | Mapping[str, Any]] | None = None,
    tolerance: float = 1e-6,
) -> RewardFunction:
    """The weighted share of fields that are right, 0 unless the reply fits `schema`.

    Nested fields have dotted names (`address.city`); lists are compared whole. Parts: `valid`, `exact`, and
    `field.NAME` for each field that the reference fills. `weights`: by dotted name, 1 where it is not named.
    `rules`: how a field is compared, by dotted name (`rewards.field_rules`); `tolerance` is absolute and for
    numbers that are not whole, of fields without a rule.

    Raises:
        MissingDependencyError: `jsonschema` is not installed. ConfigError: not a schema, a weight that is not
            positive, or a weight or rule that names no field.
    """
    fits = schema_validator(schema)
    weigh = dict(weights or {})
    known = set(_names(schema))
    for setting, name in [*(("weights", name) for name in weigh), *(("rules", name) for name in rules or {})]:
        if name not in known:
            raise ConfigError(f"{setting}: the schema has no field {name!r}{suggest(name, known)}")
    for name, weight in weigh.items():
        if not weight > 0:
            raise ConfigError(f"weights.{name} = {weight}: a weight is above 0")
    equal = DecisionVerifier(tolerance=tolerance).equal
    by_rule = {name: field_rule(name, rule) for name, rule in (rules or {}).items()}

    @bounded
    def fields(completion: str, answer: Any) -> Score:
        if not isinstance(answer, Mapping):
            return Score.unscored(f"the reference is a JSON object, got {type(answer).__name__}")
        wanted = dict(_filled(answer))
        names = {f"field.{name}": 0.0 for name in wanted}
        try:
            reply = json_in(completion)
        except ValueError as error:
            return Score(0.0, {"valid": 0.0, "exact": 0.0, **names}, {"reason": str(error)[:200]})
        fault = fits(reply)
        if fault or not isinstance(reply, Mapping):
            reason = {"reason": (fault or "not a JSON object")[:200]}
            return Score(0.0, {"valid": 0.0, "exact": 0.0, **names}, reason)
        given = dict(_filled(reply))
        right = [
            name
            for name, value in wanted.items()
            if name in given and by_rule.get(name, equal)(given[name], value)
        ]
        whole = sum(weigh.get(name, 1.0) for name in {**wanted, **given})
        value = sum(weigh.get(name, 1.0) for name in right) / whole if whole else 1.0
        exact = float(len(right) == len(wanted) == len(given))
        parts = {"valid": 1.0, "exact": exact, **names, **{f"field.{name}": 1.0 for name in right}}
        return Score(value, parts, {"wrong": sorted({*wanted, *given} - set(right))[:20]})

    return fields


def _filled(record: Mapping[str, Any], above: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of the fields that hold something."""
    for key, value in record.items():
        name = f"{above}.{key}" if above else str(key)
        if isinstance(value, Mapping) and value and depth < 20:
            yield from _filled(value, name, depth + 1)
        elif value is not None and value != "" and value != [] and value != {}:
            yield name, value


def _names(schema: Mapping[str, Any], above: str = "", depth: int = 0) -> Iterator[str]:
    """The dotted names of a schema's fields, objects included."""
    for key, inner in (schema.get("properties") or {}).items():
        name = f"{above}.{key}" if above else str(key)
        yield name
        if isinstance(inner, Mapping) and depth < 20:
            yield from _names(inner, name, depth + 1)
