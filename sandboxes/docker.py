"""The `docker` level: a fork-server inside a warm container, through the Docker SDK.

Any engine with Docker's API will do (dockerd, podman's socket): `DOCKER_HOST` says where. The container has no
network, a read-only root, no capabilities, an ordinary user, a memory and a process limit, and a small tmpfs;
in it the isolation of `landlock` holds as well. A container is replaced after any anomaly, and after every job
that may start programs (there is no process namespace a job in there). The image needs Python 3.11 or newer and
nothing of this package: what runs inside is sent over the attached stream.
"""

import base64
import json
import os
import select
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vertigym.core.errors import MissingDependencyError, SandboxError
from vertigym.sandboxes.codec import ChildExit, RawOutcome
from vertigym.sandboxes.contract import Job
from vertigym.sandboxes.forkserver import CHILD, REPLY
from vertigym.sandboxes.forkserver_worker import (
    BOOT,
    ENVIRONMENT,
    FLAGS,
    INSIDE,
    ROOM_BYTES,
    boot,
    order,
    table_for,
)
from vertigym.sandboxes.sandbox_worker import SandboxWorker, WorkerKind

IMAGE = "VERTIGYM_SANDBOX_IMAGE"  # environment variable: the image to use
RUNTIME = "VERTIGYM_SANDBOX_RUNTIME"  # environment variable: a container runtime, for example runsc (gVisor)
DEFAULT_IMAGE = "python:3.12-slim"
LABEL = "vertigym.sandbox"
_CHUNK = struct.Struct(">B3xI")  # what Docker puts before output: stream, length
_STDOUT = 1
_STARTS = 3  # how often a container is tried that the engine fails to start
_OWN_TASKS = 4  # init, relay, fork-server, and the process of a job's tests

_FROM_STREAM = """
import struct
def exactly(count):
    data = b""
    while len(data) < count:
        data += os.read(0, count - len(data))
    return data
load(**json.loads(exactly(struct.unpack("<I", exactly(4))[0])))
"""


class ContainerWorker(SandboxWorker):
    """A container with a fork-server in it.

    Raises:
        MissingDependencyError: no `docker` package. SandboxError: no engine, no image, or it would not start.
    """

    def __init__(self, kind: WorkerKind) -> None:
        super().__init__(kind)
        self.ahead = 1 if kind.processes else 2
        self._header = bytearray()  # of the chunk under way
        self._left = 0  # bytes of it to come
        self._buffer = bytearray()  # of the frame under way
        sdk = _sdk()
        _find_engine()
        try:
            self._client = sdk.from_env(timeout=60)
            self._sweep()
            self._open(kind, sdk.errors.APIError)
            self._write(_greeting(kind))
        except (sdk.errors.DockerException, OSError) as error:
            raise SandboxError(f"no docker sandbox: {error}") from None

    def _open(self, kind: WorkerKind, failure: type[Any]) -> None:
        """Make a container, attach to it and start it; again when the engine failed, as a busy one may."""
        for left in reversed(range(_STARTS)):
            self._container = self._create(kind)
            self._attached = self._container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
            self._stream: socket.socket = getattr(self._attached, "_sock", self._attached)
            try:
                self._container.start()
            except failure as error:
                self.close()
                if not (left and error.is_server_error()):
                    raise
            else:
                break
        self._stream.settimeout(60)
        self._arrivals = select.poll()
        self._arrivals.register(self._stream, select.POLLIN)

    def _create(self, kind: WorkerKind) -> Any:
        return self._client.containers.create(
            os.environ.get(IMAGE, DEFAULT_IMAGE),
            ["python3", *_flags(kind), "-c", BOOT + _FROM_STREAM],
            environment=ENVIRONMENT,
            stdin_open=True,
            network_mode="none",
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            user="65534:65534",
            mem_limit=kind.memory_bytes + ROOM_BYTES,
            memswap_limit=kind.memory_bytes + ROOM_BYTES,
            pids_limit=_OWN_TASKS + kind.tasks,
            tmpfs={"/tmp": f"size={kind.disk_bytes},nr_inodes={kind.disk_inodes + 1},mode=1777"},  # noqa: S108
            init=True,
            runtime=os.environ.get(RUNTIME),
            labels={LABEL: str(os.getpid()), f"{LABEL}.host": socket.gethostname()},
        )

    def _sweep(self) -> None:
        """Remove what killed controllers of this machine left: stopped, since their stream is gone, or never
        started."""
        ended = {"label": f"{LABEL}.host={socket.gethostname()}", "status": ["created", "exited"]}
        for container in self._client.containers.list(filters=ended, ignore_removed=True):
            if not os.path.exists(f"/proc/{container.labels[LABEL]}"):
                container.remove(force=True)

    def fileno(self) -> int:
        """The attached stream."""
        return self._stream.fileno()

    def send(self, sequence: int, payloads: Sequence[bytes], job: Job, *, keep: bool = False) -> None:
        """Hand over one job."""
        stdin = job.stdin.encode() if isinstance(job.stdin, str) else job.stdin
        frame = {
            "order": _text(order(sequence, job.limits, len(payloads), keep)),
            "payloads": [_text(payload) for payload in payloads],
            "stdin": _text(stdin),
            "output_bytes": job.limits.output_bytes,
            "result_bytes": job.limits.result_bytes,
        }
        self._write(frame)
        self._hold(sequence, job.limits)

    def receive(self) -> tuple[int, RawOutcome] | None:
        """The next finished job, or None while its frame is not complete."""
        frame = self._read()
        if frame is None:
            return None
        if not self.ready:
            self._greet(frame["said"])
            return None
        try:
            return self._unpack(frame)
        except (KeyError, ValueError, struct.error) as error:
            raise SandboxError(f"a docker sandbox answered nonsense: {error}") from None

    def oom_killed(self) -> bool:
        """Whether the engine says that the container met its memory limit."""
        try:
            self._container.reload()
        except Exception:  # the engine may be gone as well; then nobody knows
            return False
        return bool(self._container.attrs["State"].get("OOMKilled"))

    def close(self) -> None:
        """Remove the container, and with it all that is in it."""
        self.let_go()
        try:
            self._container.remove(force=True)
        except Exception as error:
            self.note = f"the container could not be removed: {error}"
        self._client.close()

    def let_go(self) -> None:
        """Close our end in a forked copy of this process."""
        self._attached.close()
        self._stream.close()

    def _unpack(self, frame: dict[str, Any]) -> tuple[int, RawOutcome]:
        reply = base64.b64decode(frame["reply"])
        sequence, wall_s, replace = REPLY.unpack_from(reply)
        limits = self._release(sequence)
        children = [ChildExit(*row) for row in struct.iter_unpack(CHILD.format, reply[REPLY.size :])]
        results = [base64.b64decode(result)[: limits.result_bytes + 1] for result in frame["results"]]
        anomaly = any(os.WIFSIGNALED(child.status) and len(children) == 1 for child in children)
        self.worn = self.worn or replace or anomaly or self.kind.processes
        stdout, stderr = base64.b64decode(frame["stdout"]), base64.b64decode(frame["stderr"])
        return sequence, RawOutcome(children, wall_s, stdout, stderr, results, bool(frame["oom"]))

    def _write(self, frame: dict[str, Any]) -> None:
        body = json.dumps(frame).encode()
        self._stream.sendall(struct.pack("<I", len(body)) + body)

    def _read(self) -> dict[str, Any] | None:
        """Take in what has arrived, to the end of a frame at most: what follows it stays in the socket, so that
        waiting on the socket shows it."""
        while self._arrivals.poll(0):
            try:
                part = self._stream.recv(self._needed())
            except OSError as error:
                raise SandboxError(f"a docker sandbox was lost: {error}") from None
            if not part:
                raise SandboxError("a docker sandbox was lost")
            if self._feed(part):
                body, self._buffer = self._buffer[4:], bytearray()
                frame: dict[str, Any] = json.loads(body)
                return frame
        return None

    def _needed(self) -> int:
        """Bytes to the end of a chunk's header, of the chunk, or of the frame, whichever comes first."""
        if not self._left:
            return _CHUNK.size - len(self._header)
        return min(self._left, self._missing()) if self._header[0] == _STDOUT else self._left

    def _missing(self) -> int:
        """Bytes the frame under way still lacks, as far as can be told."""
        have = len(self._buffer)
        return 4 - have if have < 4 else 4 + struct.unpack_from("<I", self._buffer)[0] - have

    def _feed(self, part: bytes) -> bool:
        """Docker sends a program's output in chunks, each after a header. Whether a frame is complete."""
        if not self._left:
            self._header += part
            if len(self._header) == _CHUNK.size:
                self._left = _CHUNK.unpack(self._header)[1]
                if not self._left:
                    self._header.clear()
            return False
        complete = False
        if self._header[0] == _STDOUT:
            self._buffer += part
            complete = len(self._buffer) >= 4 and not self._missing()
        self._left -= len(part)
        if not self._left:
            self._header.clear()
        return complete


def _greeting(kind: WorkerKind) -> dict[str, Any]:
    """The first frame: the relay's source, and in its table all that the fork-server needs."""
    cpu_files = [Path(f"/sys/fs/cgroup/{name}") for name in ("cpuacct/cpuacct.usage", "cpu.stat")]
    table = table_for(kind, cpu_files=cpu_files if kind.processes else ())
    table |= {"python": [], "hidden": [], "sys_path": []}
    server = json.loads(boot("main", INSIDE, table))
    start = f"{BOOT}\nload(**json.load(os.fdopen(SENT)))"
    settings = {"server": server, "start": start, "flags": _flags(kind), "environment": ENVIRONMENT}
    greeting: dict[str, Any] = json.loads(boot("main", ("cgroups", "job_files", "container_relay"), settings))
    return greeting


def _flags(kind: WorkerKind) -> list[str]:
    """With packages to import, the image's own site-packages are needed."""
    return [flag for flag in FLAGS if not (flag == "-S" and kind.packages)]


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _find_engine() -> None:
    """Say plainly that nobody listens, before the SDK does so in its own words."""
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    path = host.removeprefix("unix://")
    if path != host and not os.path.exists(path):
        raise SandboxError(f"no Docker engine: nothing listens at {host}")


def _sdk() -> Any:
    try:
        import docker
    except ImportError:
        raise MissingDependencyError("docker", "docker", "the docker sandbox level") from None
    return docker
