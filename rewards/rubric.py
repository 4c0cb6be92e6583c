"""Rubric: a weighted sum of reward functions. Weight 0 is a metric; a gate must hold before the rest counts.

    Rubric(
        Part(json_schema(SCHEMA), weight=0.1, gate=1.0),  # nothing after it counts until it holds
        Part(exact(), weight=0.9),
        Part(length_penalty(200), weight=0.0),  # a metric
    )

A reward function names the arguments it wants (`completion`, `answer`, `info`, `task`, `prompt`, `messages`,
or a key of the task's `info`), or has TRL's batched form; it may be async. It returns a float, a bool, a Score
(whose parts and evidence are kept), or None for *could not be scored*. What it raises, a timeout and NaN are
also *not scored*, with the reason as evidence: a verifier's fault is never the policy's 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vertigym.core.types import Message, Score, Task
from vertigym.rewards.calling import Caller, RewardFunction, bounded

__all__ = ["Part", "RewardFunction", "Rubric", "bounded"]


@dataclass(frozen=True, slots=True)
class Part:
    """One reward function in a rubric.

    `gate`: while this part's value is below it, the parts after it are not called and count 0.
    `timeout_s`: past it the sample is not scored; None, or a function marked `bounded`: no limit, in place.
    """

    function: RewardFunction
    weight: float = 1.0
    name: str = ""
    gate: float | None = None
    timeout_s: float | None = 60.0


class Rubric:
    """Scores completions with its parts.

    Raises:
        ValueError: no parts, two with one name, or a function that cannot be called by argument name.
    """

    def __init__(self, *parts: Part | RewardFunction) -> None:
        if not parts:
            raise ValueError("a rubric needs at least one reward function")
        listed = [part if isinstance(part, Part) else Part(part) for part in parts]
        names = [part.name or getattr(part.function, "__name__", "reward") for part in listed]
        if len(set(names)) < len(names):
            raise ValueError(f"reward functions need different names, got {', '.join(names)}")
        self.parts = tuple(listed)
        self._calls = [
            (name, part.weight, part.gate, Caller(part.function, part.timeout_s))
            for name, part in zip(names, listed, strict=True)
        ]

    def score(self, *, task: Task, completion: str, messages: Sequence[Message] = ()) -> Score:
        """The weighted sum over the parts; unscored as soon as a part with a weight or a gate is. A metric that
        fails leaves its reason in the evidence. Never raises."""
        total, parts, evidence = 0.0, dict[str, float](), dict[str, Any]()
        for name, weight, gate, call in self._calls:
            verdict = call(task, completion, messages)
            parts.update(verdict.parts)
            if verdict.value is None:
                if weight or gate is not None:
                    return Score(None, parts, {**evidence, **verdict.evidence, "unscored": name})
                evidence[f"{name}: not scored"] = verdict.evidence.get("reason", "")
                continue
            evidence.update(verdict.evidence)
            parts[name] = verdict.value
            total += weight * verdict.value
            if gate is not None and verdict.value < gate:
                evidence["gate"] = name
                break
        return Score(total, parts, evidence)
