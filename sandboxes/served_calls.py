"""The program's end of the channel (`cross_calls`): answers what its tests ask until they hang up.

What has no data form is kept here under a number: functions, iterators, classes under test and their instances.
Nothing on this side is trusted. Runs inside the sandbox: standard library only.
"""

import builtins
import functools
import importlib
import operator
import types
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from vertigym.sandboxes import tagged_json
from vertigym.sandboxes.cross_calls import receive, send
from vertigym.sandboxes.data_forms import form_of
from vertigym.sandboxes.remote_objects import finished, settled

_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial)
_BUILTINS: dict[str, Callable[..., Any]] = {
    "len": len, "iter": iter, "str": str, "repr": repr, "bool": bool, "hash": hash, "abs": abs, "int": int,
    "float": float, "round": round, "set": setattr, "and": operator.and_, "or": operator.or_, "get": getattr,
}  # fmt: skip

Described = tuple[str, str, list[str], list[Any]]
Describe = Callable[[BaseException], Described]


class CallServer:
    """Answers calls over `descriptor`. `resolve`: a name -> what the program has under it; `describe`: an
    exception -> its name, message, bases' names and arguments."""

    def __init__(self, descriptor: int, resolve: Callable[[str], Any], describe: Describe) -> None:
        self._descriptor, self._resolve, self._describe = descriptor, resolve, describe
        self._objects: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._classes: tuple[type, ...] = ()

    def serve(self) -> None:
        """Until the other side hangs up."""
        while (message := receive(self._descriptor)) is not None:
            self._answer(tagged_json.loads(message, self._known))

    def _answer(self, request: Any) -> None:
        try:
            target, arguments, keywords, *changes = request
            answer = self._answered(self._find(target), arguments, keywords)
            if changes:
                answer = ("changed", answer, list(arguments), keywords)
            text = tagged_json.dumps(answer, self._refer)
        except MemoryError:
            raise
        except BaseException as error:
            text = tagged_json.dumps(("raised", *self._describe(error)))
        send(self._descriptor, text.encode())

    def _answered(
        self, called: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Any:
        value = called(*arguments, **keywords)
        if not isinstance(value, types.CoroutineType):
            return ("value", value)
        try:
            return ("coroutine", ("value", settled(value)))
        except MemoryError:
            raise
        except BaseException as error:
            return ("coroutine", ("raised", *self._describe(error)))

    def _find(self, target: str | int) -> Callable[..., Any]:
        if isinstance(target, int):
            return partial(self._operate, self._objects[target])
        if target in ("import", "class"):  # keywords name no function
            return _look_into if target == "import" else self._class
        found: Callable[..., Any] = self._resolve(target)
        return found

    def _class(self, name: str) -> type:
        found = self._resolve(name)
        if not isinstance(found, type):
            raise TypeError(f"{name} is no class")
        self._classes += (found,)
        return found

    def _operate(self, item: Any, operation: str, *operands: Any, **keywords: Any) -> Any:
        if operation == "call":
            return item(*operands[1:], **keywords)
        if operation == "next":
            return next(((True, one) for one in item), (False, None))
        if operation in _BUILTINS:
            return _BUILTINS[operation](item, *operands)
        if function := getattr(operator, operation, None):
            return function(item, *operands)
        return getattr(type(item), f"__{operation}__")(item, *operands)

    def _refer(self, value: Any) -> Any:
        """The reference of what has no data form."""
        if isinstance(value, _TestFunction):
            return ["ours", value.number]
        if isinstance(value, self._classes) or (isinstance(value, type) and value in self._classes):
            return self._kept("object", value)
        if isinstance(value, _FUNCTIONS):
            return self._kept("function", value)
        if isinstance(value, Iterator):
            return self._kept("iterator", value)
        plain = isinstance(
            value, dict | set | frozenset | tuple | list | bytes | bytearray | int | float | complex | str
        )
        if not self._classes or plain or form_of(value) is not None or hasattr(value, "dtype"):
            return None
        return self._kept("object", value)

    def _kept(self, form: str, value: Any) -> list[Any]:
        number = self._numbers.setdefault(id(value), len(self._objects))
        if number == len(self._objects):
            self._objects.append(value)
        return [form, number, type(value).__name__] if form == "object" else [form, number]

    def _known(self, body: list[Any]) -> Any:
        form, which = body
        if form == "theirs":
            return self._objects[which]
        return getattr(builtins, which) if form == "builtin" else _TestFunction(self, which)

    def call_back(self, number: int, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Call a function that a test passed in; it may call the program again before it answers."""
        request = ("callback", number, arguments, keywords)
        send(self._descriptor, tagged_json.dumps(request, self._refer).encode())
        while (message := receive(self._descriptor)) is not None:
            match tagged_json.loads(message, self._known):
                case ("answered", ("coroutine", outcome)):
                    return finished(partial(_outcome, outcome))
                case ("answered", outcome):
                    return _outcome(outcome)
                case nested:
                    self._answer(nested)
        raise EOFError("the tests have stopped")


def _outcome(outcome: tuple[Any, ...]) -> Any:
    """What a function of the test's returned, or raised."""
    if outcome[0] == "value":
        return outcome[1]
    found = getattr(builtins, outcome[1], RuntimeError)
    raise (found if isinstance(found, type) and issubclass(found, Exception) else RuntimeError)(outcome[2])


class _TestFunction:
    """A function of the test's."""

    def __init__(self, server: CallServer, number: int) -> None:
        self.server, self.number = server, number

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self.server.call_back(self.number, arguments, keywords)


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
