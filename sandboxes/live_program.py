"""A program that stays loaded in a sandbox of its own and answers one call after another.

with LiveProgram("def add(a, b): return a + b") as program:
    program.call("add", 1, 2)  # 3

A job costs a fork, and loads its program anew; a call of a live program costs a message. It is isolated as a
job is, for all its calls together: one that hangs, floods or dies ends it, and the next call says so.
"""

import json
import select
import socket
import struct
import time
import weakref
from collections.abc import Sequence
from typing import Any

from vertigym.core.errors import SandboxError
from vertigym.sandboxes import tagged_json
from vertigym.sandboxes.contract import MIB, Job, JobLimits, Level
from vertigym.sandboxes.cross_calls import MAX_MESSAGE, RemoteError
from vertigym.sandboxes.forkserver_worker import ForkServerWorker, order
from vertigym.sandboxes.job_files import JobFiles
from vertigym.sandboxes.levels import best_level
from vertigym.sandboxes.sandbox_worker import kind_of

LIMITS = JobLimits(cpu_s=600, wall_s=86_400, memory_bytes=1024 * MIB, processes=16)  # of its whole life
_LEVELS = (Level.NAMESPACED, Level.LANDLOCK)


class LiveProgram:
    """`packages` are imported before the isolation is built, so that the program can import them. Not
    thread-safe.

    Raises:
        SandboxError: no level that can hold it is available.
    """

    def __init__(
        self,
        program: str,
        *,
        packages: Sequence[str] = (),
        level: Level | str | None = None,
        limits: JobLimits = LIMITS,
    ) -> None:
        self.level = best_level() if level is None else Level(level)
        if self.level not in _LEVELS:
            raise SandboxError(f"a live program needs {' or '.join(_LEVELS)}, not {self.level}")
        job = Job(program, limits=limits)
        worker = _Worker(kind_of(job, self.level, tuple(packages)))
        self._lost = ""
        self._end = weakref.finalize(self, worker.close)
        try:
            while not worker.ready:
                if not select.select([worker], [], [], 60)[0]:
                    raise SandboxError("a sandbox did not start within a minute")
                worker.receive()
            self._channel = worker.load(job)
        except BaseException:
            self.close()
            raise

    def call(self, function: str, *arguments: Any, within_s: float = 10.0) -> Any:
        """What a function of the program returns.

        Raises:
            RemoteError: it raised (the message names what). SandboxError: there was no answer in time, or the
                program has ended; it then stays ended.
        """
        message = tagged_json.dumps((function, arguments, {})).encode()
        try:
            if not self._lost:
                answer = self._ask(struct.pack("<I", len(message)) + message, time.monotonic() + within_s)
        except TimeoutError:
            self._lost = f"no answer within {within_s:g} s"
        except (OSError, SandboxError) as error:
            self._lost = str(error)
        if self._lost:
            self.close()
            raise SandboxError(self._lost)
        match tagged_json.loads(answer):
            case ("value", value):
                return value
            case ("raised", str(kind), str(text), *_):
                raise RemoteError(f"{kind}: {text}")
        raise RemoteError("the answer is not in the protocol")

    def close(self) -> None:
        """End it. A second time does nothing."""
        self._end()

    def __enter__(self) -> "LiveProgram":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _ask(self, message: bytes, deadline: float) -> bytes:
        self._channel.settimeout(deadline - time.monotonic())
        self._channel.sendall(message)
        (length,) = struct.unpack("<I", self._read(4, deadline))
        if length > MAX_MESSAGE:
            raise SandboxError(f"an answer of {length} bytes; at most {MAX_MESSAGE} are read")
        return self._read(length, deadline)

    def _read(self, count: int, deadline: float) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            self._channel.settimeout(max(deadline - time.monotonic(), 0.001))
            part = self._channel.recv(count - len(parts))
            if not part:
                raise SandboxError("the program has ended")
            parts += part
        return bytes(parts)


class _Worker(ForkServerWorker):
    """A fork-server whose one job is to serve a program over a channel that leads here."""

    channel: socket.socket | None = None

    def load(self, job: Job) -> socket.socket:
        """Start the program; our end of its channel."""
        served = {"mode": "served", "program": job.program, "files": [], "cwd": ""}
        ours, theirs = socket.socketpair()
        files = JobFiles([json.dumps(served).encode()], b"", self._null)
        with theirs:
            socket.send_fds(self._control, [order(1, job.limits, 1, False)], [*files.passed, theirs.fileno()])
        files.close()
        self.channel = ours
        return ours

    def close(self) -> None:
        """End it, and our end of the channel."""
        if self.channel is not None:
            self.channel.close()
        super().close()
