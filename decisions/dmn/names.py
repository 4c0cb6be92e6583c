"""Which names an expression asks its surroundings for."""

from collections.abc import Collection, Iterator

from vertigym.decisions.dmn.elements import Element
from vertigym.feel import Expr, UnaryTests
from vertigym.feel.syntax import (
    Call,
    ContextNode,
    Filter,
    For,
    FunctionNode,
    Path,
    Quantified,
    Variable,
)


def language_of(element: Element, outer: str) -> str:
    """The expression language that an element states, or the one around it."""
    return str(element.get("expressionLanguage") or outer)


def free_names(tree: Expr | UnaryTests, known: Collection[str] = ()) -> Iterator[tuple[str, ...]]:
    """Names that a tree does not bind itself and that are not in `known`, each time they come, with the fields
    that
    are asked of them. What stands in a filter may be a field of what is filtered, so it asks for nothing."""
    if isinstance(tree, UnaryTests):
        for test in tree.tests:
            yield from free_names(test, known)
        return
    match tree:
        case Variable() | Path():
            path, root = dotted(tree)
            if not isinstance(root, Variable):
                yield from free_names(root, known)
            elif path[0] not in known and path[0] != "?":
                yield path
        case Filter(source=source):
            yield from free_names(source, known)
        case FunctionNode(parameters=parameters, body=body):
            yield from free_names(body, {*known, *parameters})
        case For(iterations=iterations, body=body) | Quantified(iterations=iterations, body=body):
            inner = {*known, "partial"}
            for one in iterations:
                yield from free_names(one.domain, inner)
                if one.end is not None:
                    yield from free_names(one.end, inner)
                inner.add(one.name)
            yield from free_names(body, inner)
        case ContextNode(entries=entries):
            inner = set(known)
            for key, value in entries:
                yield from free_names(value, inner)
                inner.add(key)
        case Call(function=Variable(), arguments=arguments):
            for argument in arguments:
                yield from free_names(argument, known)
        case _:
            for part in tree.children():
                yield from free_names(part, known)


def dotted(tree: Expr) -> tuple[tuple[str, ...], Expr]:
    """The parts of a path, and what it starts from (whose name is the first part where it is a variable)."""
    parts: list[str] = []
    while isinstance(tree, Path):
        parts.append(tree.name)
        tree = tree.source
    if isinstance(tree, Variable):
        parts.append(tree.name)
    return tuple(reversed(parts)), tree


def called_names(tree: Expr | UnaryTests) -> Iterator[str]:
    """Names that are invoked."""
    trees = tree.tests if isinstance(tree, UnaryTests) else (tree,)
    for each in trees:
        for part in each.walk():
            if isinstance(part, Call) and isinstance(part.function, Variable):
                yield part.function.name


def is_external(tree: Expr) -> bool:
    """Whether it defines a function in another language (Java, PMML)."""
    return any(isinstance(part, FunctionNode) and part.external for part in tree.walk())
