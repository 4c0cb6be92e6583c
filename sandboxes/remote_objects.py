"""What a test holds of the program's: classes under test, their instances, iterators, coroutines. All of it
stays over there.

What a program returns is hostile: an object that answers every operation could pass `abs(f(3) - 7) < 1e-6` or
`f(3).startswith("a")`. So only an object that the test itself made, by calling a class under test, passes
operators and all names on. One that a call returned, the same one too, has names that no builtin type has,
`str`, and `==` with an object of the test's own; it equals nothing else. Runs inside the sandbox: standard
library only.
"""

import opcode
import types
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, Protocol

_DATA = (str, bytes, list, dict, set, tuple, int, float, complex, deque, Decimal, Fraction, datetime, timedelta)
_DATA_NAMES = {name for kind in _DATA for name in dir(kind)} | {"all", "any", "equals", "isclose"}


class ObjectCaller(Protocol):
    """What an object over there asks of `cross_calls.RemoteCaller`."""

    def call(
        self, target: str | int, arguments: tuple[Any, ...], keywords: dict[str, Any], changes: bool = False
    ) -> Any:
        """Call a name, or an object by its number."""

    def constructed(self, value: Any) -> Any:
        """Mark what the test itself made."""


class RemoteObject:
    """An object of the program, by number."""

    _caller: ObjectCaller
    _number: int
    _kind: str
    _own: bool

    def __init__(self, caller: ObjectCaller, number: int, kind: str) -> None:
        for name, value in (("_caller", caller), ("_number", number), ("_kind", kind), ("_own", False)):
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        if not self._own and (name in _DATA_NAMES or name.startswith("__")):
            raise AttributeError(
                f"an object of {self._kind} that the test did not make: {name!r} is not asked of it"
            )
        return self._caller.call(self._number, ("get", name), {})

    def __setattr__(self, name: str, value: Any) -> None:
        """Also of an object that the test did not make: nothing comes back that could pass for a verdict."""
        self._caller.call(self._number, ("set", name, value), {})

    def _operate(self, operation: str, *operands: Any) -> Any:
        if not self._own:
            raise TypeError(
                f"an object of {self._kind} that the test did not make: {operation} is not asked of it"
            )
        return self._caller.call(self._number, (operation, *operands), {})

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Call it."""
        if not self._own:
            raise TypeError(f"{self._kind} objects that the test did not make are not called")
        return self._caller.call(self._number, ("call", "", *arguments), keywords)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RemoteObject) or self._number == other._number:
            return isinstance(other, RemoteObject)
        asked = self if self._own else other
        return asked._own and asked._operate("eq", other if asked is self else self) is True

    def __hash__(self) -> int:
        return hash(self._number) if not self._own else int(self._operate("hash"))

    def __bool__(self) -> bool:
        return bool(self._operate("bool")) if self._own else True

    def __str__(self) -> str:
        return str(self._caller.call(self._number, ("str",), {}))

    def __repr__(self) -> str:
        return str(self._caller.call(self._number, ("repr",), {}))


def _operation(name: str) -> Callable[..., Any]:
    def operate(self: RemoteObject, *operands: Any) -> Any:
        value = self._operate(name, *operands)
        stays = name in _STATEMENTS and isinstance(value, RemoteObject) and value._number == self._number
        return self if stays else value

    return operate


_STATEMENTS = ("enter", "iadd", "isub", "imul")  # `with` and `+=` ask for an object, never for a value
ASKED = """
len iter next contains getitem setitem delitem lt le gt ge add sub mul matmul truediv floordiv mod pow and or
xor lshift rshift radd rsub rmul rtruediv rfloordiv rmod rpow neg pos abs invert int float index round enter
aenter iadd isub imul
"""
for _name in ASKED.split():
    setattr(RemoteObject, f"__{_name}__", _operation(_name))


def _raised_there(error: BaseException | None) -> bool:
    """Whether a `raise` of the test's own, in the very block, raised it."""
    trace = error.__traceback__ if error is not None else None
    if trace is None or trace.tb_next is not None or isinstance(error, AssertionError):
        return False
    return trace.tb_frame.f_code.co_code[trace.tb_lasti] == opcode.opmap["RAISE_VARARGS"]


def _exit(self: RemoteObject, kind: Any, error: BaseException | None, trace: Any) -> bool:
    """An object can end only what the test raises for it to end: else it could end a failed test."""
    return bool(self._operate("exit", kind, error, trace)) and _raised_there(error)


async def _aexit(self: RemoteObject, kind: Any, error: BaseException | None, trace: Any) -> bool:
    return bool(await self._operate("aexit", kind, error, trace)) and _raised_there(error)


for _name, _leave in (("__exit__", _exit), ("__aexit__", _aexit)):
    setattr(RemoteObject, _name, _leave)


class RemoteClass:
    """A class under test: calling it makes an object of the test's own. What its own methods make is only
    returned."""

    def __init__(self, caller: ObjectCaller, name: str) -> None:
        self._caller, self._name = caller, name
        self._found: RemoteObject | None = None

    def _class(self) -> RemoteObject:
        if self._found is None:
            self._found = self._caller.constructed(self._caller.call("class", (self._name,), {}))
        if not isinstance(self._found, RemoteObject):
            raise TypeError(f"{self._name} is no class of the program")
        return self._found

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """A new object."""
        return self._caller.constructed(self._class()(*arguments, **keywords))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._class(), name)

    def __instancecheck__(self, value: object) -> bool:
        return isinstance(value, RemoteObject) and value._kind == self._name


def iterating(following: Callable[[], Any]) -> Iterator[Any]:
    """What an iterator over there yields, one at a time; ended once, it stays ended."""
    while True:
        match following():
            case (True, item):
                yield item
            case _:
                return


async def finished(outcome: Callable[[], Any]) -> Any:
    """A coroutine that has already ended over there."""
    return outcome()


def settled(value: Any) -> Any:
    """`value`, or what it returns where it is a coroutine, run to its end in an event loop of its own."""
    if not isinstance(value, types.CoroutineType):
        return value
    import asyncio  # rarely needed, and dozens of modules
    from asyncio import events

    outer = events._get_running_loop()  # the one that waits for this very call
    events._set_running_loop(None)
    try:
        return asyncio.run(value)
    finally:
        events._set_running_loop(outer)


def changed_in_place(before: Sequence[Any], after: Sequence[Any]) -> None:
    """Change the containers among a call's arguments into what they are now, without making new ones."""
    for old, new in zip(before, after, strict=False):
        _change(old, new)


def _change(old: Any, new: Any) -> None:
    if isinstance(old, list | deque) and isinstance(new, list | deque):
        kept = [_merged(a, b) for a, b in zip(old, new, strict=False)] + list(new)[len(old) :]
        old.clear()
        old.extend(kept)
    elif isinstance(old, dict) and isinstance(new, dict):
        merged = {key: _merged(old[key], value) if key in old else value for key, value in new.items()}
        old.clear()
        old.update(merged)
    elif isinstance(old, set) and isinstance(new, set):
        old.clear()
        old.update(new)
    elif isinstance(old, bytearray) and isinstance(new, bytes):
        old[:] = new


def _merged(old: Any, new: Any) -> Any:
    """The old container, changed, where both are of one kind; else the new value."""
    if type(old) is type(new) and isinstance(old, list | deque | dict | set):
        _change(old, new)
        return old
    return new
