"""Inside a container: the other end of `docker.ContainerWorker`.

A byte stream is all that crosses a container's border, so this process plays the controller's part next to the
fork-server: it reads a frame a job, makes the descriptors, passes them, and writes a frame back. The
fork-server itself still never sees a job's bytes.

A frame is a 4-byte length and JSON; bytes travel as base64. Standard library only.
"""

import base64
import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

from vertigym.sandboxes import cgroups
from vertigym.sandboxes.job_files import JobFiles

_CGROUPS = (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup"))  # version 1, version 2: the container's own


def main(table: dict[str, Any]) -> NoReturn:
    """Start the fork-server with `table["server"]`, then relay until the stream ends."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sent = os.memfd_create("boot")
    started = table["server"]
    started["table"]["extra"]["control"] = theirs.fileno()
    os.write(sent, json.dumps(started).encode())
    os.lseek(sent, 0, os.SEEK_SET)
    subprocess.Popen(  # noqa: S603
        [sys.executable, *table["flags"], "-c", table["start"].replace("SENT", str(sent))],
        env=table["environment"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(theirs.fileno(), sent),
    )
    theirs.close()
    os.close(sent)
    write_frame(1, {"said": ours.recv(4096).decode("utf-8", "replace")})
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    while (job := read_frame(0)) is not None:
        write_frame(1, _one(ours, job, null))
    os._exit(0)


def _one(control: socket.socket, job: dict[str, Any], null: int) -> dict[str, Any]:
    starved = _oom_kills()
    files = JobFiles([base64.b64decode(p) for p in job["payloads"]], base64.b64decode(job["stdin"]), null)
    try:
        socket.send_fds(control, [base64.b64decode(job["order"])], files.passed)
        files.handed_over()
        reply = control.recv(4096)
        if not reply:
            os._exit(1)
        stdout, stderr, results = files.read(job["output_bytes"], job["result_bytes"])
    finally:
        files.close()
    return {
        "reply": base64.b64encode(reply).decode(),
        "stdout": base64.b64encode(stdout).decode(),
        "stderr": base64.b64encode(stderr).decode(),
        "results": [base64.b64encode(result).decode() for result in results],
        "oom": _oom_kills() > starved,
    }


def _oom_kills() -> int:
    """How many processes of this container the kernel has killed for want of memory."""
    return max(map(cgroups.oom_kills, _CGROUPS))


def read_frame(descriptor: int) -> dict[str, Any] | None:
    """The next frame; None at the end of the stream."""
    header = _exactly(descriptor, 4)
    if header is None:
        return None
    body = _exactly(descriptor, struct.unpack("<I", header)[0])
    return None if body is None else json.loads(body)


def write_frame(descriptor: int, frame: dict[str, Any]) -> None:
    """Write one frame."""
    body = json.dumps(frame).encode()
    data = struct.pack("<I", len(body)) + body
    while data:
        data = data[os.write(descriptor, data) :]


def _exactly(descriptor: int, count: int) -> bytes | None:
    parts = []
    while count:
        part = os.read(descriptor, count)
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
