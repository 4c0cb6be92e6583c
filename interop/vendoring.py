"""What an environment needs to be played where vertigym is not installed: our modules and data, as files.

The one idea: nobody keeps a list. Another process makes the environment and plays it. What it has imported
then, whatever those modules import anywhere, and the folders whose data it has opened are copied. The copy is
tried before it is handed out: it has to give the same scores in a Python that does not know vertigym.
"""

import ast
import json
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from importlib.metadata import packages_distributions, requires
from pathlib import Path
from typing import Any

from vertigym.core.errors import InputError
from vertigym.envs import registry

FOLDER = "vendored"
FINDS = """\
import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec("vertigym") is None:
    sys.path.append(str(Path(__file__).with_name("vendored")))

"""
_HOME = Path(__file__).parents[1]
_PLAYED = 5  # tasks a split
_PLAY = """\
import json, sys
opened = set()
sys.addaudithook(lambda event, given: opened.add(str(given[0])) if event == "open" else None)
from vertigym.core.types import SPLITS
from vertigym.envs import registry
from vertigym.interop.played_episode import PlayedEpisode
env, scores = registry.make(sys.argv[1]), []
for split in SPLITS:
    for task in list(env.tasks.ids(split))[:int(sys.argv[2])]:
        for actions in (env.reference(env.tasks.get(task)) or [], ["nonsense"], [""]):
            episode = PlayedEpisode(env, task, "vendored")
            for action in actions:
                if not episode.over:
                    episode.step(action)
            score = episode.end()
            reason = str(score.evidence) if score.value is None else None
            scores.append([task, score.value, dict(score.parts), reason])
files = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
print(json.dumps({"scores": scores, "files": files, "opened": sorted(opened)}))
"""


def vendor(env_id: str, runtime: Iterable[str], out: Path) -> list[str]:
    """Copy what `env_id` and the `runtime` modules need to the folder `out`; the requirements of the copy.

    Raises:
        InputError: it is another package's environment, or the copy does not score as the original does.
    """
    found = registry.spec(env_id)
    if not found.folder and found.source != "vertigym":
        raise InputError(
            f"{env_id}: only folders and built-in environments can be vendored, not {found.source}'s"
        )
    known = registry.absolute(env_id)
    played = _play([sys.executable, "-P"], known)
    loaded = [name for name in played["files"] if name.partition(".")[0] == "vertigym"]
    modules = _closure({*loaded, *runtime})
    for module in modules:
        file = _file(module)
        _copy(file, out / "vertigym" / file.relative_to(_HOME))
    for file in map(Path, played["opened"]):
        if file.is_relative_to(_HOME) and file.is_file() and file.suffix not in (".py", ".pyc"):
            _copy_data(file.parent, out / "vertigym" / file.parent.relative_to(_HOME))
    site = sysconfig.get_path("purelib")
    alone = f"import sys; sys.path[:0] = [{str(out)!r}, {site!r}]\n"
    again = _play([sys.executable, "-I", "-S"], known, alone)
    if again["scores"] != played["scores"]:
        wrong = next((a, b) for a, b in zip(played["scores"], again["scores"], strict=True) if a != b)
        raise InputError(
            f"{env_id}: cannot be vendored: where {wrong[0]} is given here, the copy gives {wrong[1]}"
        )
    return _requirements(played["files"])


def _play(python: list[str], env_id: str, before: str = "") -> Any:
    done = subprocess.run(  # noqa: S603 (our own script)
        [*python, "-c", before + _PLAY, env_id, str(_PLAYED)], capture_output=True, text=True
    )
    if done.returncode:
        raise InputError(f"{env_id}: cannot be vendored: {done.stderr.strip().rpartition(chr(10))[2]}")
    return json.loads(done.stdout.strip().rpartition("\n")[2])


def _file(module: str) -> Path:
    place = _HOME.joinpath(*module.split(".")[1:])
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def _closure(modules: set[str]) -> set[str]:
    """The modules, all that they import anywhere in their text, and the packages that hold them."""
    whole, todo = set[str](), set(modules)
    while todo:
        module = todo.pop()
        if module in whole or not _file(module).exists():
            continue
        whole.add(module)
        todo |= {module.rpartition(".")[0], *_imported(_file(module))} - {""}
    return whole


def _imported(file: Path) -> set[str]:
    names = set[str]()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in names if name.partition(".")[0] == "vertigym"}


def _copy(file: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, to)


def _copy_data(folder: Path, to: Path) -> None:
    """The files of a folder that are no modules."""
    for file in folder.iterdir():
        if file.is_file() and file.suffix not in (".py", ".pyc"):
            _copy(file, to / file.name)


def _requirements(files: dict[str, str | None]) -> list[str]:
    """Those of vertigym's own requirements that were imported."""
    tops = {name.partition(".")[0] for name, file in files.items() if file and "site-packages" in file}
    imported = {one.lower() for top in tops for one in packages_distributions().get(top, ())}
    asked = (one.partition(";")[0].strip() for one in requires("vertigym") or ())
    return sorted({one for one in asked if re.split(r"[^\w.-]", one)[0].lower() in imported})
