"""What names mean while a model is walked symbolically: bindings of dotted paths.

An `Env` says what was written where; a name is looked up as the engine would: bound itself, inside something
bound, or around something bound (then unknown).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vertigym.decisions.model import Node


@dataclass(frozen=True, slots=True)
class Const:
    """A known value."""

    value: Any


@dataclass(frozen=True, slots=True)
class Symbol:
    """An unknown value; equal names are equal values. That of an input field is its dotted path."""

    name: str


Bound = Const | Symbol
Env = dict[str, Bound]  # dotted path -> what was written there; "" is the root


def named(name: str, env: Env, node: Node, own: Env) -> Bound:
    """What a name means inside a node."""
    if name.startswith("$root."):
        return lookup(name.removeprefix("$root."), env)
    if name.startswith("$.") and name.removeprefix("$.").partition(".")[0] in {
        p.partition(".")[0] for p in own
    }:
        return lookup(name.removeprefix("$."), own)
    if name[0] in "$#" or node.scope.endswith("[]"):
        return Symbol(f"{node.id}:{name}")
    return lookup(join(node.scope, name), env)


def lookup(path: str, env: Mapping[str, Bound]) -> Bound:
    """The value at `path`: bound itself, inside something bound, or around something bound (then unknown)."""
    if any(key.startswith(f"{path}.") for key in env):
        return Symbol(f"around {path} in {frozen({'': env})}")
    parts = path.split(".")
    for size in range(len(parts), -1, -1):
        head = ".".join(parts[:size])
        if head not in env:
            continue
        bound, rest = env[head], parts[size:]
        if isinstance(bound, Const):
            value = bound.value
            for part in rest:
                value = value.get(part) if isinstance(value, dict) else None
            return Const(value)
        return Symbol(".".join(part for part in (bound.name, *rest) if part))
    return Symbol(f"?{path}")


def written(env: Env, path: str, value: Bound, keep: bool) -> Env:
    """`env` with `value` at `path` (at the root where that is empty). The engine merges records, so a record is
    written leaf by leaf."""
    out: Env = dict(env) if keep else {"": Const({})}
    if isinstance(value, Const) and isinstance(value.value, dict) and value.value:
        for key, item in value.value.items():
            out = written(out, join(path, key), Const(item), True)
        return out
    out = {key: v for key, v in out.items() if not (path and key.startswith(f"{path}."))} if path else {}
    out[path] = value
    return out


def merged(envs: Sequence[Env], node: str) -> Env:
    """What several nodes hand on together. Where they differ it is unknown which of them wins."""
    if len(envs) == 1:
        return envs[0]
    merged: Env = {}
    for path in dict.fromkeys(path for env in envs for path in env):
        given = [lookup(path, env) for env in envs if path == "" or not _says_nothing(env, path)]
        same = all(value == given[0] for value in given)
        merged[path] = given[0] if same else Symbol(f"{node}?{path}")
    roots = {env.get("") for env in envs if not isinstance(env.get(""), Const)}
    if len(roots) == 1 and all(env.get("") in (*roots, Const({})) for env in envs):
        merged[""] = next(iter(roots)) or merged[""]
    return merged


def _says_nothing(env: Env, path: str) -> bool:
    """Whether `env` is only what a node wrote, and nothing of that is at, under or around `path`."""
    near = any(p and (path == p or path.startswith(f"{p}.") or p.startswith(f"{path}.")) for p in env)
    return env.get("") == Const({}) and not near


def frozen(outs: Mapping[str, Mapping[str, Bound]]) -> Any:
    """Environments as something that can be compared and hashed."""
    return tuple(
        (node, tuple(sorted((p, repr(v)) for p, v in env.items()))) for node, env in sorted(outs.items())
    )


def join(prefix: str, name: str) -> str:
    """Two parts of a dotted path."""
    return f"{prefix}.{name}" if prefix and name else prefix or name
