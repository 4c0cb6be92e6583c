"""A vLLM server of our own: a process group that ends with us, and is started again when it has ended.

The one idea: it is started by what `vllm serve` starts, on an address that only this machine reaches, with the
arguments that the engine in process has.
"""

import atexit
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vertigym.policies.vllm_backend import VLLMConfig
from vertigym.policies.vllm_in_process import ENVIRONMENT, arguments, require_vllm

_STOP_S = 10.0
# What torchrun says to one of several ranks, and what we start from it is none.
_LAUNCHER = {"RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
# For the kernel, the parent whose end is a server's end is the thread that started it: one that stays.
_STARTER = ThreadPoolExecutor(1, thread_name_prefix="vllm-starter")


class ServerProcess:
    """Started by the first `ensure`.

    Raises:
        MissingDependencyError: vLLM is not installed.
    """

    def __init__(self, folder: str | Path, config: VLLMConfig, *, dtype: str, context: int) -> None:
        require_vllm('rollout.vllm.mode = "server" without a url')
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._command = command(arguments(folder, config, dtype=dtype, context=context), port)
        self._environment = {
            **{name: value for name, value in os.environ.items() if name not in _LAUNCHER},
            **ENVIRONMENT,
            "VLLM_CPU_KVCACHE_SPACE": f"{config.cache_gib:g}",
            "VLLM_SERVER_DEV_MODE": "1",  # weights may be handed over; the address is this machine's only
        }
        self._environment.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)
        self._process: subprocess.Popen[bytes] | None = None
        self._log = Path(tempfile.mkdtemp(prefix="vertigym-")) / "vllm.log"
        atexit.register(self.stop)

    @property
    def pid(self) -> int:
        """Of the process, and of its group."""
        assert self._process
        return self._process.pid

    def ensure(self) -> None:
        """Start it where it is not running."""
        if self._process and self._process.poll() is None:
            return
        self.kill()  # what its group may have left
        self._process = _STARTER.submit(self._start).result()

    def _start(self) -> "subprocess.Popen[bytes]":
        with self._log.open("wb") as log:
            return subprocess.Popen(  # noqa: S603
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )

    def kill(self) -> None:
        """End it at once, with all it has started."""
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def stop(self) -> None:
        """End it. May be called twice."""
        if self._process and self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_S)
        self.kill()
        self._process = None
        atexit.unregister(self.stop)

    def last_words(self) -> str:
        """The last line of its log that says something, and where the log is."""
        lines = [line.strip() for line in self._read().splitlines() if "Error" in line]
        return f"; its log {self._log} says: {lines[-1][-200:]}" if lines else f"; see its log {self._log}"

    def _read(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""


def command(settings: dict[str, object], port: int) -> list[str]:
    """The command line of a server with these engine arguments."""
    words = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    words += ["--host", "127.0.0.1", "--port", str(port), "--disable-uvicorn-access-log", "--enable-scale-out"]
    for name, value in settings.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else "--no-" + flag.removeprefix("--"))
        else:
            words += [flag, str(value)]
    return words


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _end_with_parent() -> None:
    """Have the kernel end this process when its parent ends, however it ends (Linux; elsewhere nothing)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
