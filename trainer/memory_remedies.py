"""The smallest change of a config that makes a run fit, where its plan does not.

The one idea: every key that trades memory for something else has a list of values to try, and a change is
smaller the fewer keys it takes; among as few, the one that costs least comes first.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from itertools import combinations, product
from typing import Any

from vertigym.core.config import with_key
from vertigym.learner.model_numbers import ModelNumbers
from vertigym.policies.lora import LoRAConfig
from vertigym.policies.registry import find_engine
from vertigym.trainer.devices import find_device
from vertigym.trainer.memory_plan import MemoryPlan

_MOST_KEYS = 3
_MOST_DEVICES = 64


def fitting(plan: MemoryPlan, model_config: Any) -> tuple[dict[str, Any], MemoryPlan] | None:
    """The keys to change, with a plan that fits; None where nothing of ours does. `--gpu` is more devices.

    Args:
        model_config: the model's, to count it with adapters.
    """
    count_with = cache(lambda lora: ModelNumbers(model_config, lora))
    levers = _levers(plan)
    for keys in (some for few in range(1, _MOST_KEYS + 1) for some in combinations(levers, few)):
        values = [levers[key] for key in keys]
        tries = product(*values)
        # The last value of a key takes least memory, but for the engine's share: if it does not do, none does.
        if not any(key.endswith(".memory") for key in keys):
            last = dict(zip(keys, (some[-1] for some in values), strict=True))
            if _changed(plan, last, count_with).misfits():
                continue
        for chosen in tries:
            change = dict(zip(keys, chosen, strict=True))
            if not (changed := _changed(plan, change, count_with)).misfits():
                return change, changed
    return None


def _levers(plan: MemoryPlan) -> dict[str, list[Any]]:
    """Keys, the cheapest first, each with its values, the mildest first."""
    config, rows = plan.config, plan.config.rollout
    longest = max(part.length for part in plan.parts)
    levers: dict[str, list[Any]] = {
        "dtype": ["bfloat16"] * (config.dtype == "float32"),
        "microbatch_tokens": list(_halves(config.microbatch_tokens, longest)),
        "gradient_checkpointing": [True] * (not config.gradient_checkpointing),
    }
    if not config.rows:
        levers["rollout.dtype"] = ["bfloat16"] * (rows.dtype == "float32")
        if find_engine(rows.engine).shares_model:
            levers["rollout.batch"] = list(_halves(min(rows.batch, len(plan.step.samples)), 1))
        elif hasattr(rows.engine_config, "memory"):
            shares = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
            now = rows.engine_config.memory
            levers[f"rollout.{rows.engine}.memory"] = sorted(
                (share for share in shares if share != now), key=lambda share: abs(share - now)
            )
    levers["lora.rank"] = [LoRAConfig().rank] * (config.lora is None and config.algorithm != "ppo")
    assert plan.device
    levers["--gpu"] = [f"{plan.device.name}x{count}" for count in _doubles(plan.device.count)]
    return {key: values for key, values in levers.items() if values}


def _halves(value: int, least: int) -> Iterator[int]:
    while value // 2 >= least:
        yield (value := value // 2)


def _doubles(value: int) -> Iterator[int]:
    while value * 2 <= _MOST_DEVICES:
        yield (value := value * 2)


def _changed(
    plan: MemoryPlan, change: dict[str, Any], count_with: Callable[[LoRAConfig], ModelNumbers]
) -> MemoryPlan:
    """The plan with other keys."""
    config, numbers, device = plan.config, plan.numbers, plan.device
    for key, value in change.items():
        if key == "--gpu":
            assert device
            device = replace(device, count=find_device(value).count)
        elif key == "lora.rank":
            lora = LoRAConfig(rank=value)
            config, numbers = config.model_copy(update={"lora": lora}), count_with(lora)
        else:
            config = with_key(config, key, value)
    return replace(plan, config=config, numbers=numbers, device=device)
