"""How a reward function is called: by argument name or batched, in place or under a time limit.

Two shapes are known by their signature. One names what it wants (`completion`, `answer`, `info`, `task`,
`prompt`, `messages`, or any key of the task's `info`); the other is TRL's
`f(prompts, completions, **columns) -> list[float | None]`, called here with a batch of one. Either may be
`async`. Whatever goes wrong comes back as a Score without a value and with the reason: an exception, a
timeout, None, NaN, a list of the wrong length, a value that is not a number.

Python cannot kill a thread. A function that runs past its limit is left behind on its own thread, which is
asked to end; verifiers that may truly hang (math) live in processes instead (`vertigym.rewards.process_pool`).
"""

import asyncio
import ctypes
import inspect
import math
import os
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from vertigym.core.types import Message, Score, Task

RewardFunction = Callable[..., Any]
F = TypeVar("F", bound=RewardFunction)

_GIVEN: dict[str, Callable[[Task, str, Sequence[Message]], Any]] = {
    "completion": lambda task, completion, messages: completion,
    "answer": lambda task, completion, messages: task.answer,
    "info": lambda task, completion, messages: task.info,
    "task": lambda task, completion, messages: task,
    "prompt": lambda task, completion, messages: task.prompt,
    "messages": lambda task, completion, messages: messages,
}
_BY_NAME = tuple(_GIVEN)
_BATCHED = ("prompts", "completions")


def bounded(function: F) -> F:
    """Mark a reward function that returns soon whatever the text: it is called in place, without a time limit
    (a change of threads costs more than most verdicts)."""
    setattr(function, "bounded", True)  # noqa: B010 (no type knows the attribute)
    return function


class Caller:
    """One reward function, its arguments and its time limit (seconds; None: none).

    Raises:
        ValueError: its signature cannot be read, or has positional-only arguments.
    """

    def __init__(self, function: RewardFunction, timeout_s: float | None) -> None:
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            raise ValueError(f"{function!r}: cannot read its arguments; wrap it in a function") from None
        if any(p.kind is p.POSITIONAL_ONLY for p in parameters):
            raise ValueError(f"{function!r}: arguments are passed by name, none may be positional-only")
        named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        self._function = function
        self._batched = any(p.name == "completions" for p in named)
        self._all_columns = any(p.kind is p.VAR_KEYWORD for p in parameters)
        known = _BATCHED if self._batched else _BY_NAME
        self._wanted = tuple(p.name for p in named if p.name in known)
        self._columns = {p.name: p.default is p.empty for p in named if p.name not in known}
        self._timeout_s = timeout_s
        in_place = timeout_s is None or getattr(function, "bounded", False)
        # A coroutine function returns at once: only awaiting it needs the limit.
        self._in_place = in_place or inspect.iscoroutinefunction(function)

    def __call__(self, task: Task, completion: str, messages: Sequence[Message]) -> Score:
        """The verdict, or why there is none. Never raises (an interrupt from the keyboard apart)."""
        try:
            if self._batched:
                arguments = self._batch_of_one(task, completion)
            else:
                arguments = self._by_name(task, completion, messages)
            if self._in_place:
                result = self._function(**arguments)
            else:
                result = _beside(self._function, arguments, self._timeout_s)
            if not isinstance(result, Score | float | bool) and inspect.isawaitable(result):
                result = _await(result, self._timeout_s)
            return _as_score(result[0] if self._batched and _is_one(result) else result)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # a verifier's fault, a native panic too, must reach the run as data
            return Score.unscored(_described(error))

    def _by_name(self, task: Task, completion: str, messages: Sequence[Message]) -> dict[str, Any]:
        names = _BY_NAME if self._all_columns else self._wanted
        arguments = {name: _GIVEN[name](task, completion, messages) for name in names}
        return arguments | self._from(task.info) if self._columns else arguments

    def _batch_of_one(self, task: Task, completion: str) -> dict[str, Any]:
        """TRL's columns: strings for a string prompt, lists of messages for a chat."""
        plain = isinstance(task.prompt, str)
        given = {
            "prompts": [task.prompt if plain else task.messages()],
            "completions": [completion if plain else [{"role": "assistant", "content": completion}]],
        }
        columns = {"answer": task.answer, "info": task.info, **task.info}
        chosen = columns if self._all_columns else self._from(columns)
        return {name: given[name] for name in self._wanted} | {name: [v] for name, v in chosen.items()}

    def _from(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        missing = [name for name, needed in self._columns.items() if needed and name not in columns]
        if missing:
            raise TypeError(f"the reward function wants {missing[0]!r}, which the task does not have")
        return {name: columns[name] for name in self._columns if name in columns}


def _is_one(result: object) -> bool:
    if not isinstance(result, Sequence) or isinstance(result, str):
        raise TypeError(f"a batched reward function returns a list, got {type(result).__name__}")
    if len(result) != 1:
        raise ValueError(f"1 completion went in, {len(result)} rewards came out")
    return True


def _as_score(result: object) -> Score:
    if isinstance(result, Score):
        if result.value is None or math.isfinite(result.value):
            return result
        return Score(None, result.parts, {**result.evidence, "reason": f"the value is {result.value}"})
    if result is None:
        return Score.unscored("the reward function returned None")
    if isinstance(result, str | bytes):
        return Score.unscored(f"the reward function returned {result[:200]!r}, not a number")
    value = float(result)  # type: ignore[arg-type]  # whatever has no float raises, and is caught above
    return Score(value) if math.isfinite(value) else Score.unscored(f"the reward function returned {value}")


def _described(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except BaseException:  # its own text raises
        return f"{type(error).__name__}, which cannot be printed"


# Under a time limit.


class _Runner(threading.Thread):
    """A thread that runs one job after another until it is left behind."""

    def __init__(self) -> None:
        super().__init__(daemon=True, name="reward function")
        self.jobs: SimpleQueue[tuple[RewardFunction, dict[str, Any], SimpleQueue[Any]]] = SimpleQueue()
        self.left_behind = False
        self.start()

    def run(self) -> None:
        while not self.left_behind:
            function, arguments, reply = self.jobs.get()
            try:
                reply.put((function(**arguments), None))
            except BaseException as error:
                reply.put((None, error))

    def leave_behind(self) -> None:
        """Ask for the end: Python code gets SystemExit at its next instruction; native code cannot be asked."""
        self.left_behind = True
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(self.ident or 0), ctypes.py_object(SystemExit)
        )


_idle: list[_Runner] = []
_loop: asyncio.AbstractEventLoop | None = None
_loop_lock = threading.Lock()


def _forget() -> None:
    """Threads do not survive a fork."""
    global _loop
    _idle.clear()
    _loop = None


os.register_at_fork(after_in_child=_forget)


def _beside(function: RewardFunction, arguments: dict[str, Any], timeout_s: float | None) -> Any:
    """Call on another thread; give up after `timeout_s`."""
    try:
        runner = _idle.pop()
    except IndexError:
        runner = _Runner()
    reply: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
    runner.jobs.put((function, arguments, reply))
    try:
        result, error = reply.get(timeout=timeout_s)
    except Empty:
        runner.leave_behind()
        raise TimeoutError(f"no verdict within {timeout_s:g} s") from None
    except BaseException:
        runner.leave_behind()
        raise
    _idle.append(runner)
    if error is not None:
        raise error
    return result


def _await(awaitable: Awaitable[Any], timeout_s: float | None) -> Any:
    """Await on the event loop that all asynchronous reward functions share; give up after `timeout_s`."""
    global _loop

    async def limited() -> Any:
        return await asyncio.wait_for(awaitable, timeout_s)

    with _loop_lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, daemon=True, name="async rewards").start()
        loop = _loop
    future = asyncio.run_coroutine_threadsafe(limited(), loop)
    try:
        # The loop's own limit comes first; the second is for a function that blocks the loop itself.
        return future.result(None if timeout_s is None else timeout_s + 1)
    except TimeoutError:
        if not future.done():
            with _loop_lock:
                _loop = None if _loop is loop else _loop
        raise TimeoutError(f"no verdict within {timeout_s} s") from None
