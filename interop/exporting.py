"""Environments as packages of other programs: a few lines that name the environment, over a runtime in
vertigym.

The package works where vertigym is installed beside it, or, vendored, with what it needs of vertigym inside it.
An environment that is a folder travels in the package.
"""

import json
import re
import shutil
from pathlib import Path

from vertigym.core.errors import InputError, UnknownNameError
from vertigym.core.files import whole_folder, write_jsonl, write_text
from vertigym.core.types import SPLITS
from vertigym.envs import registry
from vertigym.envs.scaffold import OWN, package_metadata
from vertigym.interop.export_templates import FLOOR_MARGIN, NEIGHBOURS
from vertigym.interop.harbor_tasks import write_harbor_tasks
from vertigym.interop.nemo_gym_server import nemo_gym_rows
from vertigym.interop.vendoring import FINDS, FOLDER, vendor

PROGRAMS = (*NEIGHBOURS, "harbor")


def export_environment(
    env_id: str, program: str, out: Path, *, vendored: bool = False, tasks: int = 100
) -> str:
    """Write a package for `program` to the new folder `out`, whole or not at all; its module's name.

    For Harbor that is a folder a task, at most `tasks` of each split, always with what scores it.

    Raises:
        UnknownNameError: no such environment or program. InputError: the folder exists, or the environment
            cannot be vendored.
    """
    if program not in PROGRAMS:
        raise UnknownNameError("program to export to", program, sorted(PROGRAMS))
    if out.exists():
        raise InputError(f"{out} exists: choose another folder, or remove it")
    env = registry.make(env_id)  # what cannot be made here cannot be made there
    with whole_folder(out) as beside:
        if program == "harbor":
            return write_harbor_tasks(env_id, env, beside, tasks)
        words = _write(env_id, program, beside, vendored=vendored)
        if program == "nemo-gym":
            for split in SPLITS:
                write_jsonl(beside / "data" / f"{split}.jsonl", nemo_gym_rows(env, split))
    return words["module"]


def _write(env_id: str, program: str, out: Path, *, vendored: bool) -> dict[str, str]:
    """The package; the words it is written with."""
    found, neighbour = registry.spec(env_id), NEIGHBOURS[program]
    words = _words(found.id, f"_{program}")
    home, arguments = out / words["module"], "".join(env_id.partition("?")[1:])
    environment = f"{found.id + arguments!r}".replace("'", '"')
    imports = ""
    if found.folder:
        imports = "\nfrom pathlib import Path\n" if not vendored else ""
        environment = f'str(Path(__file__).with_name("environment")) + "{arguments}"'
        shutil.copytree(found.folder.path, home / "environment")
    env = registry.make(env_id)
    low, high = env.ranges.get("score", (0.0, 1.0))
    words |= {
        "place": json.dumps((f"{words['module']}/environment" if found.folder else found.id) + arguments),
        "low": str(low),
        "high": str(high),
        "margin": str(round(FLOOR_MARGIN * (high - low), 6)),
        "environment": environment,
        "imports": imports,
        "id": found.id,
        "finds": FINDS if vendored else "",
    }
    words |= (
        {"agent": "gymnasium", "steps": "      max_steps: 64\n"}
        if env.max_turns > 1
        else {"agent": "simple", "steps": ""}
    )
    own = vendor(env_id, [neighbour.runtime], home / FOLDER) if vendored else [OWN]
    data = f'environment/**", "{FOLDER}/**' if vendored else "environment/**"
    about = f"{found.id} of vertigym for {program}"
    metadata = package_metadata(words, about, data, neighbour.entry_point, *own, *neighbour.requirements)
    write_text(out / "pyproject.toml", metadata)
    write_text(home / "__init__.py", neighbour.template.format(**words))
    for name, text in neighbour.files:
        write_text(out / name.format(**words), text.format(**words))
    return words


def _words(env_id: str, suffix: str) -> dict[str, str]:
    """`acme/TicketDesk-v0` as names of a distribution, a module, a function and a class."""
    pieces = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", env_id.rpartition("-v")[0] or env_id)
    module = ("_".join(pieces).lower() + suffix).replace("-", "_")
    title = "".join(piece[0].upper() + piece[1:] for piece in pieces)
    task = "_".join(pieces[1:] or pieces).lower()
    return {"module": module, "distribution": module.replace("_", "-"), "task": task, "title": title}
