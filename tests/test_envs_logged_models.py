"""The support desk's small models, from its own logs, beat their warm start. The third, `intent`, is trained in
`test_envs_logged_loop.py`."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "desk" / "train.py"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["search", "answer"])
def test_a_small_model_beats_its_warm_start(name: str, tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLE), name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = numbers(done.stdout)
    metric = {"search": "recall", "answer": "score"}[name]
    before, after, low = found[metric]
    assert low > 0, done.stdout
    assert after > before + 0.1
    if name == "search":  # what the raw question finds is the same for both models
        assert after > found["raw_recall"][1]


def numbers(printed: str) -> dict[str, tuple[float, float, float]]:
    """Metric -> (before, after, lower end of the paired interval)."""
    rows = [line.replace("[", "").replace(",", "").split() for line in printed.splitlines() if " -> " in line]
    return {row[0]: (float(row[1]), float(row[3]), float(row[6])) for row in rows}
