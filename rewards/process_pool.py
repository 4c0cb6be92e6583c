"""Worker processes for verifiers that may hang: each request is killed for certain when its time is up.

A worker is a process that has imported the verifier once and forks a child to serve requests. Before a request
the child arms a kernel timer on its own *processor* time; when it runs out the kernel kills the child, whatever
it was doing, and the parent forks the next one in milliseconds. Processor time, not the clock: on a loaded
machine the same text gets the same verdict. `SIGALRM` handlers, the usual way, work only in a main thread and
never interrupt native code.

`ProcessPool` is the side that asks; `serve` is the side that answers. They speak one JSON value a line.
"""

import atexit
import contextlib
import gc
import json
import os
import queue
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from vertigym.core.errors import InfrastructureError

_MEMORY_BYTES = 2 << 30
_START_S = 120.0  # importing the verifier on a loaded machine


def serve(answer: Callable[[Any], Any]) -> None:
    """Answer requests from stdin on stdout until stdin ends: `[number, limit_s, request]` in,
    `[number, answer]` out, `[null, signal]` when a child was killed."""
    gc.freeze()  # keeps the imported modules' pages shared with the children
    while True:
        child = os.fork()
        if child == 0:
            _serve_requests(answer)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
            return
        _say([None, os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)])


def _serve_requests(answer: Callable[[Any], Any]) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    for line in _lines(0):
        number, limit_s, request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, limit_s)
        reply = answer(request)
        signal.setitimer(signal.ITIMER_PROF, 0)
        _say([number, reply])


def _lines(handle: int) -> Iterator[bytes]:
    """Lines, read without taking bytes that belong to a later child."""
    held = b""
    while chunk := os.read(handle, 1 << 16):
        held += chunk
        while b"\n" in held:
            line, _, held = held.partition(b"\n")
            yield line


def _say(value: Any) -> None:
    text = json.dumps(value).encode() + b"\n"
    while text:
        text = text[os.write(1, text) :]


class _Worker:
    """One process of the pool, started when first asked."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._process: subprocess.Popen[bytes] | None = None
        self._number = 0
        self._held = b""

    def ask(self, request: Any, limit_s: float) -> Any:
        """The answer.

        Raises:
            TimeoutError: the request used up its processor time and was killed. InfrastructureError: the
                worker died of something else.
        """
        started = self._process is not None and self._process.poll() is None
        process = self._process if started and self._process else self._start()
        self._number += 1
        # The kernel's timer does the work; this deadline is for a machine that gives us no processor at all.
        deadline = time.monotonic() + 30 * limit_s + (10 if started else _START_S)
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps([self._number, limit_s, request]).encode() + b"\n")
            process.stdin.flush()
            while True:
                number, reply = self._read(process, deadline)
                if number == self._number:
                    return reply
                if number is None:
                    raise _killed(reply, limit_s)
        except TimeoutError:  # the child was killed, not the worker (and it is an OSError: it must come first)
            raise
        except (OSError, EOFError) as error:
            self.close()
            raise InfrastructureError(f"a worker of {self._module} was lost: {error}") from None

    def _start(self) -> subprocess.Popen[bytes]:
        environment = os.environ | {"PYTHONHASHSEED": "0"}  # the same verdicts in every process
        self._held = b""
        self._process = subprocess.Popen(  # noqa: S603 (our own module)
            [sys.executable, "-P", "-m", self._module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        return self._process

    def _read(self, process: subprocess.Popen[bytes], deadline: float) -> Any:
        assert process.stdout is not None
        handle = process.stdout.fileno()
        while b"\n" not in self._held:
            if not select.select([handle], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise EOFError("no answer; the machine gives it no processor time")
            chunk = os.read(handle, 1 << 16)
            if not chunk:
                raise EOFError(f"it ended with status {process.wait()}")
            self._held += chunk
        line, _, self._held = self._held.partition(b"\n")
        return json.loads(line)

    def close(self) -> None:
        """End the process and its child."""
        if self._process is None:
            return
        process, self._process = self._process, None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        process.wait()


def _killed(signal_number: int, limit_s: float) -> Exception:
    if signal_number == signal.SIGPROF:
        return TimeoutError(f"no verdict within {limit_s:g} s of processor time")
    return InfrastructureError(f"the verifier's process died (signal {signal_number})")


class ProcessPool:
    """`size` workers that run `python -m MODULE`; threads that ask wait for a free one."""

    def __init__(self, module: str, size: int) -> None:
        self._workers = [_Worker(module) for _ in range(size)]
        self._free: queue.LifoQueue[_Worker] = queue.LifoQueue()
        for worker in reversed(self._workers):
            self._free.put(worker)
        atexit.register(self.close)

    def ask(self, request: Any, *, limit_s: float) -> Any:
        """The answer to `request` (any JSON value), with `limit_s` seconds of processor time for it.

        Raises:
            TimeoutError: it took longer, and was killed. InfrastructureError: the worker was lost.
        """
        worker = self._free.get()
        try:
            return worker.ask(request, limit_s)
        finally:
            self._free.put(worker)

    def close(self) -> None:
        """End all workers; asking again starts them anew."""
        for worker in self._workers:
            worker.close()


_pools: dict[str, ProcessPool] = {}
_lock = threading.Lock()


def shared_pool(module: str) -> ProcessPool:
    """The process-wide pool of `module`, one worker a processor (at most 8)."""
    with _lock:
        if module not in _pools:
            _pools[module] = ProcessPool(module, min(8, os.cpu_count() or 1))
        return _pools[module]


os.register_at_fork(after_in_child=_pools.clear)  # pipes cannot be shared by two processes
