"""Threads that take turns, on a clock that only moves when all of them wait.

The one idea: code that waits with `threading`, `ThreadPoolExecutor`, `concurrent.futures.wait` and `time` is
given these in their place, and runs as it is. One thread runs at a time, until it waits; where none can go on,
the clock jumps to the next moment at which one can. A simulation repeats to the bit, on any machine.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

NEVER = float("inf")


class World:
    """The clock, and the threads that wait."""

    def __init__(self) -> None:
        self.now = 0.0
        self._turn = threading.Condition()
        self._running = threading.current_thread()
        self._waiting: dict[threading.Thread, tuple[Callable[[], Any], float]] = {}
        self._due: list[tuple[float, int, Callable[[], Any]]] = []
        self._numbers = iter(range(1 << 62))

    def at(self, when: float, happens: Callable[[], Any]) -> None:
        """Let something happen at a moment."""
        self._due.append((when, next(self._numbers), happens))

    def until(self, ready: Callable[[], Any], most: float = NEVER) -> None:
        """Wait until `ready()` says something true, or for `most` seconds."""
        me = threading.current_thread()
        with self._turn:
            self._waiting[me] = ready, self.now + most
            self._pass_on()
            self._turn.wait_for(lambda: self._running is me)

    def sleep(self, seconds: float) -> None:
        """Be busy for so long."""
        self.until(lambda: False, seconds)

    def begin(self, work: Callable[[], Any]) -> None:
        """Do it in a thread, which begins when this one waits."""

        def run() -> None:
            with self._turn:
                self._turn.wait_for(lambda: self._running is thread)
            work()
            with self._turn:
                self._pass_on()

        thread = threading.Thread(target=run, daemon=True)
        self._waiting[thread] = (lambda: True), NEVER
        thread.start()

    def _pass_on(self) -> None:
        """Give the turn to the first thread that can go on; the clock moves where none can."""
        while True:
            for thread, (ready, until) in self._waiting.items():
                if ready() or self.now >= until:
                    del self._waiting[thread]
                    self._running = thread
                    self._turn.notify_all()
                    return
            moments = [until for _, until in self._waiting.values()] + [when for when, *_ in self._due]
            soonest = min(moments, default=NEVER)
            if soonest == NEVER:
                raise RuntimeError("every thread waits for another")
            self.now = soonest
            self._due.sort(key=lambda one: one[:2])
            while self._due and self._due[0][0] <= self.now:
                self._due.pop(0)[2]()

    @contextmanager
    def rules(self, *modules: ModuleType) -> Iterator[None]:
        """Let modules wait on this clock."""
        world = self

        class Later(Future[Any]):
            def result(self, timeout: float | None = None) -> Any:
                world.until(self.done, NEVER if timeout is None else timeout)
                return super().result(0)

        class Pool:
            def __init__(self, *_: Any, **__: Any) -> None: ...

            def submit(self, work: Callable[..., Any], *args: Any) -> Later:
                future = Later()
                world.begin(lambda: future.set_result(work(*args)))
                return future

            def shutdown(self, **_: Any) -> None: ...

        class Condition:
            def __enter__(self) -> None: ...

            def __exit__(self, *_: object) -> None: ...

            def notify_all(self) -> None: ...

            def wait_for(self, ready: Callable[[], Any]) -> None:
                world.until(ready)

        class Thread:
            def __init__(self, target: Callable[..., Any], args: tuple[Any, ...] = (), **_: Any) -> None:
                self._work: Callable[[], Any] = lambda: target(*args)
                self._ended = False

            def start(self) -> None:
                world.begin(self._run)

            def join(self) -> None:
                world.until(lambda: self._ended)

            def _run(self) -> None:
                self._work()
                self._ended = True

        def wait(futures: Any, timeout: float, **_: Any) -> None:
            world.until(lambda: any(one.done() for one in futures), timeout)

        clock = SimpleNamespace(monotonic=lambda: self.now, perf_counter=lambda: self.now)
        threads = SimpleNamespace(Lock=Condition, Condition=Condition, Thread=Thread)  # one waits for no lock
        new = {"time": clock, "threading": threads, "ThreadPoolExecutor": Pool, "wait": wait}
        patches = [
            patch.object(module, name, one)
            for module in modules
            for name, one in new.items()
            if hasattr(module, name)
        ]
        with ExitStack() as stack:
            for one in patches:
                stack.enter_context(one)
            yield
