"""The registry is gymnasium's. This module finds what is in it, and what could be.

An id is known when it comes from one of three places:

1. the built-in environments;
2. an installed package with an entry point in the group `vertigym.environments`. One that is named like an
   environment (`"acme/Loan-v0" = "acme_loan"`) points to a module with `load_environment(**kwargs) -> Env`, or
   to such a function, and is imported when the environment is made. Any other is imported at once: a module
   whose import calls `register`, or a callable that does;
3. a folder with an `env.toml`: under `./environments`, under a folder named in `VERTIGYM_PATH`, or given as
   a path in place of an id. Its `kind` says what opens it: one of ours, or of an installed package that names
   `load(folder: EnvFolder, **changes) -> Env` in the entry-point group `vertigym.kinds`.

A module with `load_environment` that is not installed may be named in place of an id, too: `my_envs.loan`.
So may an environment of another program be, by the program's name and what it knows it under:
`gymnasium:FrozenLake-v1`, `openenv:http://localhost:8000`. An installed package adds such a program by naming
`load(name: str, **kwargs) -> Env` in the entry-point group `vertigym.sources`.
Arguments follow a question mark, in every command and config: `vertigym/Arithmetic-v0?level=3&digits=true`.
Every folder takes `trust=true`: it may then name code, files outside, or another machine.

A package that fails to load never hides the others: its error is kept and shown where it matters.
"""

import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.envs.registration import registry as _gymnasium_registry

from vertigym.core.config import toml_value
from vertigym.core.errors import InputError, UnknownNameError, VertigymError
from vertigym.core.plugins import find_plugin, load_plugin, plugins
from vertigym.core.types import Task
from vertigym.envs.env import Env
from vertigym.envs.folders import EnvFolder

GROUP = "vertigym.environments"
KINDS = "vertigym.kinds"
SOURCES = "vertigym.sources"
SEARCH_PATH = "VERTIGYM_PATH"
_HERE = "environments"

# Kind of a folder environment -> the function that opens the folder.
BUILT_IN_KINDS: dict[str, str] = {
    "agent": "vertigym.envs.agent.env:load",
    "cite": "vertigym.envs.logged.kinds:load_cite",
    "classify": "vertigym.envs.logged.kinds:load_classify",
    "code": "vertigym.envs.code.env:load_folder",
    "decision": "vertigym.envs.decision.env:load",
    "extract": "vertigym.envs.logged.kinds:load_extract",
    "harbor": "vertigym.envs.harbor.env:load",
    "mcp": "vertigym.envs.mcp.env:load",
    "outcome": "vertigym.envs.logged.kinds:load_outcome",
    "program": "vertigym.envs.program.env:load",
    "rewrite": "vertigym.envs.logged.kinds:load_rewrite",
    "rows": "vertigym.envs.rows:load",
}

# Another program -> what opens its environments, by name: that room lies above this one.
BUILT_IN_SOURCES: dict[str, str] = {
    "gymnasium": "vertigym.interop.gymnasium_text:load",
    "nemo-gym": "vertigym.interop.nemo_gym_client:load",
    "openenv": "vertigym.interop.openenv_client:load",
    "verifiers": "vertigym.interop.verifiers_program:load",
}

# Modules that register the environments vertigym ships.
BUILT_IN: tuple[str, ...] = (
    "vertigym.envs.decision.builtin",
    "vertigym.envs.code.builtin",
    "vertigym.envs.math.builtin",
)


@dataclass(frozen=True, slots=True)
class EnvSpec:
    """What is known of an environment before it is made. `source`: built-in, a package's name, or a folder."""

    id: str
    source: str
    description: str = ""
    folder: EnvFolder | None = None
    entry_point: str = ""  # of a module that is not registered, or of what opens another program's
    foreign: str = ""  # what another program knows it under


_specs: dict[str, EnvSpec] = {}
_broken: dict[str, str] = {}
_discovering = threading.RLock()
_discovered = False


def register(
    id: str,  # noqa: A002 (gymnasium's name)
    entry_point: Callable[..., Env] | str,
    *,
    description: str = "",
    source: str = "",
    **kwargs: Any,
) -> None:
    """Put an environment into gymnasium's registry under `namespace/Name-v0`; `kwargs` go to `entry_point`.

    Raises:
        ValueError: the id has no namespace or no version.
    """
    if not is_env_id(id):
        raise ValueError(f"environment id {id!r}: the form is namespace/Name-v0")
    if id in _gymnasium_registry:
        return
    gymnasium.register(
        id, entry_point=entry_point, kwargs=kwargs, disable_env_checker=True, order_enforce=False
    )
    module = entry_point.partition(":")[0] if isinstance(entry_point, str) else entry_point.__module__
    _specs[id] = EnvSpec(id, source or module.partition(".")[0], description)


def is_env_id(id: str) -> bool:  # noqa: A002
    """Whether it has the form namespace/Name-v0."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+-v\d+", id) is not None


def ids() -> list[str]:
    """Every known id: of folders first, then built in, then of packages."""
    _discover()
    folders = {found.id for found in _folders()}
    own = folders | {name for name, found in _specs.items() if found.source == "vertigym"}
    return sorted(own | set(_specs), key=lambda name: (name not in folders, name not in own, name))


def spec(id: str) -> EnvSpec:  # noqa: A002
    """What is known of `id`, which may also be the path of a folder.

    Raises:
        UnknownNameError: nothing is registered under it (suggests near names).
    """
    _discover()
    id = id.partition("?")[0]  # noqa: A001
    if id in _specs:
        return _specs[id]
    if (Path(id) / "env.toml").is_file():
        return _folder_spec(EnvFolder(Path(id)))
    for found in _folders():
        if found.id == id:
            return found
    program, colon, name = id.partition(":")
    if colon and (point := find_plugin(program, SOURCES, BUILT_IN_SOURCES)):
        return EnvSpec(id, program, entry_point=point.value, foreign=name)
    if "/" not in id and _has_module(id):
        return EnvSpec(id, id.partition(":")[0], entry_point=_with_function(id))
    hints = [places(), *(f"{name} failed to load: {why}" for name, why in _broken.items())]
    raise UnknownNameError("environment", id, ids(), "; ".join(hints))


def absolute(id: str) -> str:  # noqa: A002
    """`id` as a process in another working directory finds it: a folder by its full path.

    Raises:
        UnknownNameError: as `spec`.
    """
    folder, (name, mark, arguments) = spec(id).folder, id.partition("?")
    return f"{folder.path.resolve() if folder else name}{mark}{arguments}"


def places() -> str:
    """Where environments were looked for, and what would bring more."""
    paths = os.environ.get(SEARCH_PATH, "")
    looked = f"Looked among the built-in ones, installed packages, folders under ./{_HERE}"
    more = "" if find_spec("reasoning_gym") else "; pip install 'vertigym[reasoning-gym]' brings about 100 more"
    return f"{looked} and {paths or f'${SEARCH_PATH} (unset)'}{more}"


def broken() -> dict[str, str]:
    """Packages whose entry point failed to load, and why."""
    _discover()
    return dict(_broken)


def make(id: str, **kwargs: Any) -> Env:  # noqa: A002
    """Make an environment by id or by folder.

    Raises:
        UnknownNameError: no such id. InputError: it cannot be made from what its folder or package holds.
    """
    found = spec(id)
    kwargs = _arguments(id) | kwargs
    if found.folder:
        found.folder.trusted = kwargs.pop("trust", False) is True
        env: object = _load_folder(found.folder, **kwargs)
    elif found.entry_point:
        env = _load_module(found.entry_point, *filter(None, [found.foreign]), **kwargs)
    else:
        env = gymnasium.make(found.id, **kwargs).unwrapped
    if not isinstance(env, Env):
        raise InputError(f"{id}: made a {type(env).__name__}, which is not a vertigym.envs.Env")
    return env


def held_out(id: str) -> Iterator[Task]:  # noqa: A002
    """The eval and test tasks of an environment.

    Raises:
        UnknownNameError, InputError: as in `make`.
    """
    tasks = make(id).tasks
    return (tasks.get(task_id) for split in ("eval", "test") for task_id in tasks.ids(split))


def _discover() -> None:
    """Register built-in environments and load the entry points, once; other threads wait for it."""
    global _discovered
    with _discovering:
        if not _discovered:
            _discovered = True  # what is loaded may ask for the ids itself
            _register_all()


def _register_all() -> None:
    for module in BUILT_IN:
        import_module(module)
    for point in entry_points(group=GROUP):
        name = point.dist.name if point.dist else point.name
        before = set(_gymnasium_registry)
        try:
            if "/" in point.name:
                summary = str(point.dist.metadata["Summary"] or "") if point.dist else ""
                register(point.name, _with_function(point.value), description=summary, source=name)
                continue
            loaded = point.load()
            if callable(loaded):
                loaded()
        except Exception as error:  # somebody else's code: whatever it raises, the others stay usable
            _broken[name] = f"{type(error).__name__}: {error}"
            continue
        for new in set(_gymnasium_registry) - before:
            description = _specs[new].description if new in _specs else ""
            _specs[new] = EnvSpec(new, name, description)


def _arguments(id: str) -> dict[str, Any]:  # noqa: A002
    """What follows the question mark; values are read as TOML, and as plain strings when they are not TOML."""
    arguments: dict[str, Any] = {}
    for pair in filter(None, id.partition("?")[2].split("&")):
        key, equals, text = pair.partition("=")
        if not equals or not key.isidentifier():
            raise InputError(f"{id}: {pair!r} is not an argument: the form is ID?key=value&key=value")
        arguments[key] = toml_value(text, id[:80])
    return arguments


def _with_function(path: str) -> str:
    """`package.module` -> `package.module:load_environment`."""
    return path if ":" in path else f"{path}:load_environment"


def _has_module(path: str) -> bool:
    try:
        return find_spec(path.partition(":")[0]) is not None
    except (ImportError, ValueError):
        return False


def _load_module(entry_point: str, *names: str, **kwargs: Any) -> object:
    module, _, function = entry_point.partition(":")
    load = getattr(import_module(module), function, None)
    if load is None:
        raise InputError(f"module {module} has no function {function}(**kwargs) that returns an environment")
    return load(*names, **kwargs)


def _folders() -> Iterator[EnvSpec]:
    """Folder environments on the search path."""
    roots = [Path(_HERE), *(Path(p) for p in os.environ.get(SEARCH_PATH, "").split(os.pathsep) if p)]
    for root in roots:
        for file in sorted(root.glob("*/env.toml")):
            try:
                yield _folder_spec(EnvFolder(file.parent))
            except VertigymError as error:
                warnings.warn(f"skipped {file}: {error}", stacklevel=2)


def _folder_spec(folder: EnvFolder) -> EnvSpec:
    id = folder.table.get("id")  # noqa: A001
    if not isinstance(id, str):
        raise InputError(f"{folder.config_file}: key 'id' is missing (the form is namespace/Name-v0)")
    if not is_env_id(id):
        raise InputError(f"{folder.config_file}: id {id!r}: the form is namespace/Name-v0")
    return EnvSpec(id, str(folder.path), str(folder.table.get("description", "")), folder)


def _load_folder(folder: EnvFolder, **kwargs: Any) -> object:
    kind = str(folder.table.get("kind"))
    if (point := find_plugin(kind, KINDS, BUILT_IN_KINDS)) is None:
        raise UnknownNameError(f"kind (in {folder.config_file})", kind, plugins(KINDS, BUILT_IN_KINDS))
    return load_plugin(point)(folder, **kwargs)
