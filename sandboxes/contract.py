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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any

from vertigym.core.errors import InputError

MIB = 1 << 20


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
    """What a job may use. `cpu_s` decides; `wall_s` is the backstop for jobs that sleep.

    Raises:
        InputError: a limit that is not positive.
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
            value = getattr(self, limit.name)
            if not value > 0:
                raise InputError(f"limit {limit.name} is {value}: it must be above 0")


@dataclass(frozen=True, slots=True)
class CallArguments:
    """The arguments of one call: any values that have a data form (`values`)."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


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
        InputError: parts that do not go together, or a file path that leaves the folder.
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


@dataclass(frozen=True, slots=True)
class Reply:
    """What one call or one test gave: a value, or `error` (an exception's type) and `message`."""

    value: Any = None
    error: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """How a job went. `result` has one Reply a call or test that was reached; `failure` says why the program
    did not load, if so. `peak_bytes` is the largest process's resident memory. `truncated`: stdout, stderr or
    the result was cut at its limit."""

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
