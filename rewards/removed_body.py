"""One function of a package taken out of its module, and another one put in its place.

    hollow(source, "Basket.total")             its signature and docstring, without the body
    answered(source, "Basket.total", program)  the module with the function that `program` defines

The one idea: only the text of the function changes. Its decorators, and everything around it, stay the
module's own; the mark (`sandboxes.memory_tests`) goes on the function, or on the class of a method.
"""

import ast
import io
import textwrap
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import TypeAlias

from vertigym.sandboxes.memory_tests import MARK

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Place:
    """Where a function stands: lines (from 0) of its first decorator, its `def`, and the one after its end; of
    its class's first line, if it is a method."""

    node: Function
    decorated: int
    line: int
    end: int
    owner: ast.ClassDef | None
    owner_line: int

    @property
    def indent(self) -> str:
        """Before its first word."""
        return " " * self.node.col_offset


def dotted(path: str) -> str:
    """`shop/prices.py` -> `shop.prices`, `shop/__init__.py` -> `shop`."""
    parts = PurePosixPath(path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def places(source: str) -> dict[str, Place]:
    """The functions of a module and the methods of its classes that stand there once.

    Raises:
        SyntaxError, ValueError, RecursionError: it is not Python.
    """
    return _places(source)[0]


def repeated(source: str) -> frozenset[str]:
    """Those that stand there more than once, as a property and its setter do. Raises as `places`."""
    return _places(source)[1]


@lru_cache(maxsize=256)
def _places(source: str) -> tuple[dict[str, Place], frozenset[str]]:
    found: dict[str, Place] = {}
    twice: set[str] = set()
    for node in _parsed(source).body:
        owner = node if isinstance(node, ast.ClassDef) else None
        for one in owner.body if owner else [node]:
            if isinstance(one, Function):
                name = f"{owner.name}.{one.name}" if owner else one.name
                twice |= {name} & {*found}
                found[name] = Place(one, _first(one), one.lineno - 1, one.end_lineno or 0, owner, _first(owner))
    return {name: place for name, place in found.items() if name not in twice}, frozenset(twice)


def original(source: str, name: str) -> str:
    """The function as it stands there, without its docstring."""
    place, lines = places(source)[name], _lines(source)
    body = place.node.body
    if not _documented(place.node) or len(body) == 1 or _shares_a_line(place, lines):
        return textwrap.dedent("".join(lines[place.decorated : place.end]))
    after = body[0].end_lineno or 0
    return textwrap.dedent("".join([*lines[place.decorated : _first(body[0])], *lines[after : place.end]]))


def hollow(source: str, name: str) -> str:
    """The function without its body: its decorators, signature and docstring, as text."""
    place, lines = places(source)[name], _lines(source)
    if _shares_a_line(place, lines):
        bare = type(place.node)(**{**vars(place.node), "body": [ast.Pass()]})
        return ast.unparse(ast.fix_missing_locations(bare)).removesuffix("    pass")
    first = place.node.body[0]
    end = (first.end_lineno or 0) if _documented(place.node) else max(place.line + 1, _first(first))
    return textwrap.dedent("".join(lines[place.decorated : end]))


def marked(source: str, name: str) -> str:
    """The module with the mark on its own function."""
    place, lines = places(source)[name], _lines(source)
    return "".join(_with_mark(lines[: place.line], place) + lines[place.line :])


def answered(source: str, name: str, program: str) -> str:
    """The module with the function of that name that `program` defines; what else is in it goes before.

    Raises:
        SyntaxError, ValueError, RecursionError: it is not Python. NameError: it defines no such function.
    """
    place, lines, short = places(source)[name], _lines(source), name.rpartition(".")[2]
    tree = _parsed(program)
    found = [one for one in ast.walk(tree) if isinstance(one, Function) and one.name == short]
    if not found:
        raise NameError(f"the answer defines no function {short!r}")
    function = found[-1]
    around = [one for one in tree.body if function not in ast.walk(one) and not _is_future(one)]
    function.decorator_list = []
    if _documented(place.node) and not _documented(function):
        function.body.insert(0, place.node.body[0])
    extra = "".join(f"{ast.unparse(one)}\n" for one in around)
    body = textwrap.indent(ast.unparse(function), place.indent) + "\n"
    before = place.owner_line if place.owner else place.decorated
    head = _with_mark([*lines[:before], extra, *lines[before : place.line]], place)
    return "".join([*head, body, *lines[place.end :]])


def _with_mark(head: list[str], place: Place) -> list[str]:
    """The lines before a `def` with the mark: right above it, or above the class."""
    if place.owner is None:
        return [*head, f"{place.indent}@{MARK}\n"]
    at = len(head) - (place.line - place.owner_line)
    return [*head[:at], f"@{MARK}\n", *head[at:]]


def _documented(node: Function) -> bool:
    return ast.get_docstring(node, clean=False) is not None


def _shares_a_line(place: Place, lines: list[str]) -> bool:
    """Whether the body begins on the line that ends the signature."""
    first = place.node.body[0]
    before = lines[first.lineno - 1].encode()[: first.col_offset]
    return _first(first) == first.lineno - 1 and bool(before.strip())


def _first(node: ast.stmt | None) -> int:
    """The first line, from 0, of a definition with its decorators."""
    if node is None:
        return 0
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(one.lineno for one in decorators)]) - 1


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def _lines(source: str) -> list[str]:
    """As the parser counts them: a form feed ends no line."""
    return io.StringIO(source if source.endswith("\n") else source + "\n", newline=None).readlines()


def _parsed(source: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(source)
