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
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from vertigym.core.types import Completion

# A row takes another branch while its branches hold at most this many tokens for each token of the shared
# prompt: attention is quadratic in the row, so long branches over a short prompt are cheaper alone.
_BRANCH_TOKENS_PER_SHARED = 2
# Trees share rows where that leaves at most this share of the tokens: the mask they then need has its price.
_PACKED_SHARE = 0.8


@dataclass(slots=True)
class Sample:
    """One sequence to learn from. `columns` hold numbers for its trained tokens, in the order of the mask's
    ones: `old_logp`, `advantage`, …"""

    token_ids: Sequence[int]
    loss_mask: Sequence[int]
    columns: dict[str, Sequence[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert len(self.token_ids) == len(self.loss_mask)
        assert any(self.loss_mask), "a sample without trained tokens teaches nothing"
        assert not self.loss_mask[0], "nothing predicts the first token"
        assert all(len(column) == self.trained for column in self.columns.values())

    @classmethod
    def of(cls, completion: Completion, **columns: float) -> "Sample":
        """A completion to learn from, each column with one number for all its tokens, and `old_logp`."""
        wrote = len(completion.token_ids)
        return cls(
            [*completion.prompt_ids, *completion.token_ids],
            [0] * len(completion.prompt_ids) + [1] * wrote,
            {name: [value] * wrote for name, value in columns.items()} | {"old_logp": completion.logprobs},
        )

    @property
    def trained(self) -> int:
        """How many tokens carry a loss."""
        return sum(self.loss_mask)

    @property
    def prompt(self) -> int:
        """How many tokens come before the first trained one."""
        return self.loss_mask.index(1)

    @property
    def own(self) -> int:
        """How many tokens after the prompt are fed: nothing needs the last trained one, or what follows it."""
        return len(self.loss_mask) - 1 - self.loss_mask[::-1].index(1) - self.prompt


@dataclass(slots=True)
class Tree:
    """Samples with a common prompt: it once, then each one's own tokens."""

    samples: list[Sample]

    @property
    def length(self) -> int:
        """Tokens fed."""
        return self.samples[0].prompt + sum(sample.own for sample in self.samples)


@dataclass(slots=True)
class Row:
    """Trees in one row."""

    trees: list[Tree]

    @property
    def samples(self) -> list[Sample]:
        """In the order of their tokens."""
        return [sample for tree in self.trees for sample in tree.samples]

    @property
    def length(self) -> int:
        """Tokens fed."""
        return sum(tree.length for tree in self.trees)


@dataclass(slots=True)
class Batch:
    """Tensors of some rows. `places_T` indexes the hidden states `[B * S]` that predict `targets_T`;
    `sequences_T` counts the samples, so that tokens of one sample have one number; the columns are `[T]` too.
    `mask_B1SS` and `positions_BS` are None where every row is one sample."""

    ids_BS: Tensor
    places_T: Tensor
    targets_T: Tensor
    sequences_T: Tensor
    columns: dict[str, Tensor]
    positions_BS: Tensor | None = None
    mask_B1SS: Tensor | None = None

    def at(self, tokens_N: Tensor) -> "Batch":
        """The same with only these of the trained tokens."""
        columns = {name: column[tokens_N] for name, column in self.columns.items()}
        return replace(
            self,
            places_T=self.places_T[tokens_N],
            targets_T=self.targets_T[tokens_N],
            sequences_T=self.sequences_T[tokens_N],
            columns=columns,
        )

    def to(self, device: torch.device) -> "Batch":
        """The same on another device."""
        return Batch(
            self.ids_BS.to(device),
            self.places_T.to(device),
            self.targets_T.to(device),
            self.sequences_T.to(device),
            {name: column.to(device) for name, column in self.columns.items()},
            None if self.positions_BS is None else self.positions_BS.to(device),
            None if self.mask_B1SS is None else self.mask_B1SS.to(device),
        )


def rows(samples: Sequence[Sample], *, share: bool) -> list[Row]:
    """Lay samples out, a tree a row; with `share`, those with one prompt share trees."""
    if not share:
        return [Row([Tree([sample])]) for sample in samples]
    by_prompt: dict[tuple[int, ...], list[Sample]] = defaultdict(list)
    for sample in samples:
        by_prompt[tuple(sample.token_ids[: sample.prompt])].append(sample)
    return [Row([tree]) for prompt, members in by_prompt.items() for tree in _trees(len(prompt), members)]


def _trees(prompt: int, samples: Sequence[Sample]) -> Iterator[Tree]:
    tree = Tree([])
    for sample in samples:
        room = _BRANCH_TOKENS_PER_SHARED * prompt - sum(s.own for s in tree.samples)
        if tree.samples and sample.own > room:
            yield tree
            tree = Tree([])
        tree.samples.append(sample)
    yield tree


def packed(laid: Sequence[Row]) -> list[Row]:
    """The same trees in fewer rows, none longer than the longest: the longest first, each into the row that it
    fills best."""
    longest = max(row.length for row in laid)
    filled: list[Row] = []
    room: list[tuple[int, int]] = []  # (tokens free, row), ascending
    for row in sorted(laid, key=lambda row: -row.length):
        length = row.length
        best = bisect_left(room, (length, 0))
        if best == len(room):
            free, number = longest, len(filled)
            filled.append(Row([]))
        else:
            free, number = room.pop(best)
        filled[number].trees += row.trees
        insort(room, (free - length, number))
    return filled


def microbatches(samples: Sequence[Sample], tokens: int, *, share: bool) -> list[list[Row]]:
    """Split so that each part, padded, holds at most `tokens` tokens (or is a single row). `share`: attention
    takes a mask, so that samples may share rows."""
    apart = list(_parts(rows(samples, share=share), tokens))
    if not share:
        return apart
    together = list(_parts(packed([row for part in apart for row in part]), tokens)) if apart else []
    return together if _padded(together) <= _PACKED_SHARE * _padded(apart) else apart


def balanced(samples: Sequence[Sample], tokens: int, *, share: bool, ranks: int) -> list[list[Row]]:
    """Micro-batches for several ranks, as in `microbatches`, but small enough that each rank has work: as many
    rounds as the limit makes necessary, each about filled."""
    parts = microbatches(samples, tokens, share=share)
    if ranks == 1 or not parts:
        return parts
    fed = _padded(parts)
    rounds = math.ceil(fed / (tokens * ranks))
    return microbatches(samples, min(tokens, math.ceil(fed / (rounds * ranks))), share=share)


def smallest(samples: Sequence[Sample]) -> list[Row]:
    """The cheapest micro-batch there is."""
    return [Row([Tree([min(samples, key=lambda sample: len(sample.token_ids))])])]


def _parts(laid: Sequence[Row], tokens: int) -> Iterator[list[Row]]:
    """Ordered by length, which keeps padding small."""
    part: list[Row] = []
    for row in sorted(laid, key=lambda row: row.length):
        if part and (len(part) + 1) * row.length > tokens:
            yield part
            part = []
        part.append(row)
    if part:
        yield part


def _padded(parts: Sequence[list[Row]]) -> int:
    """Tokens fed, padding included."""
    return sum(len(part) * part[-1].length for part in parts)


def collate(part: Sequence[Row]) -> Batch:
    """Tensors of some rows; trained tokens in the order of rows, then of samples."""
    B, S = len(part), max(row.length for row in part)
    ids_BS = torch.zeros(B, S, dtype=torch.long)
    positions_BS = torch.zeros(B, S, dtype=torch.long)
    tree_BS = torch.full((B, S), -1)
    branch_BS = torch.zeros(B, S, dtype=torch.long)
    places: list[int] = []
    for b, row in enumerate(part):
        at = 0
        for number, tree in enumerate(row.trees):
            start, prompt = at, tree.samples[0].prompt
            at += prompt
            tree_BS[b, start : start + tree.length] = number
            ids_BS[b, start:at] = torch.tensor(tree.samples[0].token_ids[:prompt])
            positions_BS[b, start:at] = torch.arange(prompt)
            for branch, sample in enumerate(tree.samples, 1):
                end = at + sample.own
                ids_BS[b, at:end] = torch.tensor(sample.token_ids[prompt : prompt + sample.own])
                positions_BS[b, at:end] = torch.arange(prompt, prompt + sample.own)
                branch_BS[b, at:end] = branch
                fed = (i - 1 for i, trained in enumerate(sample.loss_mask) if trained)
                places += (b * S + (start + i if i < prompt else at + i - prompt) for i in fed)
                at = end
    samples = [sample for row in part for sample in row.samples]
    targets = [t for s in samples for t, trained in zip(s.token_ids, s.loss_mask, strict=True) if trained]
    columns = {
        name: torch.tensor([value for s in samples for value in s.columns[name]], dtype=torch.float32)
        for name in samples[0].columns
    }
    trained = torch.tensor([sample.trained for sample in samples])
    sequences_T = torch.arange(len(samples)).repeat_interleave(trained)
    batch = Batch(ids_BS, torch.tensor(places), torch.tensor(targets), sequences_T, columns)
    if len(samples) > len(part):
        batch.positions_BS, batch.mask_B1SS = positions_BS, _mask(tree_BS, branch_BS)
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
