"""The part of a job that runs beside untrusted code: read the payload, run it, write down what came out.

Nothing here is trusted by anyone: whatever this process writes is data that the controller caps,
decodes and judges. It exits with 0 (ran), 1 (the program failed) or OUT_OF_MEMORY.

Descriptors: 0 stdin, 1 stdout, 2 stderr, 3 payload, 4 result, 5 the channel between a program and its tests.
A result is lines of JSON: `["loaded"]` or `["failed", type, message]` for the program itself, then for each
call or test `["value", tagged]` or `["raised", type, message]`.
Runs inside the sandbox: standard library only.
"""

import base64
import builtins
import contextlib
import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from vertigym.sandboxes import tagged_json
from vertigym.sandboxes.cross_calls import ModuleProxies, RemoteCaller
from vertigym.sandboxes.remote_objects import settled
from vertigym.sandboxes.served_calls import CallServer, Described

PAYLOAD, RESULT, CHANNEL = 3, 4, 5
OUT_OF_MEMORY = 86
_MESSAGE = 2000  # characters kept of an exception's message
_NAME = "solution.py"

Emit = Callable[..., None]


def main() -> int:
    """Run the payload; the exit status."""
    payload = json.loads(_read(PAYLOAD))
    os.close(PAYLOAD)
    tagged_json.Array.native = True
    return run(payload, emit)


def emit(*row: Any) -> None:
    """Write one line of the result."""
    data = (json.dumps(row) + "\n").encode()
    while data:
        data = data[os.write(RESULT, data) :]


def run(payload: dict[str, Any], emit: Emit) -> int:
    """Run a decoded payload; also used by the fork-server to warm up, with an `emit` that drops."""
    if payload.get("cwd"):
        os.makedirs(payload["cwd"], exist_ok=True)
        os.chdir(payload["cwd"])
    _place(payload.get("files") or [])
    try:
        status = _MODES[payload["mode"]](payload, emit)
    except MemoryError:
        status = OUT_OF_MEMORY
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
    with contextlib.suppress(BaseException):
        sys.stderr.flush()
    return status


def _call(payload: dict[str, Any], emit: Emit) -> int:
    """Load the program, then call one of its functions with each input."""
    namespace = _load(payload, emit)
    if namespace is None:
        return 1
    for arguments, keywords, calls, after in tagged_json.loads(payload["inputs"]):
        try:
            value = settled(_resolve(namespace, payload["call"])(*arguments, **keywords))
            if calls:
                value = [settled(getattr(value, name)(*args, **kwargs)) for name, args, kwargs in calls]
            emit("value", tagged_json.dumps([value, arguments] if after else value))
        except MemoryError:
            raise
        except BaseException as error:
            emit("raised", *describe(error))
    return 0


def _script(payload: dict[str, Any], emit: Emit) -> int:
    """Run the program as `python program.py` would."""
    sys.argv = [_NAME, *payload.get("argv", [])]
    return 1 if _load(payload, emit, "__main__") is None else 0


def _served(payload: dict[str, Any], emit: Emit) -> int:
    """Load the program and answer the checker's calls until it hangs up."""
    namespace = _load(payload, emit)
    if namespace is None:
        return 1
    CallServer(CHANNEL, lambda name: _resolve(namespace, name), _described).serve()
    return 0


def _check(payload: dict[str, Any], emit: Emit) -> int:
    """Run tests whose calls go to the program in the other sandbox."""
    caller = RemoteCaller(CHANNEL)
    namespace: dict[str, Any] = {"__name__": "tests"}
    namespace |= caller.exports(payload["exports"])
    sys.meta_path.insert(0, ModuleProxies(caller, payload["modules"]))
    setup, *tests = payload["tests"]
    try:
        exec(compile(setup, "tests.py", "exec"), namespace)  # noqa: S102
    except Exception as error:
        emit("failed", *describe(error))
        return 1
    emit("loaded")
    for test in tests:
        try:
            exec(compile(test, "tests.py", "exec"), namespace)  # noqa: S102
            emit("value", "true")
        except Exception as error:
            emit("raised", *describe(error))
    return 0


def _command(payload: dict[str, Any], emit: Emit) -> int:
    """Become another program."""
    for descriptor in (RESULT, CHANNEL):
        with contextlib.suppress(OSError):
            os.close(descriptor)
    argv = payload["argv"]
    try:
        os.execvpe(argv[0], argv, payload["env"])  # noqa: S606
    except OSError as error:
        os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
        return 127


def _collect(payload: dict[str, Any], emit: Emit) -> int:
    """Read one regular file (`path`), or all below the working folder; links are not followed."""
    below = (os.path.join(folder, name) for folder, _, names in os.walk(".") for name in sorted(names))
    for path in [payload["path"]] if payload["path"] else below:
        if os.path.isfile(path) and not os.path.islink(path):
            with open(path, "rb") as file:
                emit("file", os.path.relpath(path), base64.b64encode(file.read()).decode())
    return 0


_MODES: dict[str, Callable[[dict[str, Any], Emit], int]] = {
    "call": _call,
    "script": _script,
    "served": _served,
    "check": _check,
    "command": _command,
    "collect": _collect,
}


def _load(payload: dict[str, Any], emit: Emit, name: str = "solution") -> dict[str, Any] | None:
    """The program's namespace after running it, or None (and why, in the result) when it fails."""
    namespace: dict[str, Any] = {"__name__": name, "__builtins__": builtins, "__file__": _NAME}
    if payload.get("files"):
        sys.path.insert(0, os.getcwd())
    try:
        exec(compile(payload["program"], _NAME, "exec"), namespace)  # noqa: S102
    except MemoryError:
        raise
    except SystemExit as stop:
        if name == "__main__" and stop.code in (None, 0):
            emit("loaded")
            return namespace
        emit("failed", *describe(stop))
        return None
    except BaseException as error:
        emit("failed", *describe(error))
        with contextlib.suppress(BaseException):
            traceback.print_exception(error, limit=-5)
        return None
    emit("loaded")
    return namespace


def _resolve(namespace: dict[str, Any], name: str) -> Any:
    """`f`, `Class.method` (on a new instance), or `package.module:f`."""
    module, colon, rest = name.rpartition(":")
    first, *attributes = rest.split(".")
    if colon:
        found = getattr(importlib.import_module(module), first)
    elif first in namespace:
        found = namespace[first]
    else:
        raise NameError(f"the program defines no {first!r}")
    for attribute in attributes:
        found = getattr(found() if isinstance(found, type) else found, attribute)
    return found


def describe(error: BaseException) -> tuple[str, str]:
    """An exception's type and message, short, whatever its `__str__` does."""
    try:
        return type(error).__name__[:100], str(error)[:_MESSAGE]
    except BaseException:
        return "Exception", "an exception that cannot be printed"


def _described(error: BaseException) -> Described:
    """With the names of its bases and, where they are data, its arguments."""
    bases = [kind.__name__[:100] for kind in type(error).__mro__[1:20]]
    try:
        arguments = tagged_json.loads(tagged_json.dumps(list(error.args)))
    except (ValueError, RecursionError):
        arguments = []
    return *describe(error), bases, arguments


def _place(files: list[list[str]]) -> None:
    """Write the job's files below the working folder (paths were checked outside)."""
    for path, content in files:
        folder = os.path.dirname(path)
        if folder:
            os.makedirs(folder, exist_ok=True)
        with open(path, "wb") as file:
            file.write(base64.b64decode(content))


def _read(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
