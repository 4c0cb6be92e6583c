"""What a policy is shown of the module that lacks a function: imports, the function's signature and docstring,
its class without the bodies of other methods (they may be other tasks), and the names that the module has."""

import ast

from vertigym.rewards.removed_body import hollow, places

_NAMED = 40
_DOC = 1500  # characters of a class's docstring


def prompt_of(source: str, module: str, name: str) -> str:
    """The prompt for `name` of a module."""
    place, body = places(source)[name], ast.parse(source).body
    imports = [ast.unparse(one) for one in body if isinstance(one, ast.Import | ast.ImportFrom)]
    shown = _skeleton(place.owner, place.node) if place.owner else hollow(source, name).rstrip()
    others = [one for one in _defined(body) if one != name.partition(".")[0]][:_NAMED]
    also = f"\n\nThe module also has: {', '.join(others)}." if others else ""
    what = "method" if place.owner else "function"
    code = "\n".join([*imports, *([""] if imports else []), shown])
    return (
        f"The {what} `{name}` of the module `{module}` has lost its body. Write the {what} anew, with its "
        f"signature; hidden tests call it. Answer with one Python code block.\n\n```python\n{code}\n```{also}"
    )


def _skeleton(owner: ast.ClassDef, wanted: ast.AST) -> str:
    """A class with `...` for the bodies of its methods; the wanted one keeps its docstring."""
    nothing: ast.stmt = ast.Expr(ast.Constant(...))
    body: list[ast.stmt] = []
    for one in owner.body:
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef):
            documented = one is wanted and ast.get_docstring(one) is not None
            kept = [one.body[0]] if documented else []
            body.append(type(one)(**{**vars(one), "body": [*kept, nothing]}))
        elif isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant):
            body.append(ast.Expr(ast.Constant(str(one.value.value)[:_DOC])))
        elif not isinstance(one, ast.ClassDef):
            body.append(one)
    return ast.unparse(ast.fix_missing_locations(ast.ClassDef(**{**vars(owner), "body": body})))


def _defined(body: list[ast.stmt]) -> list[str]:
    names: list[str] = []
    for one in body:
        match one:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.append(name)
            case ast.Assign(targets=[ast.Name(id=name)]) if not name.startswith("__"):
                names.append(name)
    return list(dict.fromkeys(names))
