"""Environments as packages of other programs: a few lines that name the environment, over a runtime in
vertigym.

The package works where vertigym is installed beside it. An environment that is a folder travels in the
package.
"""

import re
import shutil
from pathlib import Path

from vertigym.core.errors import InputError, UnknownNameError
from vertigym.core.files import whole_folder, write_text
from vertigym.envs import registry
from vertigym.envs.scaffold import package_metadata

_INSPECT = '''\
"""{id} as a task of Inspect: `inspect eval {module}/{task} --model MODEL`."""

from inspect_ai import Task, task

from vertigym.core.types import Split
from vertigym.interop.inspect_tasks import environment_task
{imports}
ENVIRONMENT = {environment}


@task
def {task}(split: Split = "eval", limit: int | None = None) -> Task:
    """The tasks of a split, or the first `limit`; the score is the environment's."""
    return environment_task(ENVIRONMENT, split, limit)
'''

_VERIFIERS = '''\
"""{id} for verifiers: `vf-eval {module} -m MODEL`."""

from vertigym.interop.verifiers_tasks import EnvironmentPlay, EnvironmentTaskset
{imports}
ENVIRONMENT = {environment}


class {title}Taskset(EnvironmentTaskset):
    """The tasks; `--env.taskset.split` says which."""

    environment = ENVIRONMENT


class {title}Env(EnvironmentPlay):
    """The episodes."""

    environment = ENVIRONMENT


__all__ = ["{title}Env", "{title}Taskset"]
'''

_ENTRY_POINT = '\n[project.entry-points.inspect_ai]\n{module} = "{module}"\n'
NEIGHBOURS = {
    "inspect": (_INSPECT, "inspect-ai>=0.3.280", _ENTRY_POINT),
    "verifiers": (_VERIFIERS, "verifiers>=0.4", ""),
}


def export_environment(env_id: str, neighbour: str, out: Path) -> str:
    """Write a package for `neighbour` to the new folder `out`, whole or not at all; its module's name.

    Raises:
        UnknownNameError: no such environment or neighbour. InputError: the folder exists.
    """
    if neighbour not in NEIGHBOURS:
        raise UnknownNameError("program to export to", neighbour, NEIGHBOURS)
    if out.exists():
        raise InputError(f"{out} exists: choose another folder, or remove it")
    found = registry.spec(env_id)
    registry.make(env_id)  # what cannot be made here cannot be made there
    template, requirement, entry_point = NEIGHBOURS[neighbour]
    words = _words(found.id, f"_{neighbour}")
    arguments = "".join(env_id.partition("?")[1:])
    environment = f"{found.id + arguments!r}".replace("'", '"')
    imports = ""
    if found.folder:
        imports = "\nfrom pathlib import Path\n"
        environment = f'str(Path(__file__).with_name("environment")) + "{arguments}"'
    words |= {"environment": environment, "imports": imports, "id": found.id}
    description = f"{found.id} of vertigym for {neighbour}"
    metadata = package_metadata(words, description, "environment/**", entry_point, requirement)
    with whole_folder(out) as beside:
        write_text(beside / "pyproject.toml", metadata)
        write_text(beside / words["module"] / "__init__.py", template.format(**words))
        if found.folder:
            shutil.copytree(found.folder.path, beside / words["module"] / "environment")
    return words["module"]


def _words(env_id: str, suffix: str) -> dict[str, str]:
    """`acme/TicketDesk-v0` as names of a distribution, a module, a function and a class."""
    pieces = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", env_id.rpartition("-v")[0] or env_id)
    module = "_".join(pieces).lower() + suffix
    title = "".join(piece[0].upper() + piece[1:] for piece in pieces)
    task = "_".join(pieces[1:] or pieces).lower()
    return {"module": module, "distribution": module.replace("_", "-"), "task": task, "title": title}
