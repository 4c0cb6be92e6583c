"""RL on generated arithmetic learns: a held-out gain over the warm start whose interval excludes 0."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "arithmetic" / "train.py"


@pytest.mark.slow(first=True)
def test_a_tiny_model_learns_arithmetic(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, EXAMPLE], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "unseen sums" in done.stdout
    assert (tmp_path / "runs" / "arithmetic" / "arithmetic-grpo" / "promoted.json").exists()
