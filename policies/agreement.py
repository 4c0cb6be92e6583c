"""Whether a way to decode computes what the model's own forward pass computes, measured on a few tokens.

The one idea: what an architecture keeps between two tokens (keys, windows, recurrent states, positions) is
right if, and only if, stepping gives the logits of one pass over all tokens. No model's name decides anything.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vertigym.core.errors import InputError
from vertigym.core.types import Completion
from vertigym.policies.steppers import Stepper

_FULL, _HALF = 1e-3, 0.1  # mean difference of log-probs that rounding explains, nats: float32, and 16 bits


@dataclass(frozen=True, slots=True)
class LogprobGap:
    """How far log-probs of some tokens are apart, nats."""

    mean: float
    max: float
    tokens: int

    @classmethod
    def of(cls, gaps: Sequence[float]) -> "LogprobGap":
        """The gap of these differences; NaN counts as infinite."""
        sizes = [math.inf if math.isnan(gap) else abs(gap) for gap in gaps]
        return cls(math.fsum(sizes) / max(len(sizes), 1), max(sizes, default=0.0), len(sizes))


def tolerance(*dtypes: torch.dtype) -> float:
    """The largest mean gap that rounding in these dtypes explains."""
    return _FULL if all(dtype == torch.float32 for dtype in dtypes) else _HALF


@torch.no_grad()
def forward_logprobs(
    model: Any, completion: Completion, *, temperature: float = 1.0, banned: Sequence[int] = ()
) -> list[float]:
    """The log-prob of each token of a completion by one forward pass of the model over it alone.

    Args:
        banned: ids that could not be sampled.
    """
    row, reply = list(completion.prompt_ids), list(completion.token_ids)
    logits_TV = _logits(model, [*row, *reply])[len(row) - 1 : -1] / (temperature or 1.0)
    logits_TV[:, list(banned)] = -math.inf
    targets_T1 = torch.tensor(reply, device=logits_TV.device)[:, None]
    found: list[float] = logits_TV.log_softmax(-1).gather(1, targets_T1)[:, 0].tolist()
    return found


def engine_gap(
    model: Any, completions: Sequence[Completion], *, temperature: float = 1.0, banned: Sequence[int] = ()
) -> LogprobGap:
    """How far the log-probs that an engine gave are from the model's own."""
    gaps = [
        ours - theirs
        for one in completions
        if one.token_ids
        for ours, theirs in zip(
            one.logprobs, forward_logprobs(model, one, temperature=temperature, banned=banned), strict=True
        )
    ]
    return LogprobGap.of(gaps)


@torch.no_grad()
def stepper_gap(model: Any, stepper: Stepper, ids: Sequence[int]) -> LogprobGap:
    """How far a stepper's log-probs, over the whole vocabulary, are from the model's own forward pass.

    Args:
        ids: 15 tokens: of two prompts of different lengths, and of two more tokens for each of three rows.
    """
    long, short, first, second = ids[:6], ids[6:9], ids[9:12], ids[12:15]
    device, pads = next(model.parameters()).device, len(long) - len(short)
    padded = torch.tensor([[*long], [0] * pads + [*short]], device=device)
    found = [stepper.prefill(padded, torch.tensor([0, pads], device=device), 2)]
    stepper.keep(torch.tensor([1, 0, 1], device=device))
    found += [stepper.step(torch.tensor(tokens, device=device)) for tokens in (first, second)]
    rows = [[*prompt, *more] for prompt, *more in zip((short, long, short), first, second, strict=True)]
    whole = torch.stack([_logits(model, row)[-3:] for row in rows], 1)  # [3 times, 3 rows, V]
    expected = [whole[0][[1, 0]], whole[1], whole[2]]
    gaps = [a.log_softmax(-1) - b.log_softmax(-1) for a, b in zip(found, expected, strict=True)]
    return LogprobGap.of(torch.cat(gaps).flatten().tolist())


def check_causal(model: Any, ids: Sequence[int]) -> None:
    """
    Raises:
        InputError: what follows a token changes the model's prediction of it, or its forward pass fails.
    """
    name = type(model).__name__
    try:
        whole, part = _logits(model, ids), _logits(model, ids[:-2])
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of any kind: it is the model's
        raise InputError(f"{name} cannot read text: {type(error).__name__}: {_line(error)}") from None
    if not (whole[: len(part)].log_softmax(-1) - part.log_softmax(-1)).abs().mean() <= tolerance(model.dtype):
        raise InputError(
            f"{name} is not causal: later tokens change its predictions of earlier ones; a language model that "
            "reads from left to right is needed"
        )


@dataclass(frozen=True, slots=True)
class Way:
    """A way to decode: its name, how to make a stepper for a model, and the dtype that it computes in."""

    name: str
    make: Callable[[Any], Stepper]
    dtype: torch.dtype


def first_that_agrees(model: Any, ways: Sequence[Way], ids: Sequence[int]) -> tuple[Way, str]:
    """The first way to decode that agrees with the model's own forward pass (the last is that itself), and why
    those before it do not."""
    why = []
    for way in ways[:-1]:
        try:
            gap = stepper_gap(model, way.make(model), ids)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # an architecture without such a cache fails in a way of its own
            why.append(f"not with {way.name}: {type(error).__name__}: {_line(error)}")
            continue
        if gap.mean <= tolerance(model.dtype, way.dtype):
            return way, "; ".join(why)
        why.append(f"not with {way.name}: {gap.mean:.2g} nats a token off")
    return ways[-1], "; ".join(why)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:100]


def _logits(model: Any, row: Sequence[int]) -> Tensor:
    """`[T, V]` of one row alone, in float32."""
    ids = torch.tensor([list(row)], device=next(model.parameters()).device)
    with torch.no_grad():
        logits: Tensor = model(input_ids=ids, use_cache=False).logits[0].float()
    return logits
