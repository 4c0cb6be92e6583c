"""`make setup` says in one line what is missing, and never takes a half-made environment for a whole one.

The interpreter is a stand-in: it makes a folder where `venv` is asked for, and notes what `pip` is told.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SETUP = Path(__file__).parents[1] / ".ci" / "setup"
PYTHON = f"""#!/bin/sh
case "$1 $2" in
"--version ") echo "Python $VERSION" ;;
"-c import sys; sys.exit"*) [ -z "$TOO_OLD" ] ;;
"-c import venv, ensurepip") [ -z "$NO_VENV" ] ;;
"-c import platform"*) echo "$VERSION" ;;
"-c import sys, urllib"*) [ -z "$OFFLINE" ] ;;
"-m venv")
    mkdir -p "$3/bin"
    {{ echo "#!/bin/sh"; echo "VERSION=$VERSION"; cat "$0"; }} >"$3/bin/python"
    chmod +x "$3/bin/python" ;;
"-m pip") shift 2 && echo "$*" >>"$LOG" && [ -z "$PIP_FAILS" ] ;;
*) exec {sys.executable} "$@" ;;
esac
"""
CPU = "--extra-index-url https://download.pytorch.org/whl/cpu"


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder of commands: a machine without a GPU, with room on the disk."""
    folder = tmp_path / "bin"
    folder.mkdir()
    put(folder, "python3", PYTHON)
    put(folder, "nvidia-smi", "#!/bin/sh\nexit 9\n")
    put(folder, "uname", "#!/bin/sh\necho Linux\n")
    put(folder, "df", "#!/bin/sh\necho Header\necho disk 99999999 1 ${FREE:-99999999} 1% /\n")
    return folder


def put(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def setup(machine: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    path = f"{machine}:{os.environ['PATH']}"
    known = {
        "PATH": path,
        "LOG": str(machine.parent / "log"),
        "PYTHON": "python3",
        "VERSION": "3.11.7",
        **variables,
    }
    command = ["sh", str(SETUP), "env", "pins.txt", "-e", ".[dev]"]
    return subprocess.run(command, cwd=machine.parent, env=known, capture_output=True, text=True)


def asked_of_pip(machine: Path) -> list[str]:
    log = machine.parent / "log"
    return log.read_text().splitlines() if log.exists() else []


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"PYTHON": "python9"}, "no python9 here: install Python 3.11 or newer"),
        ({"TOO_OLD": "1", "VERSION": "3.10.2"}, "python3 is Python 3.10.2; vertigym needs 3.11 or newer"),
        ({"NO_VENV": "1"}, "python3 has no venv module (Debian, Ubuntu: apt install python3-venv)"),
        ({"FREE": "2000000"}, "only 2 GB are free here: env needs up to 3 GB"),
    ],
)
def test_what_is_missing_is_said_in_one_line(machine: Path, variables: dict[str, str], said: str) -> None:
    done = setup(machine, **variables)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"setup: {said}")
    assert done.returncode == 2
    assert not asked_of_pip(machine)


def test_torch_comes_first_and_small_where_there_is_no_gpu(machine: Path) -> None:
    done = setup(machine)
    torch, rest = asked_of_pip(machine)
    assert torch.endswith(f"{CPU} -c pins.txt torch")
    assert rest.endswith("-c pins.txt -e .[dev]")
    assert CPU not in rest
    first, *_, last = done.stdout.splitlines()
    assert first == f"setup: env, Python 3.11.7, torch from {CPU.split()[1]}: up to 3 GB"
    assert last.startswith("setup: env is ready: ")
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("variables", "index"),
    [
        ({"TORCH_INDEX": "https://mirror/cu130"}, "--extra-index-url https://mirror/cu130 "),
        ({"TORCH_INDEX": ""}, ""),
        ({"OFFLINE": "1"}, ""),
        ({"GPU": "1"}, ""),
    ],
)
def test_where_torch_comes_from(machine: Path, variables: dict[str, str], index: str) -> None:
    if "GPU" in variables:
        put(machine, "nvidia-smi", "#!/bin/sh\n")
    done = setup(machine, **variables)
    assert asked_of_pip(machine)[0] == f"install --disable-pip-version-check {index}-c pins.txt torch"
    assert "up to 7 GB" in done.stdout


def test_what_was_interrupted_is_started_again(machine: Path) -> None:
    folder = machine.parent / "env"
    assert setup(machine, PIP_FAILS="1").returncode == 2
    (folder / "half").touch()
    done = setup(machine)
    assert "env was not finished: starting it again" in done.stdout
    assert not (folder / "half").exists()
    (folder / ".done").touch()
    (folder / "whole").touch()
    assert setup(machine, PIP_FAILS="1").returncode == 2
    assert not (folder / ".done").exists(), "make would take it for whole"


def test_a_whole_one_is_built_upon_unless_it_is_of_another_python(machine: Path) -> None:
    setup(machine)
    (machine.parent / "env" / "whole").touch()
    setup(machine)
    put(machine, "python3", PYTHON.replace("$VERSION", "3.12.1"))
    setup(machine, PYTHON="")
    assert (machine.parent / "env" / "whole").exists()
    assert "env is of another Python" in setup(machine).stdout
    assert not (machine.parent / "env" / "whole").exists()


def test_a_package_that_cannot_be_built_names_the_compiler_that_is_missing(machine: Path) -> None:
    for name in ("sh", "mkdir", "cat", "chmod", "rm", "touch", "awk", "du"):
        (machine / name).symlink_to(shutil.which(name) or name)
    done = setup(machine, PIP_FAILS="1", PATH=str(machine))
    said = ["setup: there is no C compiler (cc)", "setup: pip could not install"]
    assert [line[: len(text)] for line, text in zip(done.stderr.splitlines(), said, strict=True)] == said
