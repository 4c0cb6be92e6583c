"""A vocabulary split over ranks: each holds some columns of the head, all hold the same hidden states.

Forward, two small reductions of per-row sums: the maximum, then everything else on that common centre.
Backward, one sum of the gradients that reach the hidden states. Nothing of size V crosses a wire.
"""

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from vertigym.kernels.row_stats import RowSums


class Shard(NamedTuple):
    """This rank's columns: `first … first + weight.shape[0]` of `vocab`. `group` None is the default group."""

    first: int
    vocab: int
    group: dist.ProcessGroup | None = None


def merge(stats: RowSums, shard: Shard | None) -> None:
    """Make the sums of one rank those of the whole vocabulary."""
    if shard is None:
        return
    max_N = stats.max_N.clone()
    dist.all_reduce(max_N, dist.ReduceOp.MAX, shard.group)
    stats.recentre(max_N)
    parts = [stats.sum_N, stats.target_N, *([] if stats.dot_N is None else [stats.dot_N])]
    sums = torch.stack(parts)
    dist.all_reduce(sums, group=shard.group)
    for part, total in zip(parts, sums, strict=True):
        part.copy_(total)


def usual_columns(weight_VH: Tensor, shard: Shard | None) -> int:
    """Columns a rank has on average: what all ranks plan by, so that they meet in the same reductions."""
    return weight_VH.shape[0] if shard is None else -(-shard.vocab // dist.get_world_size(shard.group))


def total(sums: Tensor | None, shard: Shard | None) -> None:
    """Sum over the ranks, in place."""
    if shard is not None and sums is not None:
        dist.all_reduce(sums, group=shard.group)
