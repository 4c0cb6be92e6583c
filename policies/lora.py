"""Low-rank adapters through `peft`, put into a model in place: its class, and so every engine, stays the same.

Hu et al. 2021: `W x` becomes `W x + (alpha / rank) B A x`; only A and B are trained. A checkpoint is exported
with the adapters merged into the weights, as an ordinary model folder.
"""

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    """Adapters. Rank 16 and alpha 32 on every linear layer but the output head suit RL, at about ten times the
    learning rate of full training, which is the default."""

    rank: int = Field(16, ge=1, description="of an adapter's two matrices")
    alpha: int = Field(32, ge=1, description="an adapter counts alpha / rank times")
    targets: str | tuple[str, ...] = Field("all-linear", description="module names, or all-linear")


def add_lora(model: Any, config: LoRAConfig, *, seed: int, own_head: bool = False) -> None:
    """Put adapters into `model`; only they stay trainable. They start as the identity. `own_head`: an output
    head that is one weight with the embedding may have one; merged, it is a weight of its own.

    Raises:
        MissingDependencyError: peft is not installed. ConfigError: a target that the model does not have.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise MissingDependencyError("peft", "lora", "LoRA") from None
    targets = config.targets if isinstance(config.targets, str) else list(config.targets)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="peft")  # of what it does for experts and transposed weights
        torch.manual_seed(derive(seed, "lora"))
        try:
            inject_adapter_in_model(
                LoraConfig(
                    r=config.rank,
                    lora_alpha=config.alpha,
                    target_modules=targets,
                    exclude_modules=_routers(model) if targets == "all-linear" else None,
                ),
                model,
                _NAME,
            )
        except ValueError as error:
            raise ConfigError(f"lora.targets: {str(error).splitlines()[0]}") from None
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if (
        not own_head
        and head is not None
        and head.weight is embedding.weight
        and {id(head), id(embedding)} & _adapted_layers(model)
    ):
        raise ConfigError(
            "lora.targets: the embedding and the output head are one weight here, and an adapter on one "
            "would not reach the other: leave both out"
        )


@contextmanager
def without_adapters(model: Any) -> Iterator[None]:
    """The model computes inside what it would without its adapters."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for layer in layers:
        layer.enable_adapters(False)  # also freezes them
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for parameter in trained:
            parameter.requires_grad_(True)


@torch.no_grad()
def _routers(model: Any) -> list[str]:
    """Linear layers that give more than one tensor, which an adapter cannot add to: those of some experts."""
    routers: list[str] = []

    def note(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: None if isinstance(output, Tensor) else routers.append(name)

    linear = torch.nn.Linear
    special = [(n, m) for n, m in model.named_modules() if isinstance(m, linear) and type(m) is not linear]
    hooks = [module.register_forward_hook(note(name)) for name, module in special]
    if hooks:
        model(input_ids=torch.tensor([[0, 1]], device=model.device), use_cache=False)
    for hook in hooks:
        hook.remove()
    return routers


def weight_of(linear: Any) -> Tensor:
    """A linear layer's full weight, with its adapter merged in where it has one."""
    if not hasattr(linear, "get_delta_weight"):
        return full_tensor(linear.weight)
    merged: Tensor = full_tensor(linear.base_layer.weight) + full_tensor(linear.get_delta_weight(_NAME))
    return merged


def adapter_of(linear: Any) -> tuple[Tensor, Tensor, float] | None:
    """`(A [R, in], B [out, R], scale)` of a linear layer's adapter; None without one, or switched off."""
    if not hasattr(linear, "get_delta_weight") or linear.disable_adapters:
        return None
    return linear.lora_A[_NAME].weight, linear.lora_B[_NAME].weight, float(linear.scaling[_NAME])


@torch.no_grad()
def merged_state(model: Any, keep: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> dict[str, Tensor]:
    """The model's state as if it had been trained without adapters on one rank: adapters merged, plain names.

    Args:
        keep: what to keep of each full tensor, applied at once, so that they need not all be in memory.
    """
    adapters: dict[int, list[Any]] = defaultdict(list)  # by parameter: one that layers share may have several
    for module in model.modules():
        if hasattr(module, "get_delta_weight"):
            adapters[id(_adapted(module))].append(module)
    state: dict[str, Tensor] = {}
    names: dict[int, str] = {}  # by parameter: tied weights stay one tensor
    for name, value in model.state_dict(keep_vars=True).items():
        if ".lora_" in name:
            continue
        plain = name.replace(".base_layer", "")
        if id(value) in names:
            state[plain] = state[names[id(value)]]
            continue
        merged = full_tensor(value).detach()
        for adapter in adapters[id(value)]:
            merged = merged + full_tensor(adapter.get_delta_weight(_NAME)).to(merged.dtype)
        names[id(value)], state[plain] = plain, keep(merged)
    return state


def _adapted_layers(model: Any) -> set[int]:
    return {id(module) for module in model.modules() if hasattr(module, "get_delta_weight")}


def _adapted(layer: Any) -> Tensor:
    """The parameter that an adapter's layer changes: a weight, or one of several of a layer of experts."""
    adapted: Tensor = layer.get_param() if hasattr(layer, "get_param") else layer.get_base_layer().weight
    return adapted
