"""How long a step takes on a device, by phase, computed before it begins.

The one idea: a phase is bound by operations or by bytes moved, and takes as long as the slower of the two. The
share of a device's rates that is reached is assumed, in the constants below, not measured; so is what a launch
costs. A plan is of the largest step: the longest prompts, all answers `max_tokens` long.
"""

import math

from vertigym.policies.registry import find_engine
from vertigym.trainer.devices import Device
from vertigym.trainer.memory_plan import VLLM_BYTES, MemoryPlan

MATMUL_SHARE = 0.4  # of a device's operations a second, that a trunk's passes reach
HEAD_SHARE = 0.7  # that the large matmuls of the head reach
MEMORY_SHARE = 0.7  # of its bytes a second
LAUNCH_S = 5e-6  # a kernel launched from Python
LAUNCHES = 30  # a layer and token, decoded without CUDA graphs
_OPTIMIZER_BYTES = 28  # a parameter: its gradient, weight and two moments read, three of them written
DISK = 1e9  # bytes a second, of weights written and read again


def seconds_by_phase(plan: MemoryPlan) -> dict[str, float]:
    """Seconds of one step's phases; empty where no device is known."""
    if not plan.device:
        return {}
    found = {} if plan.config.rows else {"sampling": _sampling(plan, plan.device)}
    return found | {
        "logprobs": _scored(plan) * _passes(plan, plan.device, 1, 1),
        "training": _training(plan, plan.device),
        "optimizer": _OPTIMIZER_BYTES * plan.numbers.trained / plan.ranks / _bandwidth(plan.device),
        "new weights": _sync(plan, plan.device),
    }


def _bandwidth(device: Device) -> float:
    return MEMORY_SHARE * device.bandwidth


def _scored(plan: MemoryPlan) -> int:
    """Models whose log-probs (or values) are taken beside the training pass."""
    config = plan.config
    if config.rows:
        return int(bool(plan.extra))
    policy = config.policy
    before = policy.ratio_to == "trainer" and policy.epochs * policy.minibatches > 1
    return before + (config.algorithm == "ppo") + bool(plan.extra)


def _passes(plan: MemoryPlan, device: Device, trunk: float, head: float) -> float:
    """Seconds of so many forward passes over a step, of the trunk and of the head."""
    numbers, config = plan.numbers, plan.config
    operations = sum(numbers.operations.of(part.rows, part.length) for part in plan.parts) * trunk
    logits = 2 * numbers.head * sum(part.trained for part in plan.parts) * head
    seconds = operations / (MATMUL_SHARE * device.rate(config.dtype))
    return (seconds + logits / (HEAD_SHARE * device.rate(config.head_precision))) / plan.ranks


def _training(plan: MemoryPlan, device: Device) -> float:
    trunk = 3 + plan.config.gradient_checkpointing
    _, head = plan.numbers.head_cost(max(part.trained for part in plan.parts), cuda=True)
    if plan.config.lora:  # no gradients of frozen weights
        trunk, head = trunk - 1, head - 1
    twice = 2 if plan.config.algorithm == "ppo" else 1
    return twice * _passes(plan, device, trunk, head) + _gathered(plan, device)


def _gathered(plan: MemoryPlan, device: Device) -> float:
    """Weights that travel between ranks: whole for the forward and the backward pass, gradients back."""
    if plan.ranks == 1:
        return 0.0
    rounds = math.ceil(len(plan.parts) / plan.ranks)
    return 3 * rounds * 4 * plan.numbers.parameters / device.link


def _sampling(plan: MemoryPlan, device: Device) -> float:
    """Prompts read once, then a token of every sequence at a time, as many at once as there is room for."""
    rows, numbers, step = plan.config.rollout, plan.numbers, plan.step
    shared = find_engine(rows.engine).shares_model
    size, engines = (4 if rows.dtype == "float32" else 2), plan.ranks if shared else 1
    count = math.ceil(len(step.samples) / engines)
    sequence = numbers.cache * size * (step.prompt + step.answer)
    at_once = min(rows.batch, count)
    if not shared:
        room = plan.states.get("engine", 0.0) - size * numbers.parameters - VLLM_BYTES
        at_once = max(
            1, min(getattr(rows.engine_config, "sequences", count), int(room // max(sequence, 1)), count)
        )
    operations = numbers.operations.token + 2 * numbers.head
    rate = MATMUL_SHARE * device.rate("float32" if size == 4 else "bfloat16")
    moved = (
        size * (numbers.operations.token / 2 + numbers.head) + at_once * sequence / 2
    )  # half-full, on average
    token = max(moved / _bandwidth(device), at_once * operations / rate)
    if shared or getattr(rows.engine_config, "eager", False):
        token = max(token, numbers.layers * LAUNCHES * LAUNCH_S)
    prompts = step.prompt * count * numbers.operations.token / rate
    return prompts + math.ceil(count / at_once) * step.answer * token


def _sync(plan: MemoryPlan, device: Device) -> float:
    """Weights written once more; through the disk where they go to a server."""
    if plan.config.rows:
        return 0.0
    size = 4 * plan.numbers.parameters
    return (
        size / DISK
        if getattr(plan.config.rollout.engine_config, "mode", "") == "server"
        else 2 * size / _bandwidth(device)
    )
