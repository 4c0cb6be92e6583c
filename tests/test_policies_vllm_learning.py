"""Real vLLM, on a CPU, beside the transformers engine: the same learning."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from vertigym.benchmarks.learning import exact_scores, on_engine, returns_start

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed here: make test-vllm"),
    pytest.mark.filterwarnings("ignore"),  # vLLM and what it brings warn a lot
]


def test_grpo_learns_as_much_with_vllm_as_with_transformers(tmp_path: Path) -> None:
    """One seed; `benchmarks/learning.py engines` runs others."""
    torch.set_num_threads(1)
    warm = returns_start(tmp_path, 0, "steps=150")
    plain, outcome = (on_engine(warm, 0, engine) for engine in ("transformers", "vllm"))
    rows = outcome.run.metrics()
    assert max(row.get("probe_mean", 0) for row in rows) < 1e-4
    assert max(row["sampler_kl"] for row in rows) < 1e-4
    assert min(row["correction"] for row in rows) == pytest.approx(1, abs=1e-3)
    (start, ours), (same_start, theirs) = exact_scores(plain), exact_scores(outcome)
    assert start == same_start, "greedy answers of one model"
    assert min(ours, theirs) > start + 0.15
    assert theirs == pytest.approx(ours, abs=0.08)
