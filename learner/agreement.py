"""Whether a learner computes what its model computes, and what to do where it does not.

The one idea: the model's own forward pass over one sample, with no padding and no neighbours, is right by
definition. A learner shares rows, leaves out logits and adds adapters; its log-probs on the same tokens must be
the same. Where they are not, the learner gives up what is fast: shared rows first, then the fused head.
"""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from vertigym.core.errors import InputError
from vertigym.learner.batch import PackedRow, PrefixTree
from vertigym.learner.learner import Learner
from vertigym.learner.samples import TrainingSample

BOUND = 1e-3  # nats, in float32
_TOKENS = 4096  # in a group, about
_SAYS = "log-probs are {:.2g} nats from the model's own forward pass"

Groups = Sequence[Sequence[TrainingSample]]


def settle(learner: Learner, samples: Sequence[TrainingSample]) -> list[str]:
    """Make the learner's log-probs those of its model; what it had to give up, a sentence each. Collective.

    Raises:
        InputError: they differ whatever it gives up.
    """
    groups, notes = some_groups(samples), []
    expected_T = own_logprobs(learner, groups)
    if (far := _distance(learner, alone(groups), expected_T)) > BOUND and learner.fuses_head:
        learner.fuses_head = False
        notes.append(f"all logits are computed (more memory): with the fused head, {_SAYS.format(far)}")
        far = _distance(learner, alone(groups), expected_T)
    if far > BOUND:
        raise InputError(
            f"the trainer's log-probs are {far:.2g} nats from the model's own forward pass (at most "
            f"{BOUND:g} is allowed): this model cannot be trained here; `vertigym model check` says more"
        )
    if learner.share_rows and (far := _distance(learner, shared(groups), expected_T)) > BOUND:
        learner.share_rows = False
        notes.append(
            f"samples stand in rows of their own (slower): in rows that they share, {_SAYS.format(far)}"
        )
    return notes


def some_groups(samples: Sequence[TrainingSample]) -> Groups:
    """A few samples: two groups, the first with two samples at least, for neighbours of both kinds. Where there
    are not as many, some stand twice."""
    by_prompt: dict[tuple[int, ...], list[TrainingSample]] = defaultdict(list)
    for sample in samples:
        by_prompt[tuple(sample.token_ids[: sample.prompt_length])].append(sample)
    largest = sorted(by_prompt.values(), key=len, reverse=True)
    first, second = largest[0], largest[-1]
    fitting = max(2, _TOKENS // max(len(sample.token_ids) for sample in samples))
    return [(first * 2)[: min(3, fitting)], second[: min(3, fitting)]]


def shared(groups: Groups) -> list[PackedRow]:
    """One row: a tree a group."""
    return [PackedRow([PrefixTree(list(group)) for group in groups])]


def alone(groups: Groups) -> list[PackedRow]:
    """A row a sample."""
    return [PackedRow([PrefixTree([sample])]) for group in groups for sample in group]


@torch.no_grad()
def own_logprobs(learner: Learner, groups: Groups) -> Tensor:
    """Log-probs `[T]` of all trained tokens, by the model's own forward pass over one sample at a time.
    Collective."""
    with learner.in_float32():
        found = [learner.pass_through(learner.own_logprobs, [row])[0] for row in alone(groups)]
    return torch.cat(found)


@torch.no_grad()
def _distance(learner: Learner, rows: list[PackedRow], expected_T: Tensor) -> float:
    """The largest difference of a log-prob, nats; infinite where the model cannot take such rows."""
    try:
        with learner.in_float32():
            found_T, _ = learner.pass_through(learner.logprobs, rows)
    except (
        AttributeError,
        IndexError,
        RuntimeError,
        TypeError,
        ValueError,
    ):  # whatever the model's code raises
        return float("inf")
    far = float((found_T - expected_T).abs().max())
    return far if far == far else float("inf")
