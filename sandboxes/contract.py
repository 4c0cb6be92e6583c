"""The contract of every sandbox: a Job goes in, a JobOutcome comes out.

    pool.run(Job("def add(a, b): return a + b", call="add", inputs=[call(1, 2)])).result
    -> (Reply(value=3),)

A Job is one of
- a *call*: load `program`, call its function `call` with each of `inputs`; expected values stay outside;
- a *script*: no `call`: run `program` with `stdin`, read what it prints;
- a *tested program*: `tests` run in a second sandbox and reach the program through a data-only channel;
- a *command*: `argv`, in the folder of `files`.

`JobOutcome.status` says how it went; a lost sandbox is INFRA, which is never the program's doing.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any

from vertigym.core.errors import InputError
from vertigym.sandboxes.tagged_json import shown

MIB = 1 << 20
_MOST: Mapping[str, float] = {  # of each limit; beyond, the kernel's own numbers overflow
    "cpu_s": 1e6,
    "wall_s": 1e6,
    "memory_bytes": 1 << 46,
    "processes": 1 << 15,
    "disk_bytes": 1 << 40,
    "disk_inodes": 1 << 30,
    "output_bytes": 1 << 30,
    "result_bytes": 1 << 30,
}
_UNSAFE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def safe_text(text: str) -> str:
    """`text` with U+FFFD for what no reader expects: halves of characters, NUL and other control characters,
    line
    separators that are not newlines. Everything that a sandbox says goes through here, once."""
    return _UNSAFE.sub("\ufffd", text)


class Status(StrEnum):
    """How a job ended."""

    OK = "ok"
    ERROR = "error"  # the program did not load, raised, or exited with a non-zero status
    CPU = "cpu"  # over its CPU seconds
    WALL = "wall"  # over its wall seconds
    MEMORY = "memory"  # over its memory
    OUTPUT = "output"  # printed or returned more than allowed
    CRASH = "crash"  # died of a signal
    INFRA = "infra"  # the sandbox was lost; says nothing about the program


class Level(StrEnum):
    """How strong the isolation is, weakest first."""

    UNSAFE = "unsafe-subprocess"  # limits only: the program can read and write what you can
    LANDLOCK = "landlock"  # no files but the interpreter's, no network, no processes; nothing writable
    NAMESPACED = "namespaced"  # namespaces, a root of its own, and all of the above
    DOCKER = "docker"  # inside a container of a Docker-compatible engine

    @property
    def rank(self) -> int:
        """0 is the weakest."""
        return list(Level).index(self)


@dataclass(frozen=True, slots=True)
class JobLimits:
    """What a job may use, all its processes together. `cpu_s` decides; `wall_s` is the backstop for jobs that
    sleep.

    Raises:
        InputError: a limit that is not a number above 0, or absurdly large.
    """

    cpu_s: float = 2.0
    wall_s: float = 8.0
    memory_bytes: int = 512 * MIB  # of each process, and of the whole tree where a cgroup is writable
    processes: int = 1  # above 1 the job may start programs and threads
    disk_bytes: int = 16 * MIB
    disk_inodes: int = 1024
    output_bytes: int = 64 << 10  # stdout and stderr, each
    result_bytes: int = 256 << 10

    def __post_init__(self) -> None:
        for limit in fields(self):
            value, most = getattr(self, limit.name), _MOST[limit.name]
            whole = isinstance(limit.default, int)
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                raise InputError(f"limit {limit.name} is {value!r}: a {'whole ' * whole}number is needed")
            if not 0 < value <= most:
                raise InputError(f"limit {limit.name} is {value:g}: it must be above 0, at most {most:g}")


@dataclass(frozen=True, slots=True)
class CallArguments:
    """The arguments of one call: any values that have a data form (`tagged_json`). `calls`: what is called is a
    class, and these are calls of methods of the new object, in turn; the value is the list of what they return.
    `after`: the value is [value, the positional arguments after the call]."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    calls: Sequence[tuple[str, Sequence[Any], Mapping[str, Any]]] = ()
    after: bool = False


def call(*args: Any, **kwargs: Any) -> CallArguments:
    """`call(1, b=2)`: the arguments as you would write them."""
    return CallArguments(args, kwargs)


@dataclass(frozen=True, slots=True)
class Job:
    """Something to run. See the module for the four forms.

    `call`: a function, `Class.method`, or `package.module:function` of `files`. `tests`: setup code, then one
    source a test; in them each name of `exports` is a function of the program, and each package of `modules`
    can be imported, with its functions. `profile`: which of the pool's warm profiles to run in.

    Raises:
        InputError: parts that do not go together, a file path that leaves the folder, or text that is not UTF-8
            (the program apart: such a one does not load).
    """

    program: str = ""
    call: str = ""
    inputs: Sequence[CallArguments] = ()
    stdin: str | bytes = b""
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    tests: Sequence[str] = ()
    exports: Mapping[str, str] = field(default_factory=dict)
    modules: Sequence[str] = ()
    argv: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    limits: JobLimits = field(default_factory=JobLimits)
    min_level: Level = Level.LANDLOCK
    profile: str = "plain"

    def __post_init__(self) -> None:
        forms = [name for name in ("call", "tests", "argv") if getattr(self, name)]
        if len(forms) > 1:
            raise InputError(f"a job is one of call, tests and argv; this one has {' and '.join(forms)}")
        for path in self.files:
            parts = PurePosixPath(path)
            if parts.is_absolute() or ".." in parts.parts or not parts.name or "\0" in path:
                raise InputError(f"file {path!r}: a path below the job's folder is needed")
        for name, text in self._texts():
            if isinstance(text, str) and _SURROGATE.search(text):
                raise InputError(
                    f"{name} has half a character (a lone surrogate): it cannot be written as UTF-8"
                )
        for text in (*self.argv, *self.env, *self.env.values()):
            if "\0" in text:
                raise InputError(f"argument {text!r}: a command and its environment cannot hold NUL")

    def _texts(self) -> Iterator[tuple[str, str | bytes]]:
        """What must be UTF-8, with a name for a message."""
        yield "stdin", self.stdin
        yield "call", self.call
        for name in ("argv", "tests", "modules"):
            yield from ((name, text) for text in getattr(self, name))
        for name, table in (("env", self.env), ("exports", self.exports)):
            yield from ((name, text) for text in (*table, *table.values()))
        for path, content in self.files.items():
            yield from (("a file's path", path), (f"file {path}", content))


@dataclass(frozen=True, slots=True, repr=False)
class Reply:
    """What one call or one test gave: a value, or `error` (an exception's type) and `message`, as safe text."""

    value: Any = None
    error: str = ""
    message: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "error", safe_text(self.error))
        object.__setattr__(self, "message", safe_text(self.message))

    def __repr__(self) -> str:
        return f"Reply({shown(self.value)}, {self.error!r}, {self.message!r})"


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """How a job went. `result` has one Reply a call or test that was reached; `failure` says why the program
    did not load, if so. `peak_bytes` is the largest process's resident memory. `truncated`: stdout, stderr or
    the result was cut at its limit. Texts are safe (`safe_text`), values are as they came: `shown` them."""

    status: Status
    result: tuple[Reply, ...] = ()
    failure: Reply | None = None
    stdout: str = ""
    stderr: str = ""
    truncated: bool = False
    exit_code: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0
    peak_bytes: int = 0
    level: Level = Level.UNSAFE

    def __post_init__(self) -> None:
        object.__setattr__(self, "stdout", safe_text(self.stdout))
        object.__setattr__(self, "stderr", safe_text(self.stderr))
