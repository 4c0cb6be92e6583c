"""Python values as type-tagged JSON: the only form in which anything leaves a sandbox. Never pickle.

`None`, `bool`, `str`, `list`, finite `float` and `int` below 2**53 are themselves. Everything else is an object
with one key, the tag:

    {"tuple": […]}   {"set": […]}   {"frozenset": […]}   {"dict": [[key, value], …]}   {"bytes": "hex"}
    {"int": "hex"}   {"float": "nan"}   {"complex": [re, im]}   {"array": [dtype, shape, list]}
    {"decimal": "1.10"}   {"fraction": [1, 3]}   {"date": "2024-02-29"}   {"datetime": …}   {"time": …}
    {"timedelta": [days, seconds, µs]}   {"deque": […]}   {"namedtuple": [name, fields, values]}
    {"record": [name, [[field, value], …]]}   a dataclass instance, or an enumeration's member
    {"iterator": […]}      what a generator, map, zip or range yields, up to MAX_ITEMS
    {"ref": […]}           an object that stays where it is; only between two sandboxes (`cross_calls`)
    {"opaque": "module.Class"}   anything else: it has no data form, and equals nothing

Decoding builds plain builtins only, so that comparing a decoded value never runs the sandbox's code. This
module runs inside and outside the sandbox and imports the standard library only.
"""

import json
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from vertigym.sandboxes.data_forms import FORMS, DataRecord, form_of, made

Refer = Callable[[Any], Any]  # an object -> the body of its reference, or None; and back
MAX_DEPTH = 200
MAX_ITEMS = 100_000
_NUMBERS = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)|complex(64|128)")
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
    """A NumPy array as data: dtype name, shape, nested list. Inside a sandbox (`native`), where NumPy is
    imported, arrays of numbers are made again instead."""

    native = False

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
    deque: ("deque([", "])"),
    frozenset: ("frozenset({", "})"),
    dict: ("{", "}"),
}


def dumps(value: Any, refer: Refer | None = None) -> str:
    """Tagged JSON on one line (ASCII, lone surrogates escaped). `refer` gives what has no data form a
    reference.

    Raises:
        RecursionError: nested deeper than MAX_DEPTH, or it contains itself.
    """
    return json.dumps(_encode(value, MAX_DEPTH, refer), allow_nan=False, separators=(",", ":"))


def loads(text: str | bytes, refer: Refer | None = None) -> Any:
    """The value, made of plain builtins, types of the standard library (`data_forms`), `Opaque`, `Iterated` and
    `Array`, and of what `refer` makes of references (without it they are opaque).

    Raises:
        ValueError: not tagged JSON, or nested too deeply.
    """
    try:
        return _decode(json.loads(text), MAX_DEPTH, refer)
    except (TypeError, KeyError, IndexError, RecursionError, OverflowError, AttributeError) as error:
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
    if isinstance(value, DataRecord):
        fields = [f"{name}={shown(item, room)}" for name, item in value.fields_of_record.items()]
        return f"{value.kind_of_record}({', '.join(fields)})"
    if isinstance(value, tuple) and type(value) is not tuple:  # a named one
        return type(value).__name__ + shown(tuple(value), room)
    text = repr(value)
    return text if len(text) <= 2 * room else text[:room] + "..."


def _encode(value: Any, depth: int, refer: Refer | None) -> Any:
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
        return _each(value, depth, refer)
    if kind is tuple:
        return {"tuple": _each(value, depth, refer)}
    if refer and (body := refer(value)) is not None:
        return {"ref": body}
    return _encode_rare(value, depth, refer)


def _each(items: Any, depth: int, refer: Refer | None) -> list[Any]:
    return [_encode(item, depth - 1, refer) for item in items]


def _encode_rare(value: Any, depth: int, refer: Refer | None) -> Any:
    """Sets, dicts, bytes, other data, subclasses of builtins (as their builtin), arrays, iterators, the
    rest."""
    if isinstance(value, dict):
        pairs = dict.items(value)
        return {"dict": [_each(pair, depth, refer) for pair in pairs]}
    if isinstance(value, Iterated):
        return {"iterator": _each(value, depth, refer)}
    if form := form_of(value):
        return {form[0]: _encode(form[1], depth - 1, refer)}
    for builtin, tag in ((set, "set"), (frozenset, "frozenset"), (tuple, "tuple")):
        if isinstance(value, builtin):
            return {tag: _each(value, depth, refer)}
    if isinstance(value, (list, deque)):
        return _each(value, depth, refer)
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, complex):
        return {"complex": _each((value.real, value.imag), depth, refer)}
    for plain in (int, float, str):
        if isinstance(value, plain):
            return _encode(plain(value), depth - 1, refer)
    return _encode_foreign(value, depth, refer)


def _encode_foreign(value: Any, depth: int, refer: Refer | None) -> Any:
    kind = type(value)
    if kind.__module__ == "numpy" and hasattr(value, "dtype"):
        items = _encode(value.tolist(), depth - 1, refer)
        return {"array": [str(value.dtype), list(value.shape), items]} if value.shape else items
    if isinstance(value, (Iterator, range, type({}.keys()), type({}.values()), type({}.items()))):
        items = list(islice(value, MAX_ITEMS + 1))
        if len(items) <= MAX_ITEMS:
            return {"iterator": _each(items, depth, refer)}
    if isinstance(value, Array):
        return {"array": [value.dtype, list(value.shape), _encode(value.items, depth - 1, refer)]}
    return {"opaque": f"{kind.__module__}.{kind.__qualname__}"[:200]}


def _decode(value: Any, depth: int, refer: Refer | None) -> Any:
    if not isinstance(value, (list, dict)):
        return value
    if not depth:
        raise RecursionError(f"nested deeper than {MAX_DEPTH}")
    if isinstance(value, list):
        return [_decode(item, depth - 1, refer) for item in value]
    if len(value) != 1:
        raise ValueError(f"an object with {len(value)} keys where one tag was expected")
    ((tag, body),) = value.items()
    return _decode_tag(tag, body, depth - 1, refer)


def _decode_tag(tag: str, body: Any, depth: int, refer: Refer | None) -> Any:
    match tag:
        case "tuple":
            return tuple(_decode(body, depth, refer))
        case "set":
            return set(_spread(_decode(body, depth, refer)))
        case "frozenset":
            return frozenset(_spread(_decode(body, depth, refer)))
        case "iterator":
            return Iterated(_decode(body, depth, refer))
        case "dict":
            keys = _spread([_decode(key, depth, refer) for key, _ in body])
            return {key: _decode(item, depth, refer) for key, (_, item) in zip(keys, body, strict=True)}
        case "bytes":
            return bytes.fromhex(body)
        case "int":
            return int(body, 16)
        case "float":
            if body not in ("nan", "inf", "-inf"):
                raise ValueError("a float that is none")
            return float(body)
        case "complex":
            real, imaginary = _decode(body, depth, refer)
            return complex(real, imaginary)
        case "array":
            dtype, shape, items = body
            return _array(str(dtype), tuple(int(side) for side in shape), _decode(items, depth, refer))
        case "ref":
            return refer(body) if refer else Opaque("a reference")
        case "opaque":
            return Opaque(str(body)[:200])
    if tag not in FORMS:
        raise ValueError(f"unknown tag {tag[:40]!r}")
    return made(tag, _decode(body, depth, refer))


def _array(dtype: str, shape: tuple[int, ...], items: Any) -> Any:
    numpy = sys.modules.get("numpy") if Array.native else None
    if numpy is None or not _NUMBERS.fullmatch(dtype):
        return Array(dtype, shape, items)
    return numpy.array(items, dtype=dtype).reshape(shape)


def _spread(keys: list[Any]) -> list[Any]:
    """`keys`, unless so many share a hash that putting them into a table would take quadratic time."""
    if len(keys) - len({hash(key) for key in keys}) > _MOST_COLLISIONS:
        raise ValueError("a set or dict of keys with the same hash")
    return keys
