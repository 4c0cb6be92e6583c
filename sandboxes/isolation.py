"""Isolate a fork-server, from the inside: namespaces and a root of its own, or Landlock alone.

Runs inside the sandbox: standard library only. What is built here holds for every job the server will ever
fork, so that the jobs pay nothing for it; `forkserver` adds what must be done per job.
"""

import os
import resource
from dataclasses import dataclass, field
from typing import Any

from vertigym.sandboxes import kernel, syscalls

_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/sbin")
_LIBRARIES = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/local/lib", "/usr/share/zoneinfo")
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
    python: list[str]  # folders of the interpreter and its packages
    sys_path: list[str]
    preload: list[str]
    cgroup: str = ""
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


def build_root(config: IsolationConfig) -> None:
    """A read-only root with the interpreter, system libraries and a few devices, and a small writable /tmp."""
    kernel.unshare(syscalls.CLONE_NEWNS)
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("root", _STAGE, "tmpfs", kernel.MS_NOSUID, "size=1m,mode=755")
    for path in (*(_SYSTEM if config.processes else _LIBRARIES), *config.python, *_ETC):
        _expose(path)
    for folder in ("/dev", "/tmp"):  # noqa: S108
        os.makedirs(_STAGE + folder, exist_ok=True)
    kernel.read_only(_STAGE)
    kernel.mount("root", _STAGE + "/dev", "tmpfs", kernel.MS_NOSUID, "size=64k,mode=755")
    for device in _DEVICES:
        _bind_file(device)
    kernel.read_only(_STAGE + "/dev", devices=True)
    options = f"size={config.disk_bytes},nr_inodes={config.disk_inodes + 1},mode=1777"
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | (0 if config.processes else kernel.MS_NOEXEC)
    kernel.mount("tmp", _STAGE + "/tmp", "tmpfs", flags, options)  # noqa: S108
    kernel.enter_root(_STAGE)


def restrict_files(config: IsolationConfig) -> bool:
    """Landlock over the process; whether the kernel has it. Inside a root of its own this is a second
    barrier; without one it is the only one, and nothing is writable."""
    if config.level == "namespaced":
        readable, writable = ["/"], ["/tmp"]  # noqa: S108
    else:
        system = _SYSTEM if config.processes else _LIBRARIES
        readable = [p for p in (*system, *config.python, *_ETC) if os.path.exists(p)]
        writable = ["/tmp"] if config.writable else []  # noqa: S108
    try:
        kernel.landlock_version()
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
