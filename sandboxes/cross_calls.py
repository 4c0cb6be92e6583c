"""The channel between two sandboxes: tests on one side call functions on the other, and only data crosses.

The tests hold a `RemoteCaller`. Each call goes over as tagged JSON (`tagged_json`), and the answer comes back
the same way: a value made of plain builtins, or the name and message of an exception. The program can answer
what it likes; it cannot reach the test's frames, objects or files. A message is a 4-byte length and that many
bytes. Runs inside the sandbox: standard library only.
"""

import builtins
import importlib.machinery
import os
import struct
import types
from collections.abc import Callable, Sequence
from typing import Any

from vertigym.sandboxes import tagged_json

MAX_MESSAGE = 1 << 20


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

    def function(self, target: str) -> Callable[..., Any]:
        """A function that calls `target`."""

        def remote(*arguments: Any, **keywords: Any) -> Any:
            return self.call(target, arguments, keywords)

        remote.__name__ = remote.__qualname__ = target.rpartition(":")[2]
        return remote


class ModuleProxies:
    """Makes `from shop.prices import total` in a test give a function of the other sandbox, for the packages
    named in `packages`. A finder and loader by its methods: `importlib.abc` would bring a dozen modules in."""

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
        """A module whose every public attribute is a remote function."""
        caller = self._caller

        class Remote(types.ModuleType):
            def __getattr__(self, name: str) -> Callable[..., Any]:
                if name.startswith("__"):
                    raise AttributeError(name)
                return caller.function(f"{spec.name}:{name}")

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
            answer = tagged_json.dumps(("value", resolve(target)(*arguments, **keywords)))
        except MemoryError:
            raise
        except BaseException as error:
            answer = tagged_json.dumps(("raised", *describe(error)))
        send(descriptor, answer.encode())


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
    """The builtin exception of that name, else a RemoteError that says what it was."""
    found = getattr(builtins, kind, None)
    if isinstance(found, type) and issubclass(found, Exception):
        try:
            return found(message)
        except TypeError:  # one that is made from more than a message
            pass
    return RemoteError(f"{kind}: {message}")
