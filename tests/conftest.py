"""Shared by all tests: one torch thread (two spin and collapse when anything else runs), no model hub."""

import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports triton: its kernels run on CPU tensors

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def data() -> Path:
    """Real data beside the checkout; tests that need it are skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no folder {SHARED_DATA}")
    return SHARED_DATA
