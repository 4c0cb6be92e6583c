"""Whether a learner computes what its model computes, and what to do where it does not.

The one idea: the model's own forward pass over one sample, with no padding and no neighbours, is right by
definition. A learner shares rows, leaves out logits and adds adapters; its log-probs on the same tokens must be
the same. Where they are not, the learner gives up what is fast: shared rows first, then the fused head.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from vertigym.core.errors import InputError
from vertigym.core.seeds import generator
from vertigym.learner.batch import PackedRow, PrefixTree
from vertigym.learner.learner import Learner
from vertigym.learner.logit_head import MODEL_ERRORS
from vertigym.learner.ranks import Ranks
from vertigym.learner.samples import TrainingSample
from vertigym.policies.agreement import tolerance
from vertigym.policies.model_folder import load_model

BOUND = tolerance(torch.float32)  # nats
_TOKENS = 128  # of a sample: a few passes over them cost little beside a step
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


def distances(learner: Learner, groups: Groups) -> list[float]:
    """How far the learner's log-probs are from its model's, in each way that it computes them. Collective."""
    ways = [alone(groups), *([shared(groups)] if learner.share_rows else [])]
    expected_T = own_logprobs(learner, groups)
    return [_distance(learner, way, expected_T) for way in ways]


def some_groups(samples: Sequence[TrainingSample]) -> Groups:
    """A few samples for neighbours of both kinds: two of one prompt (one may stand twice), and another."""
    by_prompt: dict[tuple[int, ...], list[TrainingSample]] = defaultdict(list)
    for sample in samples:
        by_prompt[tuple(sample.token_ids[: sample.prompt_length])].append(sample)
    largest = sorted(by_prompt.values(), key=len, reverse=True)
    return [[_cut(sample) for sample in (largest[0] * 2)[:2]], [_cut(largest[-1][-1])]]


def _cut(sample: TrainingSample) -> TrainingSample:
    """The end of the prompt and what follows it."""
    start = max(0, sample.prompt_length - _TOKENS // 2)
    end = start + _TOKENS
    return TrainingSample(sample.token_ids[start:end], sample.loss_mask[start:end])


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
def loaded_distance(learner: Learner, folder: Path, ranks: Ranks) -> float:
    """The largest difference of a log-prob between the model in memory and the one in `folder`, loaded afresh;
    nats. Collective, the leader loads."""
    ids = generator("exported").integers(0, min(learner.model.get_input_embeddings().weight.shape[0], 256), 32)
    sample = TrainingSample(ids.tolist(), [0] + [1] * (len(ids) - 1))
    expected_T = own_logprobs(learner, [[sample]])

    def compare() -> float:
        loaded, _ = load_model(folder, device="cpu")
        logits_TV = loaded.float()(input_ids=torch.tensor([sample.token_ids[:-1]]), use_cache=False).logits[0]
        found_T = learner.distribution(logits_TV).gather(1, torch.tensor(sample.token_ids[1:])[:, None])[:, 0]
        return float((found_T - expected_T.cpu()).abs().max())

    return ranks.on_leader(compare)


@torch.no_grad()
def _distance(learner: Learner, rows: list[PackedRow], expected_T: Tensor) -> float:
    """The largest difference of a log-prob, nats; infinite where the model cannot take such rows."""
    try:
        with learner.in_float32():
            found_T, _ = learner.pass_through(learner.logprobs, rows)
    except torch.OutOfMemoryError:  # the machine's failure says nothing of the model
        raise
    except MODEL_ERRORS:
        return math.inf
    far = float((found_T - expected_T).abs().max())
    return math.inf if math.isnan(far) else far
