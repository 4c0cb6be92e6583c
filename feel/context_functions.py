"""Context functions. Source: OMG Decision Model and Notation 1.5, table 79."""

from typing import Any

from vertigym.feel.signatures import builtin
from vertigym.feel.values import NoValue, Value, shown

Context = dict[str, Any]


@builtin("get value(m: context, key: string)")
def _get_value(m: Context, key: str) -> Value:
    if key not in m:
        raise NoValue(f"the context has no entry {key!r}")
    return m[key]  # type: ignore[no-any-return]


@builtin("get value(m: context, keys: list<string>)")
def _get_value_at(m: Context, keys: list[str]) -> Value:
    found: Value = m
    for key in _path(keys):
        if not isinstance(found, dict):
            raise NoValue(f"{shown(found)} has no entry {key!r}")
        found = _get_value(found, key)
    return found


@builtin("get entries(m: context)")
def _get_entries(m: Context) -> Value:
    return [{"key": key, "value": value} for key, value in m.items()]


@builtin("context(entries: list<context>)")
def _context(entries: list[Context | None]) -> Value:
    found: Context = {}
    for entry in entries:
        if entry is None or not isinstance(entry.get("key"), str) or "value" not in entry:
            raise NoValue("an entry without a string `key` and a `value`")
        if entry["key"] in found:
            raise NoValue(f"two entries {entry['key']!r}")
        found[entry["key"]] = entry["value"]
    return found


@builtin("context put(context: context, key: string, value: Any)")
def _put(context: Context, key: str, value: Value) -> Value:
    return context | {key: value}


@builtin("context put(context: context, keys: list<string>, value: Any)")
def _put_at(context: Context, keys: list[str], value: Value) -> Value:
    first, *rest = _path(keys)
    if not rest:
        return context | {first: value}
    inner = context.get(first)
    if not isinstance(inner, dict):
        raise NoValue(f"entry {first!r} is {shown(inner)}, not a context")
    return context | {first: _put_at(inner, rest, value)}


@builtin("context merge(contexts: list<context>)")
def _merge(contexts: list[Context | None]) -> Value:
    merged: Context = {}
    for context in contexts:
        if context is None:
            raise NoValue("null among the contexts")
        merged |= context
    return merged


def _path(keys: list[str]) -> list[str]:
    if not keys or None in keys:
        raise NoValue("keys that are empty or null")
    return keys
