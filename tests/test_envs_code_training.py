"""Training with rewards out of the sandbox, end to end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "code" / "train.py"


@pytest.mark.slow
@pytest.mark.usefixtures("sandbox")
def test_a_tiny_model_learns_to_write_functions_that_pass(tmp_path: Path) -> None:
    command, single = [sys.executable, str(EXAMPLE)], os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=single, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = [float(line.split()[2]) for line in done.stdout.splitlines() if line.startswith("step ")]
    assert passed[-1] > passed[0] + 0.2
