"""A task folder in Harbor's form, read without the package, as far as it needs no image.

    instruction.md
    task.toml                     limits and variables
    environment/Dockerfile        the working directory, and what lies in it
    solution/solve.sh
    tests/test.sh                 writes /logs/verifier/reward.json or reward.txt

The one idea: what is not known to be met here is a reason to leave the task out. A sandbox has this
machine's programs, no network and one user, so a Dockerfile may name a base, a working directory, variables
and files of the folder, and nothing that has to be built.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from vertigym.core.config import read_toml
from vertigym.core.errors import DataError, InputError
from vertigym.envs.folders import EnvFolder
from vertigym.sandboxes.contract import MIB

# What task.toml may say, by table: None: anything, and nothing of it matters here.
_TABLES: Mapping[str, Sequence[str] | None] = {
    "metadata": None,
    "task": None,
    "agent": ("timeout_sec",),
    "verifier": ("timeout_sec", "env"),
    "solution": ("env",),
    "environment": (
        "build_timeout_sec", "cpus", "memory_mb", "storage_mb", "network_mode", "os", "env", "workdir"
    ),
}  # fmt: skip
_PLAIN = ("schema_version", "version", "source", "artifacts")
_PLACES = ("/tests", "/logs", "/solution", "/tmp")  # noqa: S108 (a sandbox's own)
_LARGEST = 64 * MIB  # of a task's files


class TaskLeftOutError(InputError):
    """A task that cannot be played here; the message says why."""


@dataclass(frozen=True, slots=True)
class HarborTask:
    """A task. `files`: by their path below `workdir`; `programs`: those of them that may be run. `tests` and
    `solution`: by their path in these folders. `*_env`: variables of its commands, verifier and solution."""

    name: str
    instruction: str
    workdir: str
    files: Mapping[str, bytes]
    programs: Sequence[str]
    tests: Mapping[str, bytes]
    solution: Mapping[str, bytes]
    env: Mapping[str, str]
    verifier_env: Mapping[str, str]
    solution_env: Mapping[str, str]
    timeout_s: float
    memory_mb: int | None


@dataclass(slots=True)
class _Image:
    """What a Dockerfile says. `copied`: path in the image -> file."""

    workdir: str = "/"
    env: dict[str, str] = field(default_factory=dict)
    copied: dict[str, Path] = field(default_factory=dict)


def task_folders(root: Path) -> list[Path]:
    """The task folders in `root`, or itself where it is one.

    Raises:
        DataError: there is none.
    """
    found = [root] if (root / "task.toml").is_file() else sorted(p.parent for p in root.glob("*/task.toml"))
    if not found:
        raise DataError(f"{root}: no task.toml in it, nor in a folder of it")
    return found


def read_task(folder: EnvFolder, path: Path, *, offline: bool) -> HarborTask:
    """The task at `path`, in `folder`. `offline`: it needs no network, though it may have one.

    Raises:
        TaskLeftOutError: it needs more than a sandbox has. DataError, ConfigError: it is malformed.
    """
    try:
        return _read(folder, path, offline)
    except (AttributeError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise DataError(f"{path}: not a task in Harbor's form: {error}") from None


def _read(folder: EnvFolder, path: Path, offline: bool) -> HarborTask:
    table = read_toml(path / "task.toml")
    _refuse_unknown(table)
    said = {name: dict(table.get(name, {})) for name in _TABLES}
    if not offline and said["environment"].get("network_mode", "public") != "no-network":
        raise TaskLeftOutError(
            "it may use the network, and a sandbox has none (offline = true says it needs none)"
        )
    image = _read_dockerfile(folder, path / "environment")
    workdir = said["environment"].get("workdir") or image.workdir
    if workdir == "/" or workdir.startswith(_PLACES):
        raise TaskLeftOutError(f"it works in {workdir}: a folder of its own is needed, such as /app")
    elsewhere = [place for place in image.copied if not PurePosixPath(place).is_relative_to(workdir)]
    if elsewhere:
        raise TaskLeftOutError(f"its Dockerfile copies to {elsewhere[0]}, outside of {workdir}")
    below = {str(PurePosixPath(place).relative_to(workdir)): file for place, file in image.copied.items()}
    tests = _files(folder, path / "tests")
    if "test.sh" not in tests:
        raise TaskLeftOutError("it has no tests/test.sh")
    files = {name: file.read_bytes() for name, file in below.items()}
    if sum(map(len, [*files.values(), *tests.values()])) > _LARGEST:
        raise TaskLeftOutError(f"its files are larger than {_LARGEST // MIB} MiB")
    return HarborTask(
        name=path.name,
        instruction=_text(path / "instruction.md"),
        workdir=workdir,
        files=files,
        programs=[name for name, file in below.items() if file.stat().st_mode & 0o100],
        tests=tests,
        solution=_files(folder, path / "solution"),
        env={**image.env, **_variables(said["environment"])},
        verifier_env=_variables(said["verifier"]),
        solution_env=_variables(said["solution"]),
        timeout_s=float(said["verifier"].get("timeout_sec", 600.0)),
        memory_mb=said["environment"].get("memory_mb"),
    )


def _refuse_unknown(table: Mapping[str, Any]) -> None:
    for name, value in table.items():
        known = _TABLES.get(name, ())
        if name not in _TABLES and name not in _PLAIN:
            raise TaskLeftOutError(f"its task.toml has {name}")
        if not (known is None or name in _PLAIN):
            for key, one in dict(value).items():
                if key not in known and one not in (None, 0, [], {}):
                    raise TaskLeftOutError(f"its task.toml has {name}.{key}")
    if str(table.get("environment", {}).get("os", "linux")).lower() != "linux":
        raise TaskLeftOutError("it is not for Linux")


def _read_dockerfile(folder: EnvFolder, path: Path) -> _Image:
    other = next((p.name for p in path.glob("*") if "compose" in p.name or p.name == ".dockerignore"), None)
    if other:
        raise TaskLeftOutError(f"it needs an engine: it has environment/{other}")
    if not (path / "Dockerfile").is_file():
        raise TaskLeftOutError("it has no environment/Dockerfile")
    image, bases = _Image(), 0
    for word, rest in _instructions(_text(path / "Dockerfile")):
        if "$" in rest and word != "CMD":
            raise TaskLeftOutError(f"its Dockerfile has a variable: {word} {rest}")
        match word:
            case "FROM":
                bases += 1
            case "WORKDIR":
                image.workdir = str(PurePosixPath(image.workdir, rest))
            case "ENV":
                pairs = shlex.split(rest) if "=" in rest.split()[0] else ["=".join(rest.split(maxsplit=1))]
                image.env |= dict(pair.split("=", 1) for pair in pairs)
            case "COPY" if not rest.startswith(("--", "[")):
                _copy(folder, path, image, *shlex.split(rest))
            case "LABEL" | "CMD":  # a task's commands are run in place of the image's own
                continue
            case _:
                raise TaskLeftOutError(f"its image has to be built: {word} {rest[:60]}")
    if bases != 1:
        raise TaskLeftOutError("its Dockerfile has several stages")
    return image


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        yield word.upper(), rest.strip()


def _copy(folder: EnvFolder, context: Path, image: _Image, *paths: str) -> None:
    *sources, target = paths
    place = PurePosixPath(image.workdir, target)
    for source in sources:
        found = context / source
        if not found.exists():
            raise TaskLeftOutError(
                f"its Dockerfile copies {source}, which is no file or folder of environment/"
            )
        if found.is_dir():
            image.copied |= {str(place / name): found / name for name in _names(folder, found)}
        else:
            folder.file(str(found.relative_to(folder.path)))
            into = target.endswith(("/", ".")) or len(sources) > 1
            image.copied[str(place / found.name if into else place)] = found


def _names(folder: EnvFolder, path: Path) -> list[str]:
    """The files below `path`, by their path in it.

    Raises:
        ConfigError: a link among them leads out of the environment's folder.
    """
    found = sorted(file for file in path.rglob("*") if file.is_file())
    return [str(folder.file(str(file.relative_to(folder.path))).relative_to(path)) for file in found]


def _files(folder: EnvFolder, path: Path) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in _names(folder, path)}


def _variables(table: Mapping[str, Any]) -> dict[str, str]:
    found = {name: str(value) for name, value in dict(table.get("env", {})).items()}
    if asking := next((name for name, value in found.items() if "${" in value), None):
        raise TaskLeftOutError(f"its variable {asking} is to be filled in from this machine's")
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
