"""What a plan computes of memory is what a real process takes, within 15%."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from transformers import Qwen3Config

from vertigym.core.config import parse
from vertigym.learner.model_numbers import ModelNumbers
from vertigym.trainer.config import RunConfig
from vertigym.trainer.memory_plan import MemoryPlan, sampled_step

WITHIN = 0.15
SIZES = {"small": (192, 4), "middle": (320, 6), "large": (512, 8)}  # hidden, layers
PROMPTS, GROUP, ANSWER = (64, 64, 64, 64), 4, 96
# Two steps of a learner, in a process of its own; what it took beside its libraries, in bytes. The first
# step, of one sample, makes Adam's states.
CHILD = """
import json, sys, torch
from transformers import Qwen3Config, Qwen3ForCausalLM
from vertigym.learner.clock import peak_resident
from vertigym.learner.config import OptimizerConfig
from vertigym.learner.learner import Learner, tokenwise
from vertigym.trainer.memory_plan import sampled_step

shape, more, prompts, group, answer = json.loads(sys.argv[1])
torch.set_num_threads(1)
warm = torch.nn.Linear(8, 8)  # libraries load at first use
warm(torch.zeros(1, 8)).sum().backward()
torch.optim.AdamW(warm.parameters(), fused=True).step()
before = peak_resident()
learner = Learner(Qwen3ForCausalLM(Qwen3Config(**shape)), OptimizerConfig(), total_steps=2, **more)
samples = sampled_step(prompts, group, answer).samples
loss = tokenwise(lambda logp_T, entropy_T, batch: (-logp_T.sum(), {}))
for step in (samples[:1], samples):
    learner.forward_backward(step, loss)
    learner.optim_step()
print(peak_resident() - before)
"""


def shape_of(size: str) -> dict[str, Any]:
    hidden, layers = SIZES[size]
    heads = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": hidden // 8}
    shape = {"hidden_size": hidden, "num_hidden_layers": layers, "intermediate_size": 3 * hidden, **heads}
    return shape | {"vocab_size": 2048, "tie_word_embeddings": True, "attn_implementation": "sdpa"}


def taken(size: str, **more: Any) -> float:
    """Bytes, measured. Freed blocks go back to the system, so that what is resident is what is held."""
    plain = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    arguments = json.dumps([shape_of(size), more, PROMPTS, GROUP, ANSWER])
    command = [sys.executable, "-P", "-c", CHILD, arguments]
    done = subprocess.run(command, env=os.environ | plain, capture_output=True, text=True, check=True)
    return float(done.stdout)


def computed(size: str, tokens: int, checkpointing: bool) -> float:
    """Bytes of the training phase, computed."""
    table = {"name": "x", "env": "vertigym/Returns-v0", "model": "tiny", "algorithm": "sft", "steps": 2}
    table |= {
        "sft": {"data": "rows.jsonl"},
        "microbatch_tokens": tokens,
        "gradient_checkpointing": checkpointing,
    }
    config = parse(RunConfig, table, source="test")
    numbers = ModelNumbers(Qwen3Config(**shape_of(size)))
    found = MemoryPlan(numbers, config, sampled_step(PROMPTS, GROUP, ANSWER))
    return sum(found.states.values()) + sum(found.phases["training"].values())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="resident bytes are counted as Linux does")
@pytest.mark.parametrize(("size", "checkpointing"), [("small", True), ("middle", False), ("large", True)])
def test_training_takes_what_was_computed(size: str, checkpointing: bool) -> None:
    measured = taken(size, microbatch_tokens=1024, checkpointing=checkpointing)
    assert computed(size, 1024, checkpointing) == pytest.approx(measured, rel=WITHIN)
