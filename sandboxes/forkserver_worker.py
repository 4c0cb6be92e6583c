"""The controller's end of one fork-server: start it, hand it jobs, take back what they left.

The server runs none of this package's files: it is sent their source, and isolates itself before it says that
it is ready. From then on the only thing it gets from here is orders and descriptors (`files`).
"""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vertigym.core.errors import MissingDependencyError, SandboxError
from vertigym.sandboxes import cgroups, usage
from vertigym.sandboxes.codec import ChildExit, RawOutcome
from vertigym.sandboxes.contract import MIB, Job, JobLimits, Level
from vertigym.sandboxes.forkserver import CHILD, ORDER, REPLY
from vertigym.sandboxes.isolation import IsolationConfig
from vertigym.sandboxes.job_files import JobFiles
from vertigym.sandboxes.sandbox_worker import SandboxWorker, WorkerKind

INSIDE = (
    "syscalls",
    "kernel",
    "data_forms",
    "tagged_json",
    "remote_objects",
    "cross_calls",
    "served_calls",
    "child",
    "isolation",
    "forkserver",
)
FLAGS = ("-s", "-S", "-B", "-P")
ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1"} | {
    f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")
}
ROOM_BYTES = 64 * MIB  # what the fork-server itself and its tmpfs may take of the worker's cgroup

# Run first inside: turn the sources that were sent into modules. The package is not importable in there.
BOOT = """
import json, os, sys, types

def load(sources, entry, table):
    for name in ("vertigym", "vertigym.sandboxes"):
        sys.modules[name] = types.ModuleType(name)
    for name, source in sources:
        full = "vertigym.sandboxes." + name
        module = sys.modules[full] = types.ModuleType(full)
        setattr(sys.modules["vertigym.sandboxes"], name, module)
        exec(compile(source, name + ".py", "exec"), module.__dict__)
    for name in [name for name in sys.modules if name.split(".")[0] == "vertigym"]:
        del sys.modules[name]
    getattr(module, entry)(table)

"""


class ForkServerWorker(SandboxWorker):
    """One fork-server.

    Raises:
        SandboxError: it did not start; the message has the reason it gave.
    """

    ahead = 2  # the one it runs and the next

    def __init__(self, kind: WorkerKind) -> None:
        super().__init__(kind)
        namespaced = kind.level is Level.NAMESPACED
        self.cgroup = cgroup = cgroups.create(kind.memory_bytes + ROOM_BYTES) if namespaced else None
        self._cgroups, cpu_files = _accounting(cgroup, kind)
        self._files: dict[int, JobFiles] = {}
        self._oom_seen = 0
        self._overfull = False
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control = ours
        with theirs:
            self._process = _spawn(kind, self._cgroups, cpu_files, theirs)
        self.pid = self._process.pid
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._uncapped = kind.processes and not cpu_files
        self._clock = usage.TreeClock()

    def fileno(self) -> int:
        """The descriptor to wait on for `receive`."""
        return self._control.fileno()

    def look(self) -> None:
        """End the job whose processes together use more than it may, where no cgroup tells."""
        if not self._uncapped or not self.outstanding:
            return
        server = self.pid
        if self.kind.level is Level.NAMESPACED:  # below the process that cleans up after it
            server = next(iter(usage.children(server)), 0)
        jobs = [pid for job in usage.children(server) for pid in usage.tree(job)]
        self._clock.look(jobs)
        overfull = self.cgroup is None and usage.exceeds(jobs, self.kind.memory_bytes)
        self._overfull = self._overfull or overfull
        if overfull or self._clock.seconds() > next(iter(self._limits.values())).cpu_s:
            usage.kill(jobs)

    def send(self, sequence: int, payloads: Sequence[bytes], job: Job, *, keep: bool = False) -> None:
        """Hand over one job. With `keep`, what it leaves in its folder stays for the next.

        Raises:
            OSError: the worker is gone.
        """
        limits = job.limits
        stdin = job.stdin.encode() if isinstance(job.stdin, str) else job.stdin
        files = JobFiles(payloads, stdin, self._null)
        try:
            socket.send_fds(self._control, [order(sequence, limits, len(payloads), keep)], files.passed)
        except BaseException:
            files.close()
            raise
        files.handed_over()
        self._files[sequence] = files
        self._hold(sequence, limits)

    def receive(self) -> tuple[int, RawOutcome] | None:
        """The next finished job; None for a message that was only about the worker.

        Raises:
            SandboxError: the worker is gone, or could not start.
        """
        try:
            message = self._control.recv(4096)
        except OSError as error:
            raise SandboxError(f"a {self.kind.level} sandbox was lost: {error}") from None
        if not message:
            raise SandboxError(f"a {self.kind.level} sandbox was lost")
        if not self.ready:
            self._greet(message.decode("utf-8", "replace"))
            return None
        sequence, wall_s, worn = REPLY.unpack_from(message)
        files, limits = self._files.pop(sequence), self._release(sequence)
        children = [ChildExit(*row) for row in struct.iter_unpack(CHILD.format, message[REPLY.size :])]
        stdout, stderr, results = files.read(limits.output_bytes, limits.result_bytes)
        files.close()
        self.worn = self.worn or worn
        oom = self._ran_out_of_memory(children)
        return sequence, RawOutcome(self._with_uncounted(children), wall_s, stdout, stderr, results, oom)

    def oom_killed(self) -> bool:
        """Whether something here was killed for want of memory since this was last asked."""
        if self.cgroup is None:
            killed, self._overfull = self._overfull, False
            return killed
        seen, self._oom_seen = self._oom_seen, cgroups.oom_kills(self.cgroup)
        return self._oom_seen > seen

    def close(self) -> None:
        """End it and everything in it, and remove its cgroup."""
        self._control.close()
        os.close(self._null)
        for files in self._files.values():
            files.close()
        self._files.clear()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for folder in self._cgroups:
            cgroups.remove(folder)

    def let_go(self) -> None:
        """Close our end in a forked copy of this process, so that it does not keep the worker alive."""
        self._control.close()

    def _with_uncounted(self, children: list[ChildExit]) -> list[ChildExit]:
        """With the CPU seconds of processes that the program started and did not wait for."""
        uncounted_s = self._clock.seconds() - sum(child.cpu_s for child in children)
        self._clock = usage.TreeClock()
        if uncounted_s <= 0:
            return children
        return [replace(children[0], cpu_s=children[0].cpu_s + uncounted_s), *children[1:]]

    def _ran_out_of_memory(self, children: Sequence[ChildExit]) -> bool:
        killed = any(os.WIFSIGNALED(i.status) and os.WTERMSIG(i.status) == signal.SIGKILL for i in children)
        return killed and self.oom_killed()


def boot(entry: str, modules: Sequence[str], table: dict[str, Any]) -> bytes:
    """What a process inside is started with: the sources of `modules`, in the order they import each other, and
    the table for the last one's `entry`."""
    folder = Path(__file__).parent
    sources = [(name, (folder / f"{name}.py").read_text(encoding="utf-8")) for name in modules]
    return json.dumps({"sources": sources, "entry": entry, "table": table}).encode()


def interpreter() -> str:
    """The Python that runs jobs: the one this environment was made from."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def _accounting(memory: Path | None, kind: WorkerKind) -> tuple[list[Path], list[Path]]:
    """(cgroups that a worker joins, the file that counts their CPU time)."""
    if memory is None:
        return [], []
    if not kind.processes:
        return [memory], []
    others, file = cgroups.create_cpu(memory)
    return [memory, *others], [file] if file else []


def table_for(
    kind: WorkerKind, joined: Sequence[Path] = (), cpu_files: Sequence[Path] = (), **extra: Any
) -> dict[str, Any]:
    """The `isolation.IsolationConfig` of a worker, as data."""
    library = [sysconfig.get_path("stdlib"), sysconfig.get_config_var("DESTSHARED")]
    packages = sorted({_folder_of(package) for package in kind.packages})
    prefix = [f"{sys.base_prefix}/bin", f"{sys.base_prefix}/lib"] if kind.processes else []
    return asdict(
        IsolationConfig(
            level=kind.level.value,
            processes=kind.processes,
            writable=kind.level in (Level.NAMESPACED, Level.DOCKER),
            disk_bytes=kind.disk_bytes,
            disk_inodes=kind.disk_inodes,
            python=[os.path.realpath(path) for path in (*prefix, *library)],
            hidden=_hidden(library),
            sys_path=[os.path.realpath(path) for path in (*library, *packages)],
            preload=list(kind.packages),
            cgroups=[str(folder) for folder in joined],
            cpu_files=[str(file) for file in cpu_files],
            links=list(kind.links),
            extra=extra,
        )
    )


def _spawn(
    kind: WorkerKind, joined: Sequence[Path], cpu_files: Sequence[Path], control: socket.socket
) -> "subprocess.Popen[bytes]":
    table = table_for(kind, joined, cpu_files, control=control.fileno())
    sent = os.memfd_create("boot")
    try:
        os.write(sent, boot("main", INSIDE, table))
        os.lseek(sent, 0, os.SEEK_SET)
        start = f"{BOOT}\nsent = json.load(os.fdopen({sent}))\nload(**sent)"
        return subprocess.Popen(  # noqa: S603
            [interpreter(), *FLAGS, "-c", start],
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(control.fileno(), sent),
            start_new_session=True,
            cwd="/",
        )
    finally:
        os.close(sent)


def _hidden(library: Sequence[str]) -> list[str]:
    """Where this process finds packages, this one among them; but no folder that holds the standard library."""
    folders = {os.path.realpath(path) for path in (*sys.path, str(Path(__file__).parents[1])) if path}
    standard = [os.path.realpath(path) for path in library]
    return sorted(f for f in folders if os.path.isdir(f) and not any(_holds(f, path) for path in standard))


def _holds(folder: str, path: str) -> bool:
    return os.path.commonpath([folder, path]) == folder


@cache
def _folder_of(package: str) -> str:
    """The folder a package is imported from."""
    found = find_spec(package.partition(".")[0])
    if found is None or found.origin is None:
        raise MissingDependencyError(package, "numpy", f"the sandbox profile that preloads {package}")
    return str(Path(found.origin).parents[1 if found.submodule_search_locations else 0])


def order(sequence: int, limits: JobLimits, children: int, keep: bool) -> bytes:
    """What the fork-server is told of a job."""
    file_bytes = max(limits.disk_bytes, limits.output_bytes, limits.result_bytes)
    return ORDER.pack(
        sequence,
        limits.cpu_s,
        limits.wall_s,
        limits.memory_bytes,
        file_bytes,
        limits.processes,
        children,
        keep,
    )
