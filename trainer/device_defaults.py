"""Defaults that depend on where a run computes: on a CPU those of the config's keys, on a GPU what follows.

The one idea: a key that is given stays as given, on any device; only one that is left out changes. A run's
folder keeps what it ran with, so that it cannot be resumed with something else without a word.
"""

from typing import Any

import torch

from vertigym.core.config import has_key, with_key
from vertigym.trainer.config import RunConfig

# By arithmetic: float32 without tensor cores is 8 to 10 times slower than bfloat16; 16,384 tokens of a 0.6B
# model keep 56 GB without checkpointing; vLLM decodes a small model several times faster with CUDA graphs.
ON_CUDA: dict[str, Any] = {
    "dtype": "bfloat16",
    "head_precision": "tf32",
    "gradient_checkpointing": True,
    "rollout.vllm.eager": False,
}
# Only where the sampler's log-probs are corrected anyway.
ON_CUDA_IF_PROBED: dict[str, Any] = {"rollout.dtype": "bfloat16"}


def device_type() -> str:
    """Where a run on this machine computes."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def for_device(config: RunConfig, device: str) -> RunConfig:
    """The config with the defaults of a device, `cuda` or `cpu`."""
    if device != "cuda":
        return config
    defaults = ON_CUDA | (ON_CUDA_IF_PROBED if config.rollout.probe else {})
    if config.dtype == "float32" and has_key(config, "dtype"):  # tf32 would be the trunk's as well
        defaults = {key: value for key, value in defaults.items() if key != "head_precision"}
    for key, value in defaults.items():
        if not has_key(config, key):
            config = with_key(config, key, value)
    return config
