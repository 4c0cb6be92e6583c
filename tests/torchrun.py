"""torchrun, as the tests start it."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ALONE = ("--standalone", "--nproc-per-node=2")  # two ranks on one machine


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return int(found.getsockname()[1])


def started(*arguments: str | Path, **environment: str) -> "subprocess.Popen[str]":
    """A launcher, given its own arguments and the program's."""
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )  # fmt: skip


def ended(launcher: "subprocess.Popen[str]") -> "subprocess.CompletedProcess[str]":
    """What it has said, and its exit status."""
    with launcher:
        said = launcher.communicate(timeout=600)
    return subprocess.CompletedProcess(launcher.args, launcher.returncode, *said)


def torchrun(*arguments: str | Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Two ranks of a program on one machine, to their end."""
    return ended(started(*ALONE, *arguments, **environment))
