"""Low-rank adapters through `peft`, put into a model in place: its class, and so every engine, stays the same.

Hu et al. 2021: `W x` becomes `W x + (alpha / rank) B A x`; only A and B are trained. A checkpoint is exported
with the adapters merged into the weights, as an ordinary model folder.
"""

from collections.abc import Callable
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from vertigym.core.config import Config
from vertigym.core.errors import ConfigError, MissingDependencyError
from vertigym.core.seeds import derive
from vertigym.policies.full_tensors import full_tensor

_NAME = "default"


class LoRAConfig(Config):
    """Adapters. Rank 16 and alpha 32 on every linear layer but the output head suit RL; use about ten times the
    learning rate of full training."""

    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    targets: str | tuple[str, ...] = Field("all-linear", description="module names, or all-linear")


def add_lora(model: Any, config: LoRAConfig, *, seed: int) -> None:
    """Put adapters into `model`; only they stay trainable. They start as the identity.

    Raises:
        MissingDependencyError: peft is not installed. ConfigError: a target that the model does not have.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise MissingDependencyError("peft", "lora", "LoRA") from None
    targets = config.targets if isinstance(config.targets, str) else list(config.targets)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "lora"))
        try:
            inject_adapter_in_model(
                LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=targets), model, _NAME
            )
        except ValueError as error:
            raise ConfigError(f"lora.targets: {str(error).splitlines()[0]}") from None


def weight_of(linear: Any) -> Tensor:
    """A linear layer's full weight, with its adapter merged in where it has one."""
    if not hasattr(linear, "get_delta_weight"):
        return full_tensor(linear.weight)
    merged: Tensor = full_tensor(linear.base_layer.weight) + full_tensor(linear.get_delta_weight(_NAME))
    return merged


@torch.no_grad()
def merged_state(model: Any, keep: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> dict[str, Tensor]:
    """The model's state as if it had been trained without adapters on one rank: adapters merged, plain names.

    Args:
        keep: what to keep of each full tensor, applied at once, so that they need not all be in memory.
    """
    state: dict[str, Tensor] = {}
    names: dict[int, str] = {}  # by parameter: tied weights stay one tensor
    for name, value in model.state_dict(keep_vars=True).items():
        if ".lora_" in name:
            continue
        owner, base, leaf = name.partition(".base_layer.")
        plain = f"{owner}.{leaf}" if base else name
        if id(value) in names:
            state[plain] = state[names[id(value)]]
            continue
        merged = weight_of(model.get_submodule(owner)) if base and leaf == "weight" else full_tensor(value)
        names[id(value)], state[plain] = plain, keep(merged.detach())
    return state
