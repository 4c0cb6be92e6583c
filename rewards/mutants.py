"""Wrong programs made from a right one, each by one small change: what tests ought to tell apart (DeMillo,
Lipton & Sayward 1978).

Some mutants mean the same as the original (`i < n` for `i != n`), so a survivor is a hint, no proof.
"""

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.FloorDiv,
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """A changed program, and what was changed in words."""

    program: str
    change: str


def mutants(program: str, most: int = 12) -> list[Mutant]:
    """Up to `most` mutants, spread evenly over the program; none of one that is not Python."""
    try:
        tree = ast.parse(program)
    except (SyntaxError, ValueError, RecursionError):
        return []
    places = [
        (at, name) for at, node in enumerate(ast.walk(tree)) for name, _ in _changes(node) if _executed(node)
    ]
    step = max(1, -(-len(places) // most))
    return [_made(tree, at, name) for at, name in places[::step]]


def _made(tree: ast.Module, at: int, name: str) -> Mutant:
    changed = copy.deepcopy(tree)
    node = list(ast.walk(changed))[at]
    before = ast.unparse(node)
    dict(_changes(node))[name](node)
    line = getattr(node, "lineno", 0)
    return Mutant(ast.unparse(changed), f"line {line}: `{before}` became `{ast.unparse(node)}`")


def _executed(node: ast.AST) -> bool:
    return hasattr(node, "lineno")


def _changes(node: ast.AST) -> Iterator[tuple[str, Callable[[Any], None]]]:
    """The ways to change a node in place, by name."""
    match node:
        case ast.Compare(ops=[op]) if type(op) in _COMPARED:
            yield "comparison", lambda n: n.ops.__setitem__(0, _COMPARED[type(n.ops[0])]())
        case ast.BinOp(op=op) if type(op) in _COMPUTED:
            yield "operator", lambda n: setattr(n, "op", _COMPUTED[type(n.op)]())
        case ast.BoolOp():
            yield "and or", lambda n: setattr(n, "op", ast.Or() if isinstance(n.op, ast.And) else ast.And())
        case ast.Constant(value=bool()):
            yield "truth", lambda n: setattr(n, "value", not n.value)
        case ast.Constant(value=int()):
            yield "one more", lambda n: setattr(n, "value", n.value + 1)
            yield "one less", lambda n: setattr(n, "value", n.value - 1)
        case ast.Return(value=ast.expr()):
            yield "nothing", lambda n: setattr(n, "value", ast.Constant(None))
