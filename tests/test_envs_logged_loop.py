"""The whole loop over real HTTP: a served model's calls and feedback train the next one, which is promoted and
served; a server killed in mid-write loses no call that it answered."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from vertigym.core.files import read_jsonl

EXAMPLE = Path(__file__).parents[1] / "examples" / "loop" / "loop.py"


@pytest.mark.slow
def test_the_second_model_is_promoted_on_feedback_to_the_first(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(EXAMPLE)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = (float(share) for share in re.findall(r"was right in ([\d.]+)% of", done.stdout))
    assert second > first + 10
    assert done.stdout.count(" 0 of them are lost") == 2
    run = tmp_path / "runs" / "loop"
    assert "promoted" in [row["verdict"] for row in read_jsonl(run / "grpo" / "gates.jsonl")]
    versions = [
        {row["version"] for row in read_jsonl(run / name / "calls.jsonl", torn_tail=True) if "messages" in row}
        for name in ("round-1", "round-2")
    ]
    assert [len(one) for one in versions] == [1, 1]
    assert versions[0] != versions[1]
