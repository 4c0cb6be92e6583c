"""Isolate a fork-server, from the inside: namespaces and a root of its own, or Landlock alone.

Of the machine's files a job sees the interpreter's own library, system libraries (and programs, where it may
start them) and the packages of its profile. Folders of installed packages are hidden, whatever they are below:
where this package is one of them, its tasks and their answers lie there.

Runs inside the sandbox: standard library only. What is built here holds for every job the server will ever
fork, so that the jobs pay nothing for it; `forkserver` adds what must be done per job.
"""

import os
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from vertigym.sandboxes import kernel, syscalls

_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_LIBRARIES = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/local/lib", "/usr/share/zoneinfo")
_PROGRAMS = (
    *("/usr/bin", "/usr/sbin", "/usr/libexec", "/usr/include", "/usr/share", "/bin", "/sbin"),
    *("/usr/local/bin", "/usr/local/sbin", "/usr/local/include"),
)
_TMP = "/tmp"  # noqa: S108
_PACKAGE_FOLDERS = ("site-packages", "dist-packages")
_ETC = ("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime")
_STAGE = "/proc"  # a folder that every machine has, and that is not needed once the new root is built
_ANYONE = 65534
_FIRST_UID = 0x60000000
# What a privileged fork-server keeps: to make process namespaces, to become a job's user, to end and to tidy up
# after it.
CAPABILITIES = (
    kernel.CAP_SYS_ADMIN,
    kernel.CAP_SETUID,
    kernel.CAP_SETGID,
    kernel.CAP_KILL,
    kernel.CAP_DAC_OVERRIDE,
    kernel.CAP_FOWNER,
)
NAMESPACES = syscalls.CLONE_NEWPID | syscalls.CLONE_NEWNET | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS


@dataclass(frozen=True)
class IsolationConfig:
    """What a fork-server is told at its start (JSON in `worker.spawn`)."""

    level: str
    processes: bool
    writable: bool
    disk_bytes: int
    disk_inodes: int
    python: list[str]  # folders of the interpreter
    hidden: list[str]  # folders that no job may read, though they may be below one of those
    sys_path: list[str]
    preload: list[str]
    cgroups: list[str] = field(default_factory=list)  # to join
    cpu_files: list[str] = field(default_factory=list)  # the first that is there counts the CPU time of all
    links: list[tuple[str, str]] = field(default_factory=list)  # of the root: where it is, where it leads
    extra: dict[str, Any] = field(default_factory=dict)


def first_uid() -> int:
    """A user id that nobody else has, for the jobs of this server (and the next one, for a job's tests);
    0 for an ordinary user, who has no second one to give."""
    return _FIRST_UID + 2 * os.getpid() if os.geteuid() == 0 else 0


def leave_namespaces() -> None:
    """New namespaces for the children of this process; as an ordinary user, first a user namespace. The mounts
    are left to `build_root`: a new root takes every process of its mount namespace along."""
    if os.geteuid() != 0:
        uid, gid = os.geteuid(), os.getegid()
        kernel.unshare(syscalls.CLONE_NEWUSER)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{_ANYONE} {uid} 1")
        _write("/proc/self/gid_map", f"{_ANYONE} {gid} 1")
    kernel.unshare(NAMESPACES)


def loaded_packages() -> list[str]:
    """What a job may read of installed packages: the folders and files of those that were imported by now, and
    the libraries that come with them. Forgets what else there was to import."""
    standard = os.path.dirname(os.path.realpath(os.__file__))
    found = set()
    for folder in sys.path:
        if _is_below(folder, standard) and os.path.basename(folder) not in _PACKAGE_FOLDERS:
            continue
        sys.path_importer_cache.pop(folder, None)
        for module in list(sys.modules.values()):
            file = getattr(module, "__file__", None)
            if file and _is_below(file, folder):
                top = os.path.join(folder, file[len(folder) :].lstrip("/").partition("/")[0])
                found |= {top, f"{top}.libs"}
    return sorted(filter(os.path.exists, found))


def build_root(config: IsolationConfig, packages: list[str]) -> None:
    """A read-only root with the interpreter, system libraries and a few devices, and a small writable /tmp."""
    kernel.unshare(syscalls.CLONE_NEWNS)
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("root", _STAGE, "tmpfs", kernel.MS_NOSUID, "size=1m,mode=755")
    _show(config, packages, lambda path: not _is_below(path, _TMP))
    for place, target in config.links:
        os.makedirs(os.path.dirname(_STAGE + place), exist_ok=True)
        os.symlink(target, _STAGE + place)
    for folder in ("/dev", _TMP):
        os.makedirs(_STAGE + folder, exist_ok=True)
    kernel.read_only(_STAGE)
    kernel.mount("root", _STAGE + "/dev", "tmpfs", kernel.MS_NOSUID, "size=64k,mode=755")
    for device in _DEVICES:
        _bind_file(device)
    kernel.read_only(_STAGE + "/dev", devices=True)
    below = [path for path in (*_shown(config), *packages) if _is_below(path, _TMP) and path != _TMP]
    tops = sorted({"/".join(path.split("/")[:3]) for path in below})
    options = f"size={config.disk_bytes},nr_inodes={config.disk_inodes + 1 + len(tops)},mode=1777"
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | (0 if config.processes else kernel.MS_NOEXEC)
    kernel.mount("tmp", _STAGE + _TMP, "tmpfs", flags, options)
    for top in tops:  # an interpreter or packages below /tmp: shown in a read-only folder of that name
        os.makedirs(_STAGE + top)
        kernel.mount("shown", _STAGE + top, "tmpfs", kernel.MS_NOSUID, "size=1m,mode=755")
        _show(config, packages, partial(_is_below, folder=top))
        kernel.read_only(_STAGE + top)
    kernel.enter_root(_STAGE)


def _show(config: IsolationConfig, packages: list[str], here: Callable[[str], bool]) -> None:
    """Expose those paths that are `here`, but for what is hidden."""
    for path in filter(here, (*_shown(config), *_ETC)):
        _expose(path)
    for path in filter(here, _hidden(config)):
        if os.path.isdir(_STAGE + path):
            kernel.mount("hidden", _STAGE + path, "tmpfs", kernel.MS_NOSUID, "size=1m,mode=755")
    for path in filter(here, packages):
        _expose(path)


def restrict_files(config: IsolationConfig, packages: list[str]) -> bool:
    """Landlock over the process; whether the kernel has it. Inside a root of its own this is a second
    barrier; without one it is the only one, and nothing is writable."""
    if config.level == "namespaced":
        readable, writable = ["/"], [_TMP]
    else:
        hidden = _hidden(config)
        shown = {path for folder in _shown(config) for path in _around(os.path.realpath(folder), hidden)}
        readable = [path for path in (*sorted(shown), *packages, *_ETC) if os.path.exists(path)]
        writable = [_TMP] if config.writable else []
    try:
        if kernel.landlock_version() < kernel.LANDLOCK_TRUNCATE and config.level != "namespaced":
            return False
    except OSError:
        return False
    devices = [d for d in _DEVICES if os.path.exists(d)]
    kernel.landlock(readable, writable, devices, execute=config.processes)
    return True


def limit_for_good() -> None:
    """Limits that no job asks to change."""
    for kind, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_STACK, 64 << 20),
    ):
        kernel.limit(kind, value)


def _shown(config: IsolationConfig) -> tuple[str, ...]:
    """Folders of the machine that jobs may read, but for what is hidden below them."""
    return (*_LIBRARIES, *(_PROGRAMS if config.processes else ()), *config.python)


def _hidden(config: IsolationConfig) -> list[str]:
    """Folders below those that jobs may not read, outermost first."""
    shown = [folder for folder in _shown(config) if os.path.isdir(folder)]
    pythons = [e.path for folder in shown for e in os.scandir(folder) if e.name.startswith("py")]
    packages = [f"{folder}/{name}" for folder in (*shown, *pythons) for name in _PACKAGE_FOLDERS]
    return sorted({os.path.realpath(path) for path in (*config.hidden, *filter(os.path.isdir, packages))})


def _around(folder: str, hidden: list[str]) -> list[str]:
    """The paths that make up `folder` without what is hidden in it. Links are left out: what they lead to
    counts by its own path."""
    inside = [path for path in hidden if _is_below(path, folder)]
    if not inside:
        return [] if any(_is_below(folder, path) for path in hidden) else [folder]
    entries = [] if folder in inside else [e.path for e in os.scandir(folder) if not e.is_symlink()]
    return [path for entry in entries for path in _around(entry, inside)]


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _expose(path: str) -> None:
    """Bind a file or folder of the machine into the new root; a link is made again as a link."""
    target = _STAGE + path
    if os.path.lexists(target) or not os.path.exists(path):
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(path):
        os.symlink(os.readlink(path), target)
    elif os.path.isdir(path):
        os.makedirs(target)
        kernel.mount(path, target, flags=kernel.MS_BIND | kernel.MS_REC)
    else:
        _bind_file(path)


def _bind_file(path: str) -> None:
    if os.path.exists(path):
        _write(_STAGE + path, "")
        kernel.mount(path, _STAGE + path, flags=kernel.MS_BIND)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
