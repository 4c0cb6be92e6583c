"""Python values as type-tagged JSON: the only form in which anything leaves a sandbox. Never pickle.

`None`, `bool`, `str`, `list`, finite `float` and `int` below 2**53 are themselves. Everything else is an object
with one key, the tag:

    {"tuple": […]}   {"set": […]}   {"frozenset": […]}   {"dict": [[key, value], …]}   {"bytes": "hex"}
    {"int": "hex"}   {"float": "nan"}   {"complex": [re, im]}   {"array": [dtype, shape, list]}
    {"iterator": […]}      what a generator, map, zip or range yields, up to MAX_ITEMS
    {"opaque": "module.Class"}   anything else: it has no data form, and equals nothing

Decoding builds plain builtins only, so that comparing a decoded value never runs the sandbox's code. This
module runs inside and outside the sandbox and imports the standard library only.
"""

import json
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any

MAX_DEPTH = 200
MAX_ITEMS = 100_000
_EXACT = 1 << 53
_SHOWN_BITS = 1000
_MOST_COLLISIONS = 100


class Opaque:
    """A value that has no data form; it equals nothing, itself included."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{shown(self.kind)[1:-1]}, which has no data form>"


class Iterated(list[Any]):
    """What an iterator yielded."""


class Array:
    """A NumPy array as data: dtype name, shape, nested list."""

    def __init__(self, dtype: str, shape: tuple[int, ...], items: Any) -> None:
        self.dtype, self.shape, self.items = dtype, shape, items

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Array) and (self.dtype, self.shape, self.items) == (
            other.dtype,
            other.shape,
            other.items,
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"array({shown(self.items)}, dtype={shown(self.dtype)[1:-1]})"


_BRACKETS: dict[type, tuple[str, str]] = {
    list: ("[", "]"),
    Iterated: ("[", "]"),
    tuple: ("(", ")"),
    set: ("{", "}"),
    frozenset: ("frozenset({", "})"),
    dict: ("{", "}"),
}


def dumps(value: Any) -> str:
    """Tagged JSON on one line (ASCII, lone surrogates escaped).

    Raises:
        RecursionError: nested deeper than MAX_DEPTH, or it contains itself.
    """
    return json.dumps(_encode(value, MAX_DEPTH), allow_nan=False, separators=(",", ":"))


def loads(text: str | bytes) -> Any:
    """The value, made of plain builtins, `Opaque`, `Iterated` and `Array`.

    Raises:
        ValueError: not tagged JSON, or nested too deeply.
    """
    try:
        return _decode(json.loads(text), MAX_DEPTH)
    except (TypeError, KeyError, IndexError, RecursionError, OverflowError) as error:
        raise ValueError(f"not tagged JSON: {type(error).__name__}: {error}"[:200]) from None


def shown(value: Any, room: int = 200) -> str:
    """`repr` of a decoded value for people, cut after about `room` characters: printable, and cheap whatever
    the
    value is."""
    if type(value) not in _BRACKETS or not value:
        return _scalar(value, room)
    opening, closing = _BRACKETS[type(value)]
    parts = list[str]()
    for item in value.items() if isinstance(value, dict) else value:
        if room <= 0:
            parts.append("...")
            break
        both = item if isinstance(value, dict) else (item,)
        parts.append(": ".join(shown(one, room) for one in both))
        room -= len(parts[-1]) + 2
    return opening + ", ".join(parts) + ("," if opening == "(" and len(parts) == 1 else "") + closing


def _scalar(value: Any, room: int) -> str:
    if isinstance(value, int) and value.bit_length() > _SHOWN_BITS:
        return f"<an int of {value.bit_length()} bits>"
    if isinstance(value, (str, bytes)) and len(value) > room:
        return repr(value[:room]) + "..."
    return repr(value)


def _encode(value: Any, depth: int) -> Any:
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        return value if -_EXACT < value < _EXACT else {"int": hex(value)}
    if kind is float:
        return value if value - value == 0 else {"float": repr(value)}
    if not depth:
        raise RecursionError(f"nested deeper than {MAX_DEPTH}")
    if kind is list:
        return [_encode(item, depth - 1) for item in value]
    if kind is tuple:
        return {"tuple": [_encode(item, depth - 1) for item in value]}
    return _encode_rare(value, depth)


def _encode_rare(value: Any, depth: int) -> Any:
    """Sets, dicts, bytes, subclasses of builtins (as their builtin), arrays, iterators, the rest."""
    if isinstance(value, dict):
        pairs = dict.items(value)
        return {"dict": [[_encode(k, depth - 1), _encode(v, depth - 1)] for k, v in pairs]}
    if isinstance(value, Iterated):
        return {"iterator": [_encode(item, depth - 1) for item in value]}
    for builtin, tag in ((set, "set"), (frozenset, "frozenset"), (tuple, "tuple")):
        if isinstance(value, builtin):
            return {tag: [_encode(item, depth - 1) for item in value]}
    if isinstance(value, (list, deque)):
        return [_encode(item, depth - 1) for item in value]
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, complex):
        return {"complex": [_encode(value.real, depth - 1), _encode(value.imag, depth - 1)]}
    for plain in (int, float, str):
        if isinstance(value, plain):
            return _encode(plain(value), depth - 1)
    return _encode_foreign(value, depth)


def _encode_foreign(value: Any, depth: int) -> Any:
    kind = type(value)
    if kind.__module__ == "numpy" and hasattr(value, "dtype"):
        items = _encode(value.tolist(), depth - 1)
        return {"array": [str(value.dtype), list(value.shape), items]} if value.shape else items
    if isinstance(value, (Iterator, range, type({}.keys()), type({}.values()), type({}.items()))):
        items = list(islice(value, MAX_ITEMS + 1))
        if len(items) <= MAX_ITEMS:
            return {"iterator": [_encode(item, depth - 1) for item in items]}
    if isinstance(value, Array):
        return {"array": [value.dtype, list(value.shape), _encode(value.items, depth - 1)]}
    return {"opaque": f"{kind.__module__}.{kind.__qualname__}"[:200]}


def _decode(value: Any, depth: int) -> Any:
    if not isinstance(value, (list, dict)):
        return value
    if not depth:
        raise RecursionError(f"nested deeper than {MAX_DEPTH}")
    if isinstance(value, list):
        return [_decode(item, depth - 1) for item in value]
    if len(value) != 1:
        raise ValueError(f"an object with {len(value)} keys where one tag was expected")
    ((tag, body),) = value.items()
    return _decode_tag(tag, body, depth - 1)


def _decode_tag(tag: str, body: Any, depth: int) -> Any:
    match tag:
        case "tuple":
            return tuple(_decode(body, depth))
        case "set":
            return set(_spread(_decode(body, depth)))
        case "frozenset":
            return frozenset(_spread(_decode(body, depth)))
        case "iterator":
            return Iterated(_decode(body, depth))
        case "dict":
            keys = _spread([_decode(key, depth) for key, _ in body])
            return {key: _decode(item, depth) for key, (_, item) in zip(keys, body, strict=True)}
        case "bytes":
            return bytes.fromhex(body)
        case "int":
            return int(body, 16)
        case "float":
            if body not in ("nan", "inf", "-inf"):
                raise ValueError("a float that is none")
            return float(body)
        case "complex":
            real, imaginary = _decode(body, depth)
            return complex(real, imaginary)
        case "array":
            dtype, shape, items = body
            return Array(str(dtype), tuple(int(side) for side in shape), _decode(items, depth))
        case "opaque":
            return Opaque(str(body)[:200])
    raise ValueError(f"unknown tag {tag[:40]!r}")


def _spread(keys: list[Any]) -> list[Any]:
    """`keys`, unless so many share a hash that putting them into a table would take quadratic time."""
    if len(keys) - len({hash(key) for key in keys}) > _MOST_COLLISIONS:
        raise ValueError("a set or dict of keys with the same hash")
    return keys
