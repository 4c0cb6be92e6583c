"""A Docker engine of the tests' own, by hand and without a registry: dockerd on a private socket, and an image
imported from a tar of this interpreter. Debian and its kin, as root."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

IMAGE = "vertigym-test:latest"
_PROGRAMS = ("bash", "cat", "env", "ln", "ls", "rm", "sh", "sleep", "true")
_LEFT_OUT = {"test", "tests", "site-packages", "dist-packages", "__pycache__", "idlelib", "ensurepip"}
_APT = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "docker.io"]


class NoEngineError(Exception):
    """Why there is none here."""


def install() -> None:
    """docker.io, where it is missing.

    Raises:
        NoEngineError: not root, or apt cannot.
    """
    if os.geteuid() != 0:
        raise NoEngineError("starting dockerd needs root")
    if shutil.which("dockerd"):
        return
    if not shutil.which("apt-get"):
        raise NoEngineError("no dockerd, and no apt-get to install it")
    for command in (["apt-get", "update", "-qq"], _APT):
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
        if ran.returncode:
            raise NoEngineError(f"{' '.join(command)}: {ran.stderr.strip()[-200:]}")


@contextmanager
def dockerd(folder: Path) -> Iterator[str]:
    """An engine with all it owns below `folder` and IMAGE in it: its DOCKER_HOST.

    Raises:
        NoEngineError: it did not start.
    """
    host = f"unix://{folder}/docker.sock"
    command = [
        *("dockerd", "-H", host, "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec"),
        *("-p", f"{folder}/pid", "--iptables=false", "--ip6tables=false", "--bridge=none"),
        *("--storage-driver=overlay2", "--default-ulimit", "nofile=1024:1024"),
    ]
    with (folder / "log").open("wb") as log:
        engine = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        _wait(engine, host, folder / "log")
        write_image(folder / "image.tar")
        subprocess.run(
            ["docker", "-H", host, "import", folder / "image.tar", IMAGE], check=True, capture_output=True
        )
        yield host
    finally:
        engine.terminate()  # it ends its containers and its containerd
        try:
            engine.wait(30)
        except subprocess.TimeoutExpired:
            engine.kill()
            engine.wait()
        _unmount(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _wait(engine: "subprocess.Popen[bytes]", host: str, log: Path) -> None:
    for _ in range(300):
        if engine.poll() is not None:
            break
        with suppress(subprocess.TimeoutExpired):
            if (
                subprocess.run(["docker", "-H", host, "version"], capture_output=True, timeout=10).returncode
                == 0
            ):
                return
        time.sleep(0.1)
    raise NoEngineError(f"dockerd did not start: {log.read_text(errors='replace')[-300:]}")


def _unmount(folder: Path) -> None:
    rows = [row.split()[1] for row in Path("/proc/self/mounts").read_text().splitlines()]
    for path in sorted((row for row in rows if row.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "-l", path], capture_output=True)


def write_image(target: Path) -> None:
    """A root with this interpreter in /usr/local, its standard library, a shell and what they link to."""
    python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    programs = [path for name in _PROGRAMS if (path := shutil.which(name))]
    with tarfile.open(target, "w") as tar:
        for name in ("bin", "lib", "lib64"):
            _link(tar, name, f"usr/{name}")
        for name in ("dev", "etc", "proc", "sys", "tmp"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(folder)
        tar.add(sysconfig.get_path("stdlib"), f"usr/local/lib/{version}", filter=_wanted)
        tar.add(python, f"usr/local/bin/{version}")
        _link(tar, "usr/local/bin/python3", version)
        for program in programs:
            tar.add(os.path.realpath(program), f"usr/bin/{os.path.basename(program)}")
        extensions = Path(sysconfig.get_config_var("DESTSHARED")).glob("*.so")
        for library in sorted(
            {one for path in [python, *programs, *map(str, extensions)] for one in _linked(path)}
        ):
            tar.add(os.path.realpath(library), _place(library))


def _wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    parts = Path(entry.name).parts
    left_out = _LEFT_OUT.intersection(parts) or any(part.startswith("config-") for part in parts)
    return None if left_out else entry


def _linked(program: str) -> set[str]:
    """The shared libraries a program is linked to, where the loader finds them."""
    rows = subprocess.run(
        ["ldd", os.path.realpath(program)], capture_output=True, text=True
    ).stdout.splitlines()
    return {word for row in rows for word in row.split() if word.startswith("/")}


def _place(library: str) -> str:
    """Where the image has it: a folder that the loader searches."""
    if library.startswith("/lib"):
        return f"usr{library}"
    return library[1:] if library.startswith("/usr/lib") else f"usr/lib/{os.path.basename(library)}"


def _link(tar: tarfile.TarFile, name: str, target: str) -> None:
    link = tarfile.TarInfo(name)
    link.type, link.linkname = tarfile.SYMTYPE, target
    tar.addfile(link)
