"""Time and peak memory of one learner's pass over a group, its samples in rows of their own and in shared rows.

    python benchmarks/gpu_attention.py [--prompt 4096] [--answer 2048] [--group 16] [--layers 4]

Layers of Qwen3-0.6B's shape, random weights. On a CPU the peak is that of the process and both ways share it,
so that it says little; take small numbers there, to see that it runs.
"""

import argparse
import json
import time
from typing import Any

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from vertigym.learner.clock import peak_memory
from vertigym.learner.config import OptimizerConfig
from vertigym.learner.learner import Learner, tokenwise
from vertigym.trainer.memory_plan import sampled_step

REPEATS = 3


def main() -> None:
    """Print a line of JSON for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"prompt": 4096, "answer": 2048, "group": 16, "layers": 4}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    given = parser.parse_args()
    sizes: dict[str, Any] = {
        "attn_implementation": "sdpa",
        "vocab_size": 8192, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": given.layers,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
    }  # fmt: skip
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = Qwen3ForCausalLM(Qwen3Config(**sizes))
    model.to(device)
    learner = Learner(model, OptimizerConfig(), total_steps=1, dtype=getattr(torch, given.dtype))
    samples = sampled_step([given.prompt], given.group, given.answer).samples
    loss = tokenwise(lambda logp_T, entropy_T, batch: (-logp_T.sum(), {}))
    for learner.share_rows in (False, True):
        times = []
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        for _ in range(REPEATS):
            began = time.perf_counter()
            learner.forward_backward(samples, loss)  # its sums are read, which waits for the GPU
            times.append(time.perf_counter() - began)
        row = {"shared": learner.share_rows, "seconds": round(min(times), 4), "peak_mib": round(peak_memory())}
        print(json.dumps(vars(given) | row))


if __name__ == "__main__":
    main()
