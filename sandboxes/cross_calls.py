"""The channel between two sandboxes: tests on one side call functions on the other, and only data crosses.

The tests hold a `RemoteCaller`. Each call goes over as tagged JSON (`tagged_json`), and the answer comes back
the same way: a value made of plain builtins, or the name and message of an exception. The program can answer
what it likes; it cannot reach the test's frames, objects or files. A message is a 4-byte length and that many
bytes. Runs inside the sandbox: standard library only.
"""

import builtins
import importlib
import importlib.machinery
import os
import struct
import types
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from vertigym.sandboxes import tagged_json

MAX_MESSAGE = 1 << 20
_IMPORT = "import"  # what is asked for in place of a function's name: a keyword names no function
_STEERING = (StopIteration, StopAsyncIteration)  # raised in `all(map(f, …))` they end it, and it is true


class RemoteError(Exception):
    """The program raised something that is not a builtin exception, or stopped answering."""


class RemoteCaller:
    """The tests' end of the channel."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def call(self, target: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Call `target` in the other sandbox.

        Raises:
            The builtin exception the program raised. RemoteError: another one, no answer, or not data.
        """
        send(self._descriptor, tagged_json.dumps((target, arguments, keywords)).encode())
        answer = receive(self._descriptor)
        if answer is None:
            raise RemoteError("the program has stopped")
        match tagged_json.loads(answer):
            case ("value", value):
                return value
            case ("raised", str(kind), str(message)):
                raise _exception(kind, message)
        raise RemoteError("the answer is not in the protocol")

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

    def function(self, target: str) -> Callable[..., Any]:
        """A function that calls `target`."""

        def remote(*arguments: Any, **keywords: Any) -> Any:
            return self.call(target, arguments, keywords)

        remote.__name__ = remote.__qualname__ = target.rpartition(":")[2]
        return remote


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


def serve(
    descriptor: int, resolve: Callable[[str], Any], describe: Callable[[BaseException], tuple[str, str]]
) -> None:
    """The program's end: answer calls until the other side hangs up."""
    while (message := receive(descriptor)) is not None:
        try:
            target, arguments, keywords = tagged_json.loads(message)
            called = _look_into if target == _IMPORT else resolve(target)
            answer = tagged_json.dumps(("value", called(*arguments, **keywords)))
        except MemoryError:
            raise
        except BaseException as error:
            answer = tagged_json.dumps(("raised", *describe(error)))
        send(descriptor, answer.encode())


def _look_into(module: str, name: str = "") -> Any:
    """The value of `name` in a module; without one, each name there and whether it can be called. Modules in a
    module are left out: they are imported by their own names."""
    found = vars(importlib.import_module(module))
    if name:
        return found[name]
    return [
        (name, callable(value))
        for name, value in found.items()
        if not (name.startswith("__") or isinstance(value, types.ModuleType))
    ]


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


def _exception(kind: str, message: str) -> Exception:
    """The builtin exception of that name, else (and for one that ends loops) a RemoteError that says what it
    was."""
    found = getattr(builtins, kind, None)
    if isinstance(found, type) and issubclass(found, Exception) and not issubclass(found, _STEERING):
        try:
            return found(message)
        except TypeError:  # one that is made from more than a message
            pass
    return RemoteError(f"{kind}: {message}")
