"""Shared by all tests: one torch thread (two spin and collapse when anything else runs), no model hub."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports triton: its kernels run on CPU tensors

with suppress(ImportError):  # vLLM's environment has none
    from hypothesis import settings

    settings.register_profile("untimed", deadline=None)  # no test is about time
    settings.load_profile("untimed")

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


class Ended(NamedTuple):
    """How a command line ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """All of it as one line, errors first."""
        return " ".join((self.err + self.out).split())


CommandLine = Callable[..., Ended]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> CommandLine:
    """Run `vertigym` with some arguments in this process, in an empty folder and a wide terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*arguments: object) -> Ended:
        from vertigym import cli

        monkeypatch.setattr(sys, "argv", ["vertigym", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Ended(code, *capsys.readouterr())

    return invoke


def pytest_report_header() -> str:
    """The sandbox that is left on this machine, and what the stronger ones miss."""
    from vertigym.sandboxes import levels

    return "\n".join(f"sandbox {row.name}: {'available' if row.available else row.missing}" for row in levels())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest begin first: at the end no worker is left alone with one."""
    items.sort(key=lambda item: not any(mark.kwargs.get("first") for mark in item.iter_markers("slow")))


@pytest.fixture
def data() -> Path:
    """Real data beside the checkout; tests that need it are skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no folder {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def sandbox() -> None:
    """For tests that run programs in a sandbox. On Linux one that is missing is a failure."""
    if sys.platform != "linux":
        pytest.skip("the sandbox is the Linux kernel's isolation; elsewhere there is docker")
