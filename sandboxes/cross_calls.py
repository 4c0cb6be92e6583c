"""The channel between two sandboxes: tests on one side call functions on the other, and only data crosses.

The tests hold a `RemoteCaller`. Each call goes over as tagged JSON (`tagged_json`), and the answer comes back
the same way: a value made of plain builtins, or an exception's name, message and arguments. What has no data
form stays where it is and crosses as a reference (`remote_objects`): functions and iterators that the program
returns, objects of the classes under test, and functions that a test passes in, which the program calls back
over the same channel while the test waits. The program can answer what it likes; it cannot reach the test's
frames, objects or files. A message is a 4-byte length and that many bytes. Runs inside the sandbox: standard
library only.
"""

import builtins
import importlib
import importlib.machinery
import os
import struct
import types
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from vertigym.sandboxes import tagged_json
from vertigym.sandboxes.remote_objects import (
    RemoteClass,
    RemoteObject,
    changed_in_place,
    finished,
    iterating,
    settled,
)

MAX_MESSAGE = 1 << 20
_IMPORT = "import"  # what is asked for in place of a function's name: a keyword names no function
_CALLBACK = "callback"
_STEERING = (StopIteration, StopAsyncIteration)  # raised in `all(map(f, …))` they end it, and it is true
_CLASS, _EXCEPTION, _CHANGES = "class ", "exception ", "changes "


class RemoteError(Exception):
    """The program raised something that is not a builtin exception, or stopped answering."""


class RemoteCaller:
    """The tests' end of the channel."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._callbacks: list[Callable[..., Any]] = []
        self._exceptions: dict[str, type[Exception]] = {}
        self._classes = False  # whether classes are under test: without, no object of the program is anything
        self._failed: AssertionError | None = None

    def exports(self, table: Mapping[str, str]) -> dict[str, Any]:
        """What the tests see for each export: a function; `class NAME`: a class whose instances stay over
        there; `exception NAME`: an exception's class; `changes NAME`: a function whose changes to its arguments
        come back."""
        made = dict[str, Any]()
        for name, target in table.items():
            if target.startswith(_CLASS):
                self._classes = True
                made[name] = RemoteClass(self, target.removeprefix(_CLASS))
            elif target.startswith(_EXCEPTION):
                kind = target.removeprefix(_EXCEPTION)
                made[name] = self._exceptions[kind] = type(kind, (Exception,), {})
            elif target.startswith(_CHANGES):
                made[name] = self.function(target.removeprefix(_CHANGES), changes=True)
            else:
                made[name] = self.function(target)
        return made

    def call(
        self, target: str | int, arguments: tuple[Any, ...], keywords: dict[str, Any], changes: bool = False
    ) -> Any:
        """Call `target` (a name, or the number of an object) in the other sandbox.

        Raises:
            The exception the program raised, as the builtin one nearest to it. RemoteError: none, no answer, or
            not data. AssertionError: a function of the test's failed in it when the program called it.
        """
        message = (target, arguments, keywords, changes) if changes else (target, arguments, keywords)
        send(self._descriptor, tagged_json.dumps(message, self._refer).encode())
        answer = self._answer()
        if self._failed is not None:
            failed, self._failed = self._failed, None
            raise failed
        match answer:
            case ("changed", answered, list(after), dict(after_keywords)) if changes:
                changed_in_place([*arguments, *keywords.values()], [*after, *after_keywords.values()])
                return self._outcome(answered)
        return self._outcome(answer)

    def _answer(self) -> Any:
        """The answer to a call; what the program asks of the test's functions before that is answered here."""
        while True:
            message = receive(self._descriptor)
            if message is None:
                raise RemoteError("the program has stopped")
            answer = tagged_json.loads(message, self._known)
            match answer:
                case (str(kind), int(number), tuple(arguments), dict(keywords)) if kind == _CALLBACK:
                    self._call_back(number, arguments, keywords)
                case _:
                    return answer

    def _call_back(self, number: int, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        coroutine = False
        try:
            value = self._callbacks[number](*arguments, **keywords)
            coroutine = isinstance(value, types.CoroutineType)
            answer: Any = ("value", settled(value))
        except AssertionError as error:
            self._failed = error
            answer = ("raised", "AssertionError", str(error))
        except Exception as error:
            answer = ("raised", type(error).__name__, str(error)[:2000])
        answer = ("coroutine", answer) if coroutine else answer
        send(self._descriptor, tagged_json.dumps(("answered", answer), self._refer).encode())

    def _outcome(self, answer: Any) -> Any:
        match answer:
            case ("value", value):
                return value
            case ("coroutine", awaited):
                return finished(partial(self._outcome, awaited))
            case ("raised", str(kind), str(message), *rest):
                raise self._exception(kind, message, *rest)
        raise RemoteError("the answer is not in the protocol")

    def _refer(self, value: Any) -> Any:
        if isinstance(value, RemoteObject):
            return ["theirs", value._number]
        if isinstance(value, type):
            name = str(getattr(value, "__name__", ""))
            return ["builtin", name] if vars(builtins).get(name) is value else None
        if not callable(value):
            return None
        self._callbacks.append(value)
        return ["ours", len(self._callbacks) - 1]

    def _known(self, body: Any) -> Any:
        match body:
            case ["ours", int(number)] if 0 <= number < len(self._callbacks):
                return self._callbacks[number]
            case ["function", int(number)]:
                return self.function(number)
            case ["iterator", int(number)]:
                return iterating(partial(self.call, number, ("next",), {}))
            case ["object", int(number), str(kind)] if self._classes:
                return RemoteObject(self, number, kind)
        return tagged_json.Opaque(str(body)[:200])

    def constructed(self, value: Any) -> Any:
        """An object that the test itself made: all its operations are asked of the program."""
        if isinstance(value, RemoteObject):
            object.__setattr__(value, "_own", True)
        return value

    def names(self, module: str) -> dict[str, Callable[[], Any]]:
        """The names that a module of the other sandbox defines, each with what gets its value: data as it is
        now, functions and classes as a function that calls them.

        Raises:
            The exception that the import raised there.
        """
        return {
            name: partial(self.function, f"{module}:{name}")
            if called
            else partial(self.call, _IMPORT, (module, name), {})
            for name, called in self.call(_IMPORT, (module,), {})
        }

    def function(self, target: str | int, changes: bool = False) -> Callable[..., Any]:
        """A function that calls `target`."""

        def remote(*arguments: Any, **keywords: Any) -> Any:
            given = ("call", "", *arguments) if isinstance(target, int) else arguments
            return self.call(target, given, keywords, changes)

        remote.__name__ = remote.__qualname__ = str(target).rpartition(":")[2]
        return remote

    def _exception(self, kind: str, message: str, bases: object = (), arguments: object = ()) -> Exception:
        """The test's own class of that name, or the builtin exception of that name or of its nearest base; else
        (and for one that ends loops) a RemoteError that says what it was. Its text is the message."""
        names = (
            [kind, *(name for name in bases if isinstance(name, str))] if isinstance(bases, list) else [kind]
        )
        builtin = None if _STEERS & {*names} else next(filter(None, map(_builtin, names)), None)
        kinds = [one for one in (self._exceptions.get(kind), builtin) if one is not None]
        for given in (arguments if isinstance(arguments, list) else [], [message]):
            try:
                made = type(kind, tuple(kinds), {"__str__": lambda _: message})
                found: Exception = made(*given) if kinds else RemoteError(f"{kind}: {message}")
            except (TypeError, ValueError):  # one that is made from something else
                continue
            return found
        return RemoteError(f"{kind}: {message}")


_STEERS = {kind.__name__ for kind in _STEERING}


def _builtin(name: str) -> type[Exception] | None:
    found = getattr(builtins, name, None)
    return (
        found if isinstance(found, type) and issubclass(found, Exception) and found is not Exception else None
    )


class ModuleProxies:
    """Makes `from shop.prices import total` in a test give a function of the other sandbox, for the packages
    named in `packages`; what is not there fails as usual. A star imports nothing, so that a program's names
    cannot hide the test's. A finder and loader by its methods: `importlib.abc` would load a dozen modules."""

    def __init__(self, caller: RemoteCaller, packages: Sequence[str]) -> None:
        self._caller = caller
        self._packages = packages

    def find_spec(
        self, fullname: str, path: Any, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """A spec for every module of the packages."""
        if fullname.partition(".")[0] not in self._packages:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)  # type: ignore[arg-type]

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """A module with the names of the one in the other sandbox, imported there now."""
        names = self._caller.names(spec.name)

        class Remote(types.ModuleType):
            def __getattr__(self, name: str) -> Any:
                if name not in names:
                    raise AttributeError(f"module {spec.name!r} has no attribute {name!r}")
                return names[name]()

        return Remote(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing to run."""


def send(descriptor: int, message: bytes) -> None:
    """Write one message."""
    data = struct.pack("<I", len(message)) + message
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except (BrokenPipeError, ConnectionResetError):
        raise RemoteError("the other side has stopped") from None


def receive(descriptor: int) -> bytes | None:
    """Read one message; None at the end.

    Raises:
        RemoteError: longer than MAX_MESSAGE.
    """
    header = _exactly(descriptor, 4)
    if header is None:
        return None
    (length,) = struct.unpack("<I", header)
    if length > MAX_MESSAGE:
        raise RemoteError(f"a message of {length} bytes; at most {MAX_MESSAGE} are read")
    return _exactly(descriptor, length)


def _exactly(descriptor: int, count: int) -> bytes | None:
    parts = []
    while count:
        try:
            part = os.read(descriptor, count)
        except ConnectionResetError:
            return None
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
