"""A full disk, SIGTERM or SIGINT ends a run with one clear line; what it leaves resumes to the same bits."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch

from vertigym.core.config import parse
from vertigym.core.errors import RunError
from vertigym.core.files import is_disk_full, read_jsonl, sha256
from vertigym.learner.clock import repeatable
from vertigym.trainer.config import RunConfig
from vertigym.trainer.loop import RunOutcome, train

EXAMPLE = Path(__file__).parents[1] / "examples" / "ask_first"
SIZE = {"hidden": 32, "layers": 1, "heads": 2, "key_heads": 2, "ffn": 48}


@pytest.fixture(scope="module", autouse=True)
def on_the_path() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLE))
        torch.set_num_threads(1)
        yield


def table(output: Path) -> dict[str, Any]:
    return {
        "name": "run", "env": "ask_first", "model": "tiny", "algorithm": "ppo", "steps": 8, "tiny": SIZE,
        "output": str(output), "threads": 1, "optimizer": {"lr": 1e-2}, "policy": {"entropy": 0.5},
        "rollout": {"tasks": 4, "group_size": 2, "max_tokens": 8, "save_every": 1}, "checkpoint": {"every": 1},
    }  # fmt: skip


def config(output: Path) -> RunConfig:
    return parse(RunConfig, table(output), source="test")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> RunOutcome:
    return train(config(tmp_path_factory.mktemp("whole")))


def same(ours: RunOutcome, theirs: RunOutcome) -> bool:
    metrics = ([repeatable(r) for r in read_jsonl(o.run.folder / "metrics.jsonl")] for o in (ours, theirs))
    names = ("model.safetensors", "trainer/state.pt", "trainer/critic/model.pt")
    return next(metrics) == next(metrics) and all(
        sha256(ours.last / name) == sha256(theirs.last / name) for name in names
    )


def full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("write", [3, 12, 30, 47])
def test_a_full_disk_leaves_a_run_that_resumes(
    done: RunOutcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: int
) -> None:
    sync, count = os.fsync, 0

    def fails(handle: int) -> None:
        nonlocal count
        count += 1
        if count >= write:
            raise full()
        sync(handle)

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(RunError, match=r"the disk is full.*--resume") as caught:
        train(config(tmp_path))
    monkeypatch.undo()
    assert "\n" not in str(caught.value)
    assert same(train(config(tmp_path), resume=True), done)


def mentions(error: Exception) -> Exception:
    with suppress(ValueError):
        try:
            raise full()
        except OSError:
            raise error from None
    return error


@pytest.mark.parametrize(
    ("error", "is_full"),
    [
        (full(), True),
        (OSError(errno.EDQUOT, "quota"), True),
        (mentions(ValueError("torch's own words")), True),
        (RuntimeError("I/O error: No space left on device (os error 28)"), True),
        (OSError(errno.EACCES, "denied"), False),
        (ValueError("x"), False),
    ],
)
def test_a_full_disk_is_told_from_other_errors(error: Exception, is_full: bool) -> None:
    assert is_disk_full(error) == is_full


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A file system of its own, of a size that can be changed."""
    place = tmp_path / "small"
    place.mkdir()

    def sized(size: str) -> Path:
        how = "remount," if os.path.ismount(place) else ""
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"{how}size={size}", "tmpfs", place], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"a small disk needs the right to mount: {done.stderr.strip()}")
        return place

    yield sized
    if os.path.ismount(place):
        subprocess.run(["umount", "-l", place], check=True)


def begun(folder: Path, output: Path) -> "subprocess.Popen[str]":
    """The command line, training, as from a terminal: in a shell's background SIGINT is ignored."""
    (folder / "run.toml").write_text(tomli_w.dumps(table(output)))
    command = [sys.executable, "-c", "from vertigym.cli import main; main()", "train", "run.toml"]
    environment = os.environ | {"PYTHONPATH": str(EXAMPLE)}
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment, cwd=folder, preexec_fn=heard
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_run_that_resumes(done: RunOutcome, tmp_path: Path, number: signal.Signals) -> None:
    with begun(tmp_path, tmp_path) as process:
        while process.poll() is None and not (tmp_path / "run" / "metrics.jsonl").exists():
            time.sleep(0.01)
        process.send_signal(number)
        _, stderr = process.communicate()
    assert process.returncode == 130
    assert stderr.splitlines()[-1].startswith("vertigym: interrupted; what was finished is kept")
    assert "Traceback" not in stderr
    assert len(read_jsonl(tmp_path / "run" / "metrics.jsonl")) < 8, "the run must have had something left to do"
    assert same(train(config(tmp_path), resume=True), done)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a small disk: root on Linux")
@pytest.mark.parametrize("share", [0.1, 0.4, 0.6, 0.8])
def test_a_disk_that_is_really_full(
    done: RunOutcome, tmp_path: Path, small_disk: Callable[[str], Path], share: float
) -> None:
    needed = sum(file.stat().st_blocks * 512 for file in done.run.folder.rglob("*"))
    place = small_disk(str(int(share * needed)))
    with begun(tmp_path, place) as process:
        _, stderr = process.communicate()
    assert process.returncode == 2
    lines = [line for line in stderr.splitlines() if line.startswith("vertigym: ")]
    assert len(lines) == 1
    assert "the disk is full" in lines[0]
    assert "Traceback" not in stderr
    small_disk("20m")
    assert same(train(config(place), resume=True), done)
