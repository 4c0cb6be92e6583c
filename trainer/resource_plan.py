"""What a run will take of memory and time, as `train --dry-run` says it: computed, beside what is measured.

The one idea: numbers that were computed and numbers that were measured never share a column. What a GPU needs
can only be computed without one; `--gpu h100x8` names one that is not here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from heapq import nlargest
from typing import Any

import torch

from vertigym.learner.model_numbers import ModelNumbers
from vertigym.learner.samples import TrainingSample
from vertigym.trainer.config import RunConfig
from vertigym.trainer.devices import DEVICES, Device
from vertigym.trainer.memory_plan import MemoryPlan, PlannedStep, gb, sampled_step
from vertigym.trainer.memory_remedies import fitting
from vertigym.trainer.time_plan import seconds_by_phase


def device_here() -> Device | None:
    """This machine's GPU: its own memory, the rates of the table; None where there is none that it knows."""
    if not torch.cuda.is_available():
        return None
    words = torch.cuda.get_device_name().lower().replace(" ", "")
    known = next((one for name, one in DEVICES.items() if name.split("-")[0] in words), None)
    return known and replace(known, memory=float(torch.cuda.get_device_properties(0).total_memory))


def largest_step(
    config: RunConfig,
    taught: Iterable[Sequence[TrainingSample]],
    prompts: Sequence[int],
    turns: int,
    context: int,
) -> PlannedStep:
    """A step of the longest rows to learn from, or of the longest prompts and whole answers.

    Args:
        taught: rows, each of one sample or of a pair.
        turns: the most of an episode; what is said to the policy after its first prompt is not counted.
    """
    if config.rows:
        rows = nlargest(config.rows.batch, taught, key=lambda row: max(len(sample.token_ids) for sample in row))
        return PlannedStep([sample for row in rows for sample in row], 0, 0)
    rollout = config.rollout
    longest = sorted(prompts, reverse=True)[: rollout.tasks] or [1]
    longest += longest[:1] * (rollout.tasks - len(longest))  # fewer tasks than a step takes: some come twice
    answer = min(turns * rollout.max_tokens, max(1, context - longest[0]))
    return sampled_step(longest, rollout.group_size, answer)


def resource_plan(
    config: RunConfig, model_config: Any, step: PlannedStep, device: Device | None, scorers: Sequence[Any] = ()
) -> dict[str, Any]:
    """The plan in words and numbers. Memory is in GB, on each device.

    Args:
        scorers: the configs of models that only score: a reference, a teacher.

    Raises:
        InputError: the model cannot be counted.
    """
    numbers = ModelNumbers(model_config, config.lora)
    extra = sum(ModelNumbers(one).parameters for one in scorers)
    plan = MemoryPlan(numbers, config, step, device, extra)
    phase, peak = plan.peak()
    found: dict[str, Any] = {
        "for": f"{device.name} x{device.count}" if device else "this machine's CPU",
        "memory": {
            "throughout": _in_gb(plan.states),
            **{name: _in_gb(parts) for name, parts in plan.phases.items() if parts},
        },
        "peak": round(peak / 1e9, 3),
        "peak in": phase,
    }
    if device:
        seconds = seconds_by_phase(plan)
        found["seconds a step"] = {name: round(value, 3) for name, value in seconds.items() if value}
        found["does not fit"] = plan.misfits()
        if found["does not fit"]:
            found["would fit with"] = _remedy(plan, model_config)
    return found


def _remedy(plan: MemoryPlan, model_config: Any) -> dict[str, Any]:
    fits = fitting(plan, model_config)
    if fits is None:
        return {}
    change, changed = fits
    return change | {"peak": round(changed.peak()[1] / 1e9, 3)}


def _in_gb(parts: Mapping[str, float]) -> dict[str, float]:
    return {name: round(size / 1e9, 3) for name, size in parts.items() if size}


def plan_rows(plan: Mapping[str, Any], measured: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The plan as rows of a table: what, computed, measured."""
    rows = [
        (f"{phase}: {part}", gb(size * 1e9), "")
        for phase, parts in plan["memory"].items()
        for part, size in parts.items()
    ]
    peak = next(
        (f"{measured[key]:g} GB" for key in ("GPU memory in GB", "memory in GB") if key in measured), ""
    )
    if peak and "libraries in GB" in measured and "GPU memory in GB" not in measured:
        peak += f", {measured['libraries in GB']:g} of it libraries"
    rows.append((f"peak, in {plan['peak in']}", gb(plan["peak"] * 1e9), peak))
    rows += [
        (f"seconds: {phase}", f"{seconds:g}", "") for phase, seconds in plan.get("seconds a step", {}).items()
    ]
    total = sum(plan.get("seconds a step", {}).values())
    rows.append(("seconds a step", f"{total:.3g}" if total else "", f"{measured.get('seconds a step', '')}"))
    rows += [("does not fit", line, "") for line in plan.get("does not fit", ())]
    if "would fit with" in plan:
        change = dict(plan["would fit with"])
        then = f" (then {gb(change.pop('peak') * 1e9)})" if change else "no change of keys that is known here"
        rows.append(("would fit with", " ".join(f"{key}={value}" for key, value in change.items()) + then, ""))
    return rows
