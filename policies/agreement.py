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
_FULL_STEP = 5e-5  # the same over a few steps: what is more grows over a long completion


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
def greedy_departure(model: Any, done: Completion, *, stop: Sequence[int], banned: Sequence[int] = ()) -> str:
    """How `generate` of a model, greedily, departs from a greedy completion of an engine; "" where they are the
    same, or part at a tie by the model's own forward pass.

    Raises:
        InputError: by that pass a token of the completion is worse than another.
    """
    start, ours, bound = len(done.prompt_ids), list(done.token_ids), tolerance(model.dtype)
    if not ours:
        return ""
    logits_TV = _logits(model, [*done.prompt_ids, *ours])[start - 1 :]
    logits_TV[:, list(banned)] = -math.inf
    logp_TV = logits_TV.log_softmax(-1)
    chosen_T = logp_TV[:-1].gather(1, torch.tensor(ours, device=logp_TV.device)[:, None])[:, 0]
    if not (lost := float((logp_TV[:-1].amax(1) - chosen_T).max())) <= bound:
        raise InputError(f"greedy decoding takes a token whose log-prob is {lost:.2g} below the best one's")
    try:
        theirs = _generated(model, done, stop, banned)
    except torch.OutOfMemoryError:  # the machine's failure says nothing of the model
        raise
    except Exception as error:  # of any kind: it is the model's
        return f"its generate raises {type(error).__name__}: {_line(error)}"
    place = next((t for t, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), None)
    if place is None:
        missing = len(ours) - len(theirs)
        return f"its generate ends {missing} tokens earlier" if missing else ""
    below = float(logp_TV[place].max() - logp_TV[place, theirs[place]])
    if below <= bound:
        return ""
    return f"its generate takes a token whose log-prob is {below:.2g} below the best one's"


def _generated(model: Any, done: Completion, stop: Sequence[int], banned: Sequence[int]) -> list[int]:
    """What `generate` writes greedily, at most as many tokens, without what the model's folder asks of it."""
    from transformers import GenerationConfig

    ids_1S = torch.tensor([list(done.prompt_ids)], device=next(model.parameters()).device)
    greedy = GenerationConfig(
        max_new_tokens=len(done.token_ids),
        do_sample=False,
        eos_token_id=list(stop),
        pad_token_id=stop[0],
        suppress_tokens=list(banned) or None,
    )
    asked, model.generation_config = model.generation_config, GenerationConfig()
    try:
        whole_1S = model.generate(ids_1S, attention_mask=torch.ones_like(ids_1S), generation_config=greedy)
    finally:
        model.generation_config = asked
    written: list[int] = whole_1S[0, ids_1S.shape[1] :].tolist()
    return written


@torch.no_grad()
def stepper_gap(model: Any, stepper: Stepper, ids: Sequence[int]) -> float:
    """How far a stepper's log-probs are from the model's own forward pass: nats, on average over the tokens
    that the model may sample. (Over the whole vocabulary 16 bits would be far off where nothing is sampled.)

    Args:
        ids: 12 tokens: of a prompt, whose first three are a shorter one, and two more for each of three rows.
    """
    long, short, first, second = ids[:6], ids[:3], ids[6:9], ids[9:12]
    device, pads = next(model.parameters()).device, len(long) - len(short)
    padded = torch.tensor([[*long], [0] * pads + [*short]], device=device)
    found = [stepper.prefill(padded, torch.tensor([0, pads], device=device), 2)]
    stepper.keep(torch.tensor([1, 0, 1], device=device))
    found += [stepper.step(torch.tensor(tokens, device=device)) for tokens in (first, second)]
    rows = [[*prompt, *more] for prompt, *more in zip((short, long, short), first, second, strict=True)]
    whole = torch.stack([_logits(model, row)[-3:] for row in rows], 1)  # [3 times, 3 rows, V]
    expected = [whole[0][[1, 0]], whole[1], whole[2]]
    ours_BV, own_BV = torch.cat(found).log_softmax(-1), torch.cat(expected).log_softmax(-1)
    return float((own_BV.exp() * (ours_BV - own_BV).abs()).sum(-1).mean())


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
        exact = tolerance(model.dtype, way.dtype) == _FULL
        if gap <= (_FULL_STEP if exact else _HALF):
            return way, "; ".join(why)
        why.append(f"not with {way.name}: {gap:.2g} nats a token off")
    return ways[-1], "; ".join(why)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:100]


def _logits(model: Any, row: Sequence[int]) -> Tensor:
    """`[T, V]` of one row alone, in float32."""
    ids = torch.tensor([list(row)], device=next(model.parameters()).device)
    with torch.no_grad():
        logits: Tensor = model(input_ids=ids, use_cache=False).logits[0].float()
    return logits
