"""From samples to tensors: what samples share is computed once, and only what carries a loss reaches the head.

The samples of a group begin with the same prompt. A row holds that prompt once and then each sample's own
tokens as a branch; a branch sees the prompt and itself, at the positions it would have alone:

    tokens     P P P P a a a b b c c c c
    positions  0 1 2 3 4 5 6 4 5 4 5 6 7
    branch     0 0 0 0 1 1 1 2 2 3 3 3 3

Such a prompt with its branches is a tree; short trees stand in one row, unseen by each other, where that saves
much padding. Rows are padded on the right; under causal attention no token sees what stands to its right, so
rows of one sample need no mask at all, and padding changes nothing.

Shapes: B rows, S row length, T trained tokens of the batch.
"""

import math
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vertigym.learner.samples import TokenColumns, TrainingSample

# A row takes another branch while its branches hold at most this many tokens for each token of the shared
# prompt: attention is quadratic in the row, so long branches over a short prompt are cheaper alone.
_BRANCH_TOKENS_PER_SHARED = 2
# Trees share rows where that leaves at most this share of the tokens: the mask they then need has its price.
_PACKED_SHARE = 0.8


@dataclass(slots=True)
class PrefixTree:
    """Samples with a common prompt: it once, then each one's own tokens."""

    samples: list[TrainingSample]

    @property
    def length(self) -> int:
        """Tokens fed."""
        return self.samples[0].prompt_length + sum(sample.branch_length for sample in self.samples)


@dataclass(slots=True)
class PackedRow:
    """Trees in one row."""

    trees: list[PrefixTree]

    @property
    def samples(self) -> list[TrainingSample]:
        """In the order of their tokens."""
        return [sample for tree in self.trees for sample in tree.samples]

    @property
    def length(self) -> int:
        """Tokens fed."""
        return sum(tree.length for tree in self.trees)


@dataclass(slots=True)
class Batch:
    """Tensors of some rows. `hidden_index_T` indexes the hidden states `[B * S]` that predict `targets_T`;
    `sequences_T` counts the samples, so that tokens of one sample have one number; the columns are `[T]` too.
    `mask_B1SS` and `positions_BS` are None where every row is one sample."""

    ids_BS: Tensor
    hidden_index_T: Tensor
    targets_T: Tensor
    sequences_T: Tensor
    columns: TokenColumns[Tensor]
    positions_BS: Tensor | None = None
    mask_B1SS: Tensor | None = None

    def at(self, tokens_N: Tensor) -> "Batch":
        """The same with only these of the trained tokens."""
        return replace(
            self,
            hidden_index_T=self.hidden_index_T[tokens_N],
            targets_T=self.targets_T[tokens_N],
            sequences_T=self.sequences_T[tokens_N],
            columns=self.columns.map(lambda column_T: column_T[tokens_N]),
        )

    def to(self, device: torch.device) -> "Batch":
        """The same on another device."""
        return Batch(
            self.ids_BS.to(device),
            self.hidden_index_T.to(device),
            self.targets_T.to(device),
            self.sequences_T.to(device),
            self.columns.map(lambda column_T: column_T.to(device)),
            None if self.positions_BS is None else self.positions_BS.to(device),
            None if self.mask_B1SS is None else self.mask_B1SS.to(device),
        )


def lay_out(samples: Sequence[TrainingSample], *, share: bool) -> list[PackedRow]:
    """Lay samples out, a tree a row; with `share`, those with one prompt share trees."""
    if not share:
        return [PackedRow([PrefixTree([sample])]) for sample in samples]
    by_prompt: dict[tuple[int, ...], list[TrainingSample]] = defaultdict(list)
    for sample in samples:
        by_prompt[tuple(sample.token_ids[: sample.prompt_length])].append(sample)
    return [PackedRow([tree]) for prompt, members in by_prompt.items() for tree in _trees(len(prompt), members)]


def _trees(prompt: int, samples: Sequence[TrainingSample]) -> Iterator[PrefixTree]:
    tree = PrefixTree([])
    for sample in samples:
        room = _BRANCH_TOKENS_PER_SHARED * prompt - sum(s.branch_length for s in tree.samples)
        if tree.samples and sample.branch_length > room:
            yield tree
            tree = PrefixTree([])
        tree.samples.append(sample)
    yield tree


def packed(laid: Sequence[PackedRow]) -> list[PackedRow]:
    """The same trees in fewer rows, none longer than the longest: the longest first, each into the row that it
    fills best."""
    longest = max(row.length for row in laid)
    filled: list[PackedRow] = []
    room: list[tuple[int, int]] = []  # (tokens free, row), ascending
    for row in sorted(laid, key=lambda row: -row.length):
        length = row.length
        best = bisect_left(room, (length, 0))
        if best == len(room):
            free, number = longest, len(filled)
            filled.append(PackedRow([]))
        else:
            free, number = room.pop(best)
        filled[number].trees += row.trees
        insort(room, (free - length, number))
    return filled


def microbatches(samples: Sequence[TrainingSample], tokens: int, *, share: bool) -> list[list[PackedRow]]:
    """Split so that each part, padded, holds at most `tokens` tokens (or is a single row). `share`: attention
    takes a mask, so that samples may share rows."""
    apart = list(_parts(lay_out(samples, share=share), tokens))
    if not share:
        return apart
    together = list(_parts(packed([row for part in apart for row in part]), tokens)) if apart else []
    return together if _padded(together) <= _PACKED_SHARE * _padded(apart) else apart


def balanced(
    samples: Sequence[TrainingSample], tokens: int, *, share: bool, ranks: int
) -> list[list[PackedRow]]:
    """Micro-batches for several ranks, as in `microbatches`, but small enough that each rank has work: as many
    rounds as the limit makes necessary, each about filled."""
    parts = microbatches(samples, tokens, share=share)
    if ranks == 1 or not parts:
        return parts
    fed = _padded(parts)
    rounds = math.ceil(fed / (tokens * ranks))
    return microbatches(samples, min(tokens, math.ceil(fed / (rounds * ranks))), share=share)


def smallest(samples: Sequence[TrainingSample]) -> list[PackedRow]:
    """The cheapest micro-batch there is."""
    return [PackedRow([PrefixTree([min(samples, key=lambda sample: len(sample.token_ids))])])]


def _parts(laid: Sequence[PackedRow], tokens: int) -> Iterator[list[PackedRow]]:
    """Ordered by length, which keeps padding small."""
    part: list[PackedRow] = []
    for row in sorted(laid, key=lambda row: row.length):
        if part and (len(part) + 1) * row.length > tokens:
            yield part
            part = []
        part.append(row)
    if part:
        yield part


def _padded(parts: Sequence[list[PackedRow]]) -> int:
    """Tokens fed, padding included."""
    return sum(len(part) * part[-1].length for part in parts)


def collate(part: Sequence[PackedRow], length: int = 0) -> Batch:
    """Tensors of some rows, of one length at least; trained tokens in the order of rows, then of samples.

    Filled in as arrays: to write a few numbers into a tensor takes twenty times as long.
    """
    B, S = len(part), max(length, *(row.length for row in part))
    ids_BS, positions_BS, branch_BS = (np.zeros((B, S), dtype=np.int64) for _ in range(3))
    tree_BS = np.full((B, S), -1)
    places: list[int] = []
    for b, row in enumerate(part):
        at = 0
        for number, tree in enumerate(row.trees):
            start, prompt = at, tree.samples[0].prompt_length
            at += prompt
            tree_BS[b, start : start + tree.length] = number
            ids_BS[b, start:at] = tree.samples[0].token_ids[:prompt]
            positions_BS[b, start:at] = np.arange(prompt)
            for branch, sample in enumerate(tree.samples, 1):
                end = at + sample.branch_length
                ids_BS[b, at:end] = sample.token_ids[prompt : prompt + end - at]
                positions_BS[b, at:end] = np.arange(prompt, prompt + end - at)
                branch_BS[b, at:end] = branch
                fed = (i - 1 for i, trained in enumerate(sample.loss_mask) if trained)
                places += (b * S + (start + i if i < prompt else at + i - prompt) for i in fed)
                at = end
    samples = [sample for row in part for sample in row.samples]
    targets = [token for sample in samples for token in sample.predicted]
    columns: TokenColumns[Tensor] = TokenColumns()
    for name, _ in samples[0].columns.given():
        values = [value for sample in samples for value in getattr(sample.columns, name)]
        setattr(columns, name, torch.tensor(values, dtype=torch.float32))
    trained = torch.tensor([sample.trained for sample in samples])
    sequences_T = torch.arange(len(samples)).repeat_interleave(trained)
    batch = Batch(torch.from_numpy(ids_BS), torch.tensor(places), torch.tensor(targets), sequences_T, columns)
    if len(samples) > len(part):
        batch.positions_BS = torch.from_numpy(positions_BS)
        batch.mask_B1SS = _mask(torch.from_numpy(tree_BS), torch.from_numpy(branch_BS))
    return batch


def _mask(tree_BS: Tensor, branch_BS: Tensor) -> Tensor:
    """True where a token (third axis) sees another (fourth): not to its right, of its own tree, and of the
    prompt or its own branch."""
    S = branch_BS.shape[1]
    same_tree_BSS = tree_BS[:, :, None] == tree_BS[:, None, :]
    same_branch_BSS = branch_BS[:, :, None] == branch_BS[:, None, :]
    prompt_BSS = (branch_BS == 0)[:, None, :]
    causal_SS = torch.ones(S, S, dtype=torch.bool).tril()
    return (causal_SS & same_tree_BSS & (same_branch_BSS | prompt_BSS))[:, None]
