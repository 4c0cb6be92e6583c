"""Shared by all tests: one torch thread (two spin and collapse when anything else runs), no model hub."""

import os
import sys
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports triton: its kernels run on CPU tensors

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


def pytest_report_header() -> str:
    """The sandbox that is left on this machine, and what the stronger ones miss."""
    from vertigym.sandboxes import levels

    return "\n".join(f"sandbox {row.name}: {'available' if row.available else row.missing}" for row in levels())


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
