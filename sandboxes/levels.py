"""Which levels this machine has. Each is tried, never assumed, and what is missing is named.

for row in levels():
    print(row.name, row.available, row.missing, row.fix)
"""

import platform
import select
import sys
from dataclasses import dataclass
from functools import cache

from vertigym.core.errors import SandboxError, VertigymError
from vertigym.sandboxes import syscalls
from vertigym.sandboxes.backends import BackendWorker
from vertigym.sandboxes.contract import Level
from vertigym.sandboxes.forkserver_worker import ForkServerWorker
from vertigym.sandboxes.sandbox_worker import SandboxWorker, WorkerKind

_GIVES = {
    Level.DOCKER: "a container of a Docker-compatible engine around all that `landlock` enforces",
    Level.NAMESPACED: "own processes, network, files, IPC and user; Landlock; system call filter; limits",
    Level.LANDLOCK: "no files but the interpreter's, nothing writable, no network, no processes; limits",
    Level.UNSAFE: "limits only: the program can read and write whatever you can",
}
_FIX = {
    Level.DOCKER: "start dockerd or podman's socket, set DOCKER_HOST, and pip install 'vertigym[docker]'",
    Level.NAMESPACED: (
        "run as root, or allow user namespaces (sysctl user.max_user_namespaces=15000; on Ubuntu 24.04 also "
        "kernel.apparmor_restrict_unprivileged_userns=0)"
    ),
    Level.LANDLOCK: "a Linux kernel from 6.2 on with landlock in its `lsm=` list",
    Level.UNSAFE: "Linux; elsewhere use docker",
}


@dataclass(frozen=True, slots=True)
class LevelReport:
    """One row of `vertigym sandbox doctor`. `missing` and `fix` are empty where it is available; `note` says
    what is not as strong as it could be."""

    name: Level
    gives: str
    available: bool
    missing: str = ""
    fix: str = ""
    note: str = ""


def levels() -> list[LevelReport]:
    """Every level, strongest first, tried just now."""
    return [_report(level) for level in reversed(Level)]


@cache
def best_level() -> Level:
    """The strongest level that needs no daemon.

    Raises:
        SandboxError: there is none; `unsafe-subprocess` is never chosen, it must be asked for.
    """
    reports = [_report(Level.NAMESPACED), _report(Level.LANDLOCK)]
    for report in reports:
        if report.available:
            return report.name
    why = "; ".join(f"{report.name}: {report.missing} ({report.fix})" for report in reports)
    raise SandboxError(
        f"no safe sandbox on {platform.node()}. {why}. Or ask for docker, or unsafe-subprocess at your risk"
    )


def start_worker(kind: WorkerKind) -> SandboxWorker:
    """A new worker of this kind (not ready yet).

    Raises:
        SandboxError: it cannot be started.
    """
    if kind.backend:
        return BackendWorker(kind)
    if kind.level is Level.DOCKER:
        from vertigym.sandboxes.docker import ContainerWorker

        return ContainerWorker(kind)
    if not (sys.platform == "linux" and syscalls.supported()):
        raise SandboxError(f"{kind.level} needs Linux on x86-64 or arm64: {_FIX[Level.UNSAFE]}")
    return ForkServerWorker(kind)


def _report(level: Level) -> LevelReport:
    try:
        worker = start_worker(WorkerKind(level))
    except (VertigymError, OSError) as error:
        return LevelReport(level, _GIVES[level], False, str(error), _FIX[level])
    try:
        while not worker.ready:
            ready, _, _ = select.select([worker], [], [], 60)
            if not ready:
                raise SandboxError("it did not start within a minute")
            worker.receive()
    except SandboxError as error:
        return LevelReport(level, _GIVES[level], False, str(error), _FIX[level])
    finally:
        note = "" if worker.cgroup or level is not Level.NAMESPACED else "no writable memory cgroup"
        if "landlock" not in worker.note and level is not Level.UNSAFE:
            note = f"{note}; no Landlock".strip("; ")
        worker.close()
    return LevelReport(level, _GIVES[level], True, note=note)
