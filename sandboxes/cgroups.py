"""A memory cgroup for each worker, where one is writable: the only cap on what a whole process tree uses.
Another counts the CPU time of all its processes, waited for or not.

Version 1 and version 2 hierarchies; ours is made below the cgroup this process is in (version 2: or beside it,
where it is not allowed to hold processes and children at once), or below the nearest one above it that is
mounted here. Names are `vertigym-PID-N`; those of dead processes are swept when a pool starts.
"""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_PREFIX = "vertigym-"
_CPU_V2 = "cpu.stat"
_counter = itertools.count()


def create(memory_bytes: int) -> Path | None:
    """A new cgroup with this memory limit, or None where none can be made."""
    for parent, limit_file, swap_file in _parents():
        folder = parent / f"{_PREFIX}{os.getpid()}-{next(_counter)}"
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            (folder / limit_file).write_text(str(memory_bytes))
        except OSError:
            folder.rmdir()
            continue
        _try_write(folder / swap_file, str(memory_bytes) if "memsw" in swap_file else "0")
        return folder
    return None


def create_cpu(memory_folder: Path) -> tuple[list[Path], Path | None]:
    """(cgroups to join beside the memory cgroup, the file that counts CPU time; None where there is none)."""
    if (memory_folder / _CPU_V2).exists():
        return [], memory_folder / _CPU_V2
    for parent in _cpu_parents():
        folder = parent / memory_folder.name
        try:
            folder.mkdir()
        except OSError:
            continue
        return [folder], folder / "cpuacct.usage"
    return [], None


def oom_kills(folder: Path) -> int:
    """How many processes the kernel has killed here for want of memory."""
    for name in ("memory.events", "memory.oom_control"):
        try:
            rows = (folder / name).read_text().splitlines()
        except OSError:
            continue
        return next((int(row.split()[1]) for row in rows if row.startswith("oom_kill ")), 0)
    return 0


def remove(folder: Path) -> None:
    """Remove an empty cgroup; nothing when it is gone or still in use."""
    try:
        folder.rmdir()
    except OSError:
        return


def sweep() -> None:
    """Remove what pools that were killed have left."""
    for parent in (*(parent for parent, _, _ in _parents()), *_cpu_parents()):
        for folder in parent.glob(f"{_PREFIX}*"):
            owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
            if owner.isdecimal() and not Path("/proc", owner).exists():
                remove(folder)


def _parents() -> Iterator[tuple[Path, str, str]]:
    """Folders to try, each with its version's file names for the memory and the swap limit."""
    for row in _membership():
        _, controllers, path = row.split(":", 2)
        if "memory" in controllers.split(","):
            own = _mounted(_ROOT / "memory", path)
            yield own, "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
        elif not controllers:
            own = _mounted(_ROOT, path)
            yield own, "memory.max", "memory.swap.max"
            if own != _ROOT:
                yield own.parent, "memory.max", "memory.swap.max"


def _cpu_parents() -> Iterator[Path]:
    """The folder that counts CPU time in version 1."""
    for row in _membership():
        _, controllers, path = row.split(":", 2)
        if "cpuacct" in controllers.split(","):
            yield _mounted(_ROOT / "cpuacct", path)


def _membership() -> list[str]:
    try:
        return Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []


def _mounted(hierarchy: Path, path: str) -> Path:
    """The folder of a cgroup; the nearest one above it where it is named from outside this mount."""
    folder = hierarchy / path.lstrip("/")
    while folder != hierarchy and not folder.is_dir():
        folder = folder.parent
    return folder


def _try_write(file: Path, text: str) -> None:
    try:
        file.write_text(text)
    except OSError:
        return
