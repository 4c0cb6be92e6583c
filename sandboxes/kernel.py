"""The Linux calls the standard library lacks, through ctypes: namespaces, mounts, Landlock, seccomp, clone.

Each function makes one kernel call (or one small ritual) and raises `OSError` naming it when refused.
Calls keep the GIL (`PyDLL`): a clone must not leave it with a thread that does not exist in the child.
Runs inside the sandbox: standard library only.

Manual pages: unshare(2), pivot_root(2), mount_setattr(2), landlock(7), seccomp(2), clone(2).
"""

import ctypes
import os
import resource
import struct

from vertigym.sandboxes import syscalls
from vertigym.sandboxes.syscalls import CLONE_PIDFD, SIGCHLD

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 0x1000, 0x4000, 0x40000
_MNT_DETACH = 2
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CAPABILITY_VERSION = 0x20080522
_SECCOMP_SET_MODE_FILTER = 1
CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN = 1, 3, 5, 6, 7, 21

# Landlock rights by the version that brought them: landlock(7).
_READ = 1 << 2 | 1 << 3  # READ_FILE, READ_DIR
_EXECUTE = 1
_WRITE_FILE = 1 << 1
_MAKE = 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 12  # remove dir/file, make dir/regular/fifo/symlink
_ALL_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_REFER, _TRUNCATE = 1 << 13, 1 << 14
LANDLOCK_TRUNCATE = 3  # the first version that covers truncate(2) and O_TRUNC
_NET_ALL, _SCOPE_ALL = 3, 3  # bind and connect TCP; abstract sockets and signals

_libc = ctypes.PyDLL(None, use_errno=True)
_syscall = _libc.syscall
_pidfd = ctypes.c_int(-1)


def call(name: str, *arguments: object) -> int:
    """Make one system call. Integers go as 64-bit values, bytes as pointers.

    Raises:
        OSError: the kernel refused; the message names the call.
    """
    converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result: int = _syscall(ctypes.c_long(syscalls.number(name)), *converted)
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"{name}: {os.strerror(errno)}")
    return result


def unshare(flags: int) -> None:
    """Leave the namespaces named by `flags`."""
    call("unshare", flags)


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mount `source` on `target`."""
    call("mount", source.encode(), target.encode(), kind.encode(), flags, data.encode())


def read_only(target: str, *, devices: bool = False) -> None:
    """Make a mount and all below it read-only, without set-uid, and without device files unless `devices`."""
    attributes = MS_RDONLY | MS_NOSUID | (0 if devices else MS_NODEV)
    wanted = struct.pack("=QQQQ", attributes, 0, 0, 0)
    call("mount_setattr", _AT_FDCWD, target.encode(), _AT_RECURSIVE, wanted, len(wanted))


def enter_root(root: str) -> None:
    """Make the mount at `root` the root of this mount namespace and let go of the old one."""
    os.chdir(root)
    call("pivot_root", b".", b".")
    call("umount2", b".", _MNT_DETACH)
    os.chdir("/")


def die_with_parent() -> None:
    """SIGKILL when the parent ends. A change of user takes this back, so it comes after."""
    call("prctl", _PR_SET_PDEATHSIG, 9, 0, 0, 0)


def no_new_privileges() -> None:
    """No program run from here on gains privileges."""
    call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def keep_capabilities(*kept: int) -> None:
    """Reduce the effective and permitted sets to `kept` (numbers below 32), and empty the inheritable set."""
    bits = sum(1 << capability for capability in kept)
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    call("capset", header, struct.pack("=6I", bits, bits, 0, 0, 0, 0))


def drop_capabilities() -> None:
    """Empty all sets: `keep_capabilities()`, made ready beforehand, since every job does it."""
    if _syscall(*_DROP) < 0:
        raise OSError(ctypes.get_errno(), "capset")


def close_from(lowest: int) -> None:
    """Close every descriptor from `lowest` on."""
    if _syscall(_CLOSE_RANGE, lowest, _NO_LIMIT, 0) < 0:
        raise OSError(ctypes.get_errno(), "close_range")


def install_filter(program: bytes) -> None:
    """Put a seccomp filter over this process and all it starts. Needs `no_new_privileges` or a capability."""
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("=HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    call("seccomp", _SECCOMP_SET_MODE_FILTER, 0, header)


def landlock_version() -> int:
    """The kernel's Landlock version.

    Raises:
        OSError: the kernel has none, or it is switched off.
    """
    return call("landlock_create_ruleset", 0, 0, 1)


def landlock(readable: list[str], writable: list[str], devices: list[str], *, execute: bool) -> None:
    """From here on only these paths can be opened, no TCP used, and nothing outside signalled. For good."""
    version = landlock_version()
    every = _ALL_BY_ABI[max(v for v in _ALL_BY_ABI if v <= version)]
    attributes = struct.pack("=Q", every)
    if version >= 4:
        attributes += struct.pack("=Q", _NET_ALL)
    if version >= 6:
        attributes += struct.pack("=Q", _SCOPE_ALL)
    ruleset = call("landlock_create_ruleset", attributes, len(attributes), 0)
    read = _READ | (_EXECUTE if execute else 0)
    write = read | _WRITE_FILE | _MAKE | _REFER | _TRUNCATE
    for paths, rights in ((readable, read), (writable, write), (devices, _READ | _WRITE_FILE)):
        for path in paths:
            _allow_beneath(ruleset, path, rights & every)
    call("landlock_restrict_self", ruleset, 0)
    os.close(ruleset)


def _allow_beneath(ruleset: int, path: str, rights: int) -> None:
    if not os.path.isdir(path):
        rights &= _EXECUTE | _WRITE_FILE | 1 << 2 | _TRUNCATE
    opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        call("landlock_add_rule", ruleset, 1, struct.pack("=Qi", rights, opened), 0)
    finally:
        os.close(opened)


def clone(flags: int) -> tuple[int, int]:
    """Fork with namespace `flags`: (pid, pidfd) in the parent, (0, -1) in the child.

    Unlike `os.fork` this runs no hooks: the caller must be single-threaded, and the child shares the parent's
    state of `random`.
    """
    pid: int = _syscall(_CLONE, ctypes.c_long(flags), None, ctypes.byref(_pidfd), None, None)
    if pid < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"clone: {os.strerror(errno)}")
    return (pid, _pidfd.value) if pid else (0, -1)


def clone_flags(namespaces: int) -> int:
    """The flags `clone` is called with, as the filter has to know them."""
    return SIGCHLD | CLONE_PIDFD | namespaces


def kill(pidfd: int) -> None:
    """SIGKILL to the process behind `pidfd`; nothing when it has ended."""
    try:
        call("pidfd_send_signal", pidfd, 9, 0, 0)
    except ProcessLookupError:
        return


def limit(kind: int, value: int) -> None:
    """Lower a resource limit, soft and hard (never above the hard limit there is)."""
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))


_CLONE, _CLOSE_RANGE, _CAPSET = (
    ctypes.c_long(syscalls.number(name) if syscalls.supported() else -1)
    for name in ("clone", "close_range", "capset")
)
_NO_LIMIT = ctypes.c_uint(0xFFFFFFFF)
_DROP = (_CAPSET, struct.pack("=Ii", _CAPABILITY_VERSION, 0), bytes(24))
