"""What a model does between its trunk and its logits, asked of the model itself.

The one idea: the kernel computes logits from hidden states and the head's weight, so whatever else a model does
there (a scale before the head or after it, a soft cap) must be known, wherever its config keeps it. Known
numbers are put in place of the head's output, and the model's logits show what it does with them.

Axes: V vocabulary.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vertigym.core.errors import InputError

_POINTS = (-1e3, -100.0, -10.0, -1.0, -0.1, 0.1, 1.0, 10.0, 100.0, 1e3)
# What the code of a model raises that does not take what it is given.
MODEL_ERRORS = (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError)
_TOLERANCE = 1e-4  # relative; a float32 model's own rounding is far below


@dataclass(frozen=True, slots=True)
class LogitHead:
    """Logits of the head's output u: `softcap · tanh(scale · u / softcap)`, or without a cap `scale · u`."""

    scale: float = 1.0
    softcap: float | None = None

    def logits(self, output_V: Tensor) -> Tensor:
        """Of the head's output."""
        scaled_V = self.scale * output_V
        return scaled_V if self.softcap is None else self.softcap * torch.tanh(scaled_V / self.softcap)


def trunk_of(model: Any) -> Any:
    """The part of a causal model that gives hidden states."""
    return model.base_model if model.base_model is not model else model.get_decoder()


@torch.no_grad()
def find_head(model: Any) -> LogitHead | None:
    """How `model` makes logits of its trunk's hidden states; None where it is not like this, and only its own
    forward pass knows.

    Raises:
        InputError: the model cannot be run.
    """
    head, trunk = model.get_output_embeddings(), trunk_of(model)
    if head is None or trunk is model:
        return None
    seen: dict[str, Tensor] = {}

    def keep_states(_: Any, __: Any, output: Any) -> None:
        seen["states"] = output.last_hidden_state

    def replace_output(_: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        seen["input"] = inputs[0]
        points = torch.tensor(_POINTS, device=output.device, dtype=output.dtype)
        seen["output"] = points.repeat(-(-output.shape[-1] // len(points)))[: output.shape[-1]].expand_as(
            output
        )
        return seen["output"]

    hooks = [trunk.register_forward_hook(keep_states), head.register_forward_hook(replace_output)]
    try:
        ids = torch.tensor([[0, 1]], device=next(model.parameters()).device)
        logits = model(input_ids=ids, use_cache=False).logits
    except torch.OutOfMemoryError:  # the machine's failure says nothing of the model
        raise
    except MODEL_ERRORS as error:
        raise InputError(
            f"{type(model).__name__}: the model's own forward pass fails: {type(error).__name__}: {error}"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    if len(seen) < 3 or seen["output"].shape != logits.shape:
        return None
    before = _factor(seen["states"], seen["input"])
    after = _fitted(seen["output"][0, -1].double(), logits[0, -1].double())
    if before is None or after is None or (before != 1 and getattr(head, "bias", None) is not None):
        return None
    return LogitHead(before * after.scale, after.softcap)


def _factor(states: Tensor, inputs: Tensor) -> float | None:
    """What the hidden states are multiplied with before the head; None where it is no number."""
    if states.shape != inputs.shape:
        return None
    if torch.equal(states, inputs):
        return 1.0
    factor = float((states * inputs).sum() / (states * states).sum())
    return factor if torch.allclose(factor * states, inputs, rtol=_TOLERANCE, atol=1e-6) else None


def _fitted(output_V: Tensor, logits_V: Tensor) -> LogitHead | None:
    """The head that makes these logits of its output; None where there is none."""
    at = {point: float(logits_V[place]) for place, point in enumerate(_POINTS) if place < len(logits_V)}
    slope, far = at.get(1.0), at.get(1e3)
    if slope is None or far is None:
        return None
    found = LogitHead(slope)
    if abs(far / 1e3 - slope) > _TOLERANCE * abs(slope):
        if not 0 < slope < far:
            return None
        scale = far * math.atanh(slope / far)
        found = LogitHead(1.0 if abs(scale - 1) < _TOLERANCE else scale, far)
    error = (found.logits(output_V) - logits_V).abs() - _TOLERANCE * logits_V.abs()
    return found if bool((error <= _TOLERANCE).all()) else None
