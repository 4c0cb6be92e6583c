"""The examples run as they are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_four_verbs_learn(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "low_level.py")]
    single = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, env=single)
    rewards = [float(line.rpartition(" ")[2]) for line in done.stdout.splitlines() if "mean reward" in line]
    assert rewards[0] < 0.6
    assert rewards[-1] > 0.9


@pytest.mark.slow
def test_a_lenders_table_of_seven_rules_ends_promoted(tmp_path: Path) -> None:
    """One seed; benchmarks/RESULTS.md has others."""
    command = [sys.executable, str(EXAMPLES / "demo.py"), "--decision", str(EXAMPLES / "lender" / "loans.csv")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "loans.csv: 7 of 7 rules are hit" in done.stdout
    assert "promoted: runs/demo/grpo/checkpoints/" in done.stdout
