"""A vLLM server as a subprocess: a process group that ends with this process.

The one idea: it runs the module that `vllm serve` runs, at an address that only this machine reaches, with the
arguments of the in-process engine.
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
from vertigym.policies.vllm_in_process import ENVIRONMENT, engine_arguments, require_vllm

_STOP_S = 10.0
# What torchrun tells a rank; the server is none.
_LAUNCHER = {"RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
# The kernel ends a server when the thread that started it ends: this one stays.
_STARTER = ThreadPoolExecutor(1, thread_name_prefix="vllm-starter")


class VLLMSubprocess:
    """The first `ensure_running` starts it.

    Raises:
        MissingDependencyError: vLLM is not installed.
    """

    def __init__(self, folder: str | Path, config: VLLMConfig, *, dtype: str, context: int) -> None:
        require_vllm('rollout.vllm.mode = "server" without a url')
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._command = command(engine_arguments(folder, config, dtype=dtype, context=context), port)
        self._environment = {
            **{name: value for name, value in os.environ.items() if name not in _LAUNCHER},
            **ENVIRONMENT,
            "VLLM_CPU_KVCACHE_SPACE": f"{config.cache_gib:g}",
            "VLLM_SERVER_DEV_MODE": "1",  # allows new weights; only this machine reaches the address
        }
        self._environment.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)
        self._process: subprocess.Popen[bytes] | None = None
        self._log = Path(tempfile.mkdtemp(prefix="vertigym-")) / "vllm.log"
        atexit.register(self.stop)

    @property
    def pid(self) -> int:
        """The id of the process and of its group."""
        assert self._process
        return self._process.pid

    def ensure_running(self) -> None:
        """Start it if it is not running."""
        if self._process and self._process.poll() is None:
            return
        self.kill()  # what is left of its group
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
        """End it at once, with its children."""
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

    def log_tail(self) -> str:
        """The last error in its log, and where the log is."""
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
    """Let the kernel end this process when its parent ends, for whatever reason (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
