"""The process that forks jobs. One is kept warm a core; it never sees what a job runs.

A fork of a warm interpreter costs a tenth of starting one. The isolation (`isolation`) is built once, around
this process: its jobs inherit mounts, network, Landlock and the system call filter at no cost. A job gets, for
itself: a process namespace whose first process it is (so that nothing it starts outlives it), a user of its
own, no capabilities, its limits, and fresh descriptors that the controller made and this process only passes
on.

Controller ⇄ server: one SOCK_SEQPACKET. Order: `ORDER` and the descriptors of each child. Reply: `REPLY` and
one `CHILD` each. The controller's end closing is the order to stop, also in the middle of a job.
Runs inside the sandbox: standard library only.
"""

import contextlib
import gc
import importlib
import json
import os
import resource
import select
import socket
import struct
import sys
import time
from typing import Any, NoReturn

from vertigym.sandboxes import child, isolation, kernel, syscalls

# sequence number, CPU seconds, wall seconds, memory bytes, file bytes, processes, children, keep files
ORDER = struct.Struct("<QddQQIB?")
REPLY = struct.Struct("<Qd?")  # sequence number, wall seconds, whether the server should be replaced
CHILD = struct.Struct("<idQ?")  # wait status, CPU seconds, peak resident bytes, killed at the wall limit
_MOST = 10  # descriptors an order brings
_FIRST_RECEIVED = 10  # received descriptors are above every number a child uses
_KINDS = (resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC)
_TMP = "/tmp"  # noqa: S108
_LOOK_S = 0.05  # between two looks at the CPU time of all processes of a job

# What programs commonly import: in the server once, not in every job. Each module makes every fork a little
# dearer (page tables; five mappings for one with a library), so what is rare stays out: hashlib, uuid, …
_COMMON = """
abc ast base64 bisect collections collections.abc contextlib copy dataclasses datetime decimal enum
fractions functools heapq io itertools json math numbers operator random re string sys textwrap time typing
"""


def main(table: dict[str, Any]) -> NoReturn:
    """Isolate this process as `table` says (`isolation.IsolationConfig`) and serve until hung up on."""
    config = isolation.IsolationConfig(**table)
    control = socket.socket(fileno=config.extra["control"])
    try:
        if config.level == "namespaced":
            _supervised(config, control)
        else:
            _prepare(config, control, 0)
    except BaseException as error:
        control.send(f"error {type(error).__name__}: {error}".encode())
    os._exit(1)


def _supervised(config: isolation.IsolationConfig, control: socket.socket) -> None:
    """Fork the server as the first process of new namespaces, and clean up after it."""
    first_uid = isolation.first_uid()
    isolation.leave_namespaces()
    server = os.fork()
    if server:
        control.close()
        os.waitpid(server, 0)
        for folder in config.cgroups:
            _remove_cgroup(folder)
        os._exit(0)
    kernel.die_with_parent()
    for folder in config.cgroups:
        with open(f"{folder}/cgroup.procs", "w") as file:
            file.write("0")
    _prepare(config, control, first_uid)


def _remove_cgroup(folder: str) -> None:
    """The kernel lets go of an ended process's cgroup a little late, and the controller may be faster."""
    for _ in range(100):
        if not os.path.isdir(folder):
            break
        with contextlib.suppress(OSError):
            os.rmdir(folder)
        time.sleep(0.01)


def _prepare(config: isolation.IsolationConfig, control: socket.socket, first_uid: int) -> None:
    """Import, isolate, warm up, say so, serve."""
    sys.path[:] = config.sys_path or sys.path
    for module in (*_COMMON.split(), *config.preload):
        importlib.import_module(module)
    packages = isolation.loaded_packages()
    tree = _CpuClock(config.cpu_files)
    base = _address_space()
    namespaced = config.level == "namespaced"
    if namespaced:
        isolation.build_root(config, packages)
    isolation.limit_for_good()
    kernel.no_new_privileges()
    locked = config.level != "unsafe-subprocess" and isolation.restrict_files(config, packages)
    if config.level == "landlock" and not locked:
        raise OSError("this kernel's Landlock is missing, or too old to guard against truncating files")
    if first_uid:
        os.setgroups([])
        kernel.keep_capabilities(*isolation.CAPABILITIES)
    elif config.level in ("landlock", "docker"):
        kernel.keep_capabilities()
    flags = kernel.clone_flags(syscalls.CLONE_NEWPID if namespaced else 0)
    if config.level != "unsafe-subprocess":
        allowed = {"processes": config.processes, "writable": config.writable}
        kernel.install_filter(syscalls.job_filter(**allowed, clone_flags=flags))
    _reserve_descriptors()
    _warm_up()
    control.send(b"ready landlock" if locked else b"ready")
    _Server(config, control, flags, base, first_uid, tree).serve()


class _CpuClock:
    """CPU seconds of all that this process ever started, where a cgroup counts them: no process's own figures
    have what nobody waited for."""

    def __init__(self, files: list[str]) -> None:
        self._file = -1
        for name in files:
            with contextlib.suppress(OSError):
                self._file = os.open(name, os.O_RDONLY)
                break

    def __bool__(self) -> bool:
        return self._file >= 0

    def seconds(self) -> float:
        """Since its start."""
        if self._file < 0:
            return 0.0
        name, *rest = os.pread(self._file, 100, 0).split(None, 2)
        used_s = int(rest[0]) / 1e6 if rest else int(name) / 1e9  # version 2: "usage_usec N"; version 1: ns
        return used_s - time.process_time()


class _Server:
    """The loop: one order at a time."""

    def __init__(
        self,
        config: isolation.IsolationConfig,
        control: socket.socket,
        flags: int,
        base: int,
        first_uid: int,
        tree: _CpuClock,
    ) -> None:
        self._tree = tree
        self._look_s = _LOOK_S if tree else float("inf")
        self._config = config
        self._control = control
        self._flags = flags
        self._base = base
        self._first_uid = first_uid
        self._namespaced = config.level == "namespaced"
        alone = config.level in ("landlock", "docker") and not config.processes
        self._closing = syscalls.closing_filter() if alone else b""
        self._most = [
            sys.maxsize if (hard := resource.getrlimit(kind)[1]) == resource.RLIM_INFINITY else hard
            for kind in _KINDS
        ]
        # An ordinary user's jobs, this server and its parent are one user. Without namespaces everything that
        # user runs would count; there the filter forbids a second process.
        self._others = 0 if first_uid else 3 if self._namespaced else sys.maxsize >> 1
        self._clean_state = self._state_of_tmp()
        self._poll = select.poll()
        self._poll.register(control, 0)  # hang-up only: the next order may already wait

    def serve(self) -> NoReturn:
        """Take orders until the controller hangs up. Between two forks this process touches as few objects as
        it can: a look counts as a reference, which is a write, and the page is copied anew after every fork."""
        gc.collect()
        gc.disable()
        gc.freeze()
        hear, tell, room = self._control.recvmsg, self._control.send, socket.CMSG_SPACE(_MOST * 4)
        while True:
            message, passed, _, _ = hear(256, room)
            if not message:
                os._exit(0)
            numbers = passed[0][2]
            tell(self._run(ORDER.unpack(message), struct.unpack(f"{len(numbers) // 4}i", numbers)))

    def _run(self, order: tuple[Any, ...], descriptors: tuple[int, ...]) -> bytes:
        sequence, cpu_s, wall_s, memory, file_bytes, processes, count, keep = order
        started, before_s = time.monotonic(), self._tree.seconds()
        sets = [descriptors] if count == 1 else [descriptors[:6], (0, 0, 0, *descriptors[6:])]
        children: dict[int, int] = {}  # pidfd -> pid
        for mine in sets:
            pid, pidfd = kernel.clone(self._flags)
            if pid == 0:
                self._become_child(len(children), mine, (cpu_s, memory, file_bytes, processes))
            children[pidfd] = pid
        for descriptor in descriptors:
            os.close(descriptor)
        late = self._watch(list(children), started + wall_s, before_s + cpu_s)
        ended = []
        for pidfd, pid in children.items():
            os.close(pidfd)
            _, status, usage = os.wait4(pid, 0)
            ended.append([status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, pidfd in late])
        if self._tree:  # what nobody waited for counts as the program's
            counted = sum(used_s for _, used_s, *_ in ended)
            ended[0][1] += max(0.0, self._tree.seconds() - before_s - counted)
        replace = not keep and not self._clean()
        reply = REPLY.pack(sequence, time.monotonic() - started, replace)
        return reply + b"".join(CHILD.pack(*one) for one in ended)

    def _watch(self, running: list[int], deadline: float, cpu_end: float) -> list[int]:
        """Until all have ended: kill at the deadline or when the clock of all stands at `cpu_end`, end with the
        controller, end a program with its tests. Those killed at the deadline."""
        poll, tests = self._poll, running[-1]
        late: list[int] = []
        for pidfd in running:
            poll.register(pidfd, select.POLLIN)
        while running:
            left = max(0.0, deadline - time.monotonic())
            ready = poll.poll(min(left, self._look_s) * 1000 + 1)
            for descriptor, _ in ready:
                if descriptor not in running:
                    os._exit(0)
                running.remove(descriptor)
                poll.unregister(descriptor)
            expired = not ready and left <= self._look_s
            if expired:
                late = late or list(running)
            if expired or tests not in running or (self._tree and self._tree.seconds() > cpu_end):
                for pidfd in running:
                    kernel.kill(pidfd)
        return late

    def _become_child(self, index: int, mine: tuple[int, ...], limits: tuple[float, int, int, int]) -> NoReturn:
        """The child's side of the clone: shed everything, then run the job."""
        status = 1
        try:
            for target, source in enumerate(mine):
                os.dup2(source, target)
            kernel.close_from(len(mine))
            self._limit(*limits)
            if self._first_uid:
                uid = self._first_uid + index
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            if self._namespaced:
                kernel.drop_capabilities()
            else:
                kernel.die_with_parent()
            if self._closing:
                kernel.install_filter(self._closing)
            os.chdir(_TMP if index == 0 and self._config.writable else "/")
            gc.enable()
            status = child.main()
        finally:
            os._exit(status)

    def _limit(self, cpu_s: float, memory: int, file_bytes: int, processes: int) -> None:
        """Soft and hard at once: a job is the first process of its namespace, and could ignore the soft one.
        The kernel counts CPU by the tick, up to a quarter too much on a busy machine, and in whole seconds: one
        more than asked for, so that what decides is the exact time measured at the end."""
        set_limit = resource.setrlimit
        wanted = (int(cpu_s + 0.999) + 1, self._base + memory, file_bytes, processes + self._others)
        for kind, most, value in zip(_KINDS, self._most, wanted, strict=True):
            value = min(value, most)
            set_limit(kind, (value, value))

    def _clean(self) -> bool:
        """Empty /tmp when a job touched it; False when that did not work."""
        if self._state_of_tmp() == self._clean_state:
            return True
        try:
            os.chmod(_TMP, 0o1777)  # noqa: S103
            for entry in os.scandir(_TMP):
                if os.path.ismount(entry.path):  # packages that lie below /tmp
                    continue
                if entry.is_dir(follow_symlinks=False):
                    import shutil  # rarely needed, and six libraries in every fork

                    shutil.rmtree(entry.path)
                else:
                    os.unlink(entry.path)
            os.utime(_TMP, ns=(0, 0))
        except (OSError, RecursionError):
            return False
        self._clean_state = self._state_of_tmp()
        return True

    def _state_of_tmp(self) -> tuple[int, int]:
        """Changes whenever anything in /tmp, or its mode, does."""
        if not self._config.writable:
            return 0, 0
        state = os.stat(_TMP)
        return state.st_ctime_ns, state.st_mtime_ns


def _reserve_descriptors() -> None:
    """Fill the low numbers, so that a received descriptor never is one a child uses."""
    null = os.open("/dev/null", os.O_RDWR)
    while null < _FIRST_RECEIVED:
        null = os.dup(null)
    os.close(null)


def _warm_up() -> None:
    """Run a job here, so that what the interpreter sets up on first use is set up once. Freed memory stays
    mapped, which saves the jobs page faults."""
    source = (
        "def f(x, y=1):\n    class A: pass\n    return [str(i) for i in range(x)], {y: (1.5, x)}, {*'ab'}\n"
    )
    for _ in range(3):
        child.run(
            {"mode": "call", "program": source, "call": "f", "inputs": '[[[3],{"dict":[]},[],false]]'}, _drop
        )
        child.run({"mode": "script", "program": "raise SystemExit"}, _drop)
    sys.argv = [""]
    random = sys.modules["random"]
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)


def _drop(*row: Any) -> None:
    json.dumps(row)


def _address_space() -> int:
    """Bytes of address space this process has now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()
