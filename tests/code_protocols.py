"""Tasks of code tests over all protocols, and three kinds of wrong programs for each."""

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ProtocolTask:
    """A reference program and its tests; `{n}` in a template is the task's number."""

    name: str
    program: str
    tests: dict[str, Any]


def _asserts(exports: str, *tests: str, setup: str = "") -> dict[str, Any]:
    table = {target.rpartition(" ")[2]: target for target in exports.split(", ")}
    return {"kind": "asserts", "setup": setup, "tests": list(tests), "exports": table}


def _cases(entry: str, *cases: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "cases", "entry": entry, "cases": list(cases)}


_NAN = {"float": "nan"}
HEAD = """
import asyncio, datetime
from collections import OrderedDict, deque, namedtuple
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from fractions import Fraction
"""
Template = tuple[str, str, Callable[[int], dict[str, Any]]]
TEMPLATES: list[Template] = [
    ("plain", "def f(x): return x + N", lambda n: _cases("f", {"args": [1], "expected": 1 + n})),
    ("tuple", "def f(x): return (x, N)", lambda n: _cases("f", {"args": [1], "expected": {"tuple": [1, n]}})),
    ("set", "def f(x): return {x, N}", lambda n: _cases("f", {"args": [-1], "expected": {"set": [n, -1]}})),
    (
        "deque",
        "def f(x): return deque([x, N])",
        lambda n: _cases("f", {"args": [1], "expected": {"deque": [1, n]}}),
    ),
    (
        "named tuple",
        "Pair = namedtuple('Pair', 'a b')\ndef f(x): return Pair(x, N)",
        lambda n: _cases("f", {"args": [1], "expected": {"namedtuple": ["Pair", ["a", "b"], [1, n]]}}),
    ),
    (
        "dataclass",
        "@dataclass\nclass Point:\n    x: int\n    y: int\ndef f(x): return Point(x, N)",
        lambda n: _cases("f", {"args": [1], "expected": {"record": ["Point", [["x", 1], ["y", n]]]}}),
    ),
    (
        "enumeration",
        "class Color(Enum):\n    RED = N\n    BLUE = -1\ndef f(x): return Color(x)",
        lambda n: _cases(
            "f", {"args": [n], "expected": {"record": ["Color", [["name", "RED"], ["value", n]]]}}
        ),
    ),
    ("decimal", "def f(x): return Decimal('0.1') * N", lambda n: _asserts("f", f"assert f(0) * 10 == {n}")),
    (
        "fraction",
        "def f(x): return Fraction(N, x)",
        lambda n: _cases("f", {"args": [7], "expected": _fraction(n, 7)}),
    ),
    (
        "date",
        "def f(x): return datetime.date(2024, 1, 1) + datetime.timedelta(x + N)",
        lambda n: _asserts("f", f"assert f(1).isoformat() == '2024-01-{n + 2:02}'"),
    ),
    (
        "not a number",
        "def f(x): return [float('nan'), N]",
        lambda n: _cases("f", {"args": [1], "expected": [_NAN, n]}),
    ),
    ("bytes", "def f(x): return bytes([x, N])", lambda n: _asserts("f", f"assert f(1) == bytes([1, {n}])")),
    (
        "a generator",
        "def f():\n    at = N\n    while True:\n        yield at\n        at += 2",
        lambda n: _asserts("f", f"g = f()\nassert [next(g) for _ in range(3)] == [{n}, {n + 2}, {n + 4}]"),
    ),
    (
        "a generator's items",
        "def f(x):\n    yield from range(x, x + N)",
        lambda n: _cases("f", {"args": [2], "expected": {"iterator": list(range(2, 2 + n))}}),
    ),
    (
        "a callback",
        "def f(g, xs): return [g(x) + N for x in xs]",
        lambda n: _asserts("f", f"assert f(lambda x: x * x, [2, 3]) == [{4 + n}, {9 + n}]"),
    ),
    (
        "calls back",
        "def f(seen):\n    for x in (N, 2): seen(x)",
        lambda n: _asserts("f", f"log = []\nf(log.append)\nassert log == [{n}, 2]"),
    ),
    (
        "a closure",
        "def f(x): return lambda y: x + y + N",
        lambda n: _asserts("f", f"assert f(1)(2) == {3 + n}"),
    ),
    (
        "a decorator",
        "def f(g):\n    return lambda *a: g(*a) + N",
        lambda n: _asserts("f", f"@f\ndef two(x):\n    return 2 * x\nassert two(4) == {8 + n}"),
    ),
    (
        "changes in place",
        "def f(xs):\n    xs.append(N)\n    xs.sort()",
        lambda n: _asserts("changes f", f"xs = [50, -5]\nassert f(xs) is None and xs == [-5, {n}, 50]"),
    ),
    (
        "changed arguments",
        "def f(xs, table):\n    xs[0] = N\n    table['k'] = [N]",
        lambda n: _cases("f", {"args": [[0], _table("a", 1)], "after": [[n], _table("a", 1, "k", [n])]}),
    ),
    (
        "an exception",
        "def f(x):\n    if x < N: raise ValueError(f'{x} is below {N}')\n    return x",
        lambda n: _cases(
            "f",
            {"args": [-1], "raises": "ValueError", "message": f"-1 is below {n}"},
            {"args": [60], "expected": 60},
        ),
    ),
    (
        "an exception of its own",
        "class Low(ValueError): pass\ndef f(x):\n    if x < N: raise Low(x, N)\n    return x",
        lambda n: _asserts(
            "f, exception Low",
            f"try:\n    f(-1)\n    assert False\nexcept Low as e:\n    assert e.args == (-1, {n})",
            "try:\n    f(-1)\n    assert False\nexcept ValueError:\n    assert f(60) == 60",
        ),
    ),
    (
        "a class",
        "class Stack:\n    def __init__(self, *xs): self.xs = [N, *xs]\n    def push(self, x):\n"
        "        self.xs.append(x)\n        return self\n    def pop(self): return self.xs.pop()\n"
        "    def __len__(self): return len(self.xs)\n    def __iter__(self): return iter(self.xs)",
        lambda n: _asserts(
            "class Stack",
            f"s = Stack(1)\ns.push(2).push(3)\nassert len(s) == 4 and s.pop() == 3 and list(s) == [{n}, 1, 2]",
        ),
    ),
    (
        "a sequence of calls",
        "class Account:\n    def __init__(self, b): self.b = b + N\n"
        "    def put(self, x):\n        self.b += x\n        return self.b\n"
        "    def take(self, x):\n        self.b -= x\n        return self.b",
        lambda n: _cases(
            "Account", {"args": [1], "calls": [["put", [2]], ["take", [1]]], "expected": [n + 3, n + 2]}
        ),
    ),
    (
        "objects as arguments",
        "class Node:\n    def __init__(self, v, next=None): self.v, self.next = v, next\n"
        "def f(head):\n    t = N\n    while head: t, head = t + head.v, head.next\n    return t",
        lambda n: _asserts("f, class Node", f"assert f(Node(1, Node(2))) == {n + 3}"),
    ),
    (
        "a coroutine",
        "async def f(x):\n    await asyncio.sleep(0)\n    return x + N",
        lambda n: _asserts("f", f"assert asyncio.run(f(1)) == {n + 1}", setup="import asyncio"),
    ),
    (
        "a coroutine's result",
        "async def f(x): return x + N",
        lambda n: _cases("f", {"args": [1], "expected": n + 1}),
    ),
    (
        "a context",
        "class Box:\n    def __init__(self): self.v = 0\n    def __enter__(self):\n        self.v = N\n"
        "        return self\n    def __exit__(self, *e): self.v = -1",
        lambda n: _asserts(
            "class Box", f"b = Box()\nwith b as c:\n    assert c is b and b.v == {n}\nassert b.v == -1"
        ),
    ),
    (
        "a program",
        "print(int(input()) + N)",
        lambda n: {"kind": "programs", "runs": [{"stdin": "3\n", "stdout": f"{n + 3}\n"}]},
    ),
]


def _fraction(top: int, bottom: int) -> dict[str, Any]:
    return {"fraction": [top, bottom]}


def _table(*pairs: Any) -> dict[str, Any]:
    return {"dict": [[pairs[i], pairs[i + 1]] for i in range(0, len(pairs), 2)]}


NUMBERS = (3, 5, 8, 11, 13, 17, 19)  # coprime to 7, and days of a January
TASKS = [
    ProtocolTask(f"{name} {n}", HEAD + re.sub(r"\bN\b", str(n), program), tests(n))
    for name, program, tests in TEMPLATES
    for n in NUMBERS
]


def off_by_one(task: ProtocolTask) -> str | None:
    """The task's own number one larger, everywhere."""
    n = task.name.rpartition(" ")[2]
    return HEAD + re.sub(rf"\b{n}\b", str(int(n) + 1), task.program.removeprefix(HEAD))


def nothing(task: ProtocolTask) -> str | None:
    """Every function does nothing."""
    tree = ast.parse(task.program)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for function in functions:
        function.body = [ast.Pass()]
    return ast.unparse(tree) if functions else None


def opaque(task: ProtocolTask) -> str | None:
    """Every value returned is an object that equals everything."""
    yes = "type('Yes', (), {'__eq__': lambda s, o: True, '__hash__': lambda s: 0, '__len__': lambda s: 4})()"
    tree = ast.parse(task.program)
    returned = [node for node in ast.walk(tree) if isinstance(node, ast.Return) and node.value is not None]
    for node in returned:
        node.value = ast.parse(yes, mode="eval").body
    return ast.unparse(tree) if returned else None


WRONG: dict[str, Callable[[ProtocolTask], str | None]] = {
    "off by one": off_by_one,
    "does nothing": nothing,
    "equals everything": opaque,
}
