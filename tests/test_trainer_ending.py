"""How two ranks end when one is killed, or both are stopped: soon, with one line, and resumably to the bit."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import tomli_w

from vertigym.core.files import sha256

from .returns import ENV, SHORT, rows, suite, warm
from .torchrun import ALONE, ended, started, torchrun

PASSED = '[[gate]]\nrule = "at_most"\nmetric = "tokens"\nthreshold = 1000\n'  # a run of rejections ends with 1

# One process, told to stop: while it computes, or while it hangs where Python runs no signal handler.
ALONE_PROGRAM = """
import ctypes, os, signal, sys, threading
from vertigym.core.errors import RunError
from vertigym.learner import rank_failure

rank_failure._GRACE_S = 1.0

def compute():  # not inside `with`: CPython before 3.14 may let a signal in such a loop past it
    while True:
        pass

def hang():
    lock, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
    for _ in range(2):  # the second time for ever
        libc.pthread_mutex_lock(lock)

try:
    with rank_failure.fail_together():
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        compute() if sys.argv[1] == "computes" else hang()
except RunError as error:
    os.kill(os.getpid(), signal.SIGTERM)  # again, while it ends
    sys.exit(f"vertigym: {error}")
"""

# The command line, in which the rank VICTIM is killed, and what the other is doing then.
PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from vertigym.cli import main
from vertigym.learner import ranks
from vertigym.trainer import collect

victim, other_is = os.environ["VICTIM"] == os.environ["RANK"], os.environ["OTHER_IS"]
there = Path(sys.argv[0]).parent / "there"

def struck(self, step, number, tasks, sample=collect.Collector._sample):
    if step == 5:
        meet_and_die()
        while other_is == "sampling":
            pass
    return sample(self, step, number, tasks)

def join(size, join=ranks._join):
    if other_is == "joining":
        meet_and_die()
    return join(size)

def meet_and_die():
    while victim and not there.exists():
        time.sleep(0.01)
    if victim:
        os.kill(os.getpid(), signal.SIGKILL)
    there.touch()

collect.Collector._sample, ranks._join = struck, join
main()
"""


def spoken(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if line.startswith("vertigym: ")]


@pytest.mark.parametrize("it", ["computes", "hangs"])
def test_sigterm_is_answered_with_one_line_and_exit_code(it: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", ALONE_PROGRAM, it], capture_output=True, text=True, timeout=60)
    (line,) = spoken(done.stderr)
    assert line.startswith("vertigym: told to stop (SIGTERM)")
    assert line.endswith("start all of them again with --resume")
    assert "Traceback" not in done.stderr
    assert done.returncode == (2 if it == "hangs" else 1), "not by the signal"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run to start, and that run, to which nothing happens, in `whole`."""
    folder = tmp_path_factory.mktemp("ending")
    (folder / "suite.toml").write_text(suite(8, SHORT, PASSED))
    config = {
        "name": "run", "env": ENV, "model": str(warm(folder, tasks=120)), "algorithm": "grpo", "steps": 8,
        "threads": 1, "optimizer": {"lr": 1e-3}, "checkpoint": {"every": 1}, "microbatch_tokens": 700,
        "rollout": {"tasks": 5, "group_size": 4, "max_tokens": 24},
        "eval": {"suites": [str(folder / "suite.toml")], "every": 4},
    }  # fmt: skip
    (folder / "run.toml").write_text(tomli_w.dumps(config))
    done = vertigym(folder, "whole")
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def vertigym(folder: Path, output: str, *options: str) -> "subprocess.CompletedProcess[str]":
    return torchrun("-m", "vertigym", "train", folder / "run.toml", f"output={folder / output}", *options)


def strike(folder: Path, output: str, victim: int, other_is: str, *options: str) -> str:
    """What we say where torchrun reports that one rank was killed."""
    program = folder / output / f"kills-{victim}" / "program.py"
    program.parent.mkdir(parents=True)
    program.write_text(PROGRAM)
    command = (program, "train", folder / "run.toml", f"output={folder / output}")
    done = torchrun(*command, *options, VICTIM=str(victim), OTHER_IS=other_is)
    assert done.returncode == 1
    _, cause = done.stderr.split("Root Cause")
    assert f"rank      : {victim} (local_rank: {victim})" in cause
    assert "(SIGKILL)" in cause
    assert "KeyboardInterrupt" not in done.stderr
    (line,) = spoken(done.stderr)
    return line


@pytest.mark.slow
def test_a_rank_that_dies_ends_the_run_which_then_resumes_to_the_bit(place: Path) -> None:
    """One rank, and then, where the run is resumed, the other."""
    killed, whole = place / "killed" / "run", place / "whole" / "run"
    for victim, options in enumerate(([], ["--resume"])):
        line = strike(place, "killed", victim, "waiting", *options)
        assert "another rank was lost" in line
        assert line.endswith("start all of them again with --resume")
        assert len(rows(killed)) == 5, "what was finished is kept"
    done = vertigym(place, "killed", "--resume")
    assert done.returncode == 0, done.stderr[-3000:]
    assert rows(killed) == rows(whole)
    for file in ("model.safetensors", "trainer/state.pt"):
        name = f"checkpoints/step-000008/{file}"
        assert sha256(killed / name) == sha256(whole / name)


@pytest.mark.slow
@pytest.mark.parametrize("other_is", ["sampling", "joining"])
def test_one_line_also_where_the_other_rank_does_not_talk_to_it(other_is: str, place: Path) -> None:
    line = strike(place, other_is, 1, other_is)
    assert line.startswith("vertigym: told to stop (SIGTERM), as torchrun does when")
    assert "another rank was lost" in line


@pytest.mark.slow
def test_a_launcher_that_is_told_to_stop(place: Path) -> None:
    output = place / "stopped"
    launcher = started(*ALONE, "-m", "vertigym", "train", place / "run.toml", f"output={output}")
    while launcher.poll() is None and not (output / "run" / "metrics.jsonl").exists():
        time.sleep(0.01)
    launcher.terminate()
    done = ended(launcher)
    assert done.returncode != 0
    (line,) = spoken(done.stderr)
    assert line.startswith("vertigym: told to stop (SIGTERM)")
    assert 1 <= len(rows(output / "run")) < 8, "the run must have had something left to do"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "why"),
    [
        (("train", "run.toml"), "model"),
        (("eval", "suite.toml", "-m", "tiny"), "`vertigym eval` runs in one process"),
    ],
)
def test_what_is_wrong_on_every_rank_is_said_once(command: tuple[str, ...], why: str, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('name = "x"\nenv = "a/B-v0"\nalgorithm = "grpo"\nsteps = 1\n')
    named = (tmp_path / word if word.endswith(".toml") else word for word in command)
    done = torchrun("-m", "vertigym", *named)
    (line,) = spoken(done.stderr)
    assert why in line
    assert "exitcode  : 2" in done.stderr
    assert done.returncode != 0
