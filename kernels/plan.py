"""How a call is cut into tiles, and what it holds from forward to backward.

Three ways to get gradients, by what fits in the byte budget and what is known (one unit is tokens × hidden ×
vocabulary multiply-adds; a forward pass alone takes 1):

    speed     3 units   all logits kept for the backward pass
    eager     3 units   (2 with a frozen head) gradients taken in the forward pass, one group of rows after the
                        other: needs the upstream gradients beforehand, or a frozen head, where they only
                        scale rows
    memory    4 units   as many logits kept as fit, the others computed again
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

MIB = 1 << 20
# A CPU tile of 2 MB stays in the cache between the matmul and the passes over it.
CPU_ROWS, CPU_COLUMNS = 1024, 512
# 1024 × 8448 fp32 logits are 35 MB, inside the 50-60 MB L2 of a Hopper; with 128 × 128 or 128 × 256 matmul
# tiles the grid fills its 132 SMs in whole waves. The backward pass takes all rows, so that a sum over rows
# is made inside one matmul.
CUDA_ROWS, CUDA_COLUMNS = 1024, 8448
GPU_BUDGET = 8192 * MIB
LEAST_CPU_BUDGET = 32 * MIB
# Fewer rows than this in a group and the weight is read more often than the saved matmul is worth.
LEAST_EAGER_ROWS = 128


@dataclass(frozen=True, slots=True)
class TilePlan:
    """Tiles of `columns`, in blocks of rows. `kept` tiles of logits live until the backward pass; or gradients
    are taken in the forward pass, `eager_rows` at a time (0: not)."""

    forward_rows: int
    backward_rows: int
    columns: int
    kept: int = 0
    eager_rows: int = 0

    def tiles(self, vocab: int) -> int:
        """How many tiles `vocab` columns make."""
        return -(-vocab // self.columns)


def default_budget(weight_bytes: int, device: torch.device) -> int:
    """Bytes of logits to hold by default: on a CPU, as many as the weight's gradient takes anyway."""
    return max(LEAST_CPU_BUDGET, weight_bytes) if device.type == "cpu" else GPU_BUDGET


def cut(length: int, step: int) -> Iterator[slice]:
    """`length` in steps."""
    return (slice(start, min(start + step, length)) for start in range(0, length, step))


def make_plan(
    rows: int,
    vocab: int,
    *,
    backward: bool,
    eager: bool,
    device: torch.device,
    budget: int,
    itemsize: int = 4,
) -> TilePlan:
    """The plan for `rows` × `vocab` logits of `itemsize` bytes.

    Args:
        rows: tokens to score.
        vocab: columns of the head.
        backward: gradients will be wanted.
        eager: they can be taken in the forward pass.
        device: where the tensors are.
        budget: bytes of logits to hold.
        itemsize: bytes of a logit.
    """
    on_cpu = device.type == "cpu"
    columns = _columns(vocab, CPU_COLUMNS if on_cpu else CUDA_COLUMNS)
    block = max(1, (CPU_ROWS * CPU_COLUMNS if on_cpu else CUDA_ROWS * CUDA_COLUMNS) // columns)
    plan = TilePlan(block, block if on_cpu else max(1, rows), columns)
    if not backward or rows == 0:
        return plan
    kept = min(budget // (rows * columns * itemsize), plan.tiles(vocab))
    if kept == plan.tiles(vocab):
        return TilePlan(block, plan.backward_rows, columns, kept=kept)
    eager_rows = budget // (vocab * itemsize)
    if eager and eager_rows >= min(rows, LEAST_EAGER_ROWS):
        return TilePlan(block, min(plan.backward_rows, eager_rows), columns, eager_rows=eager_rows)
    return TilePlan(block, plan.backward_rows, columns, kept=kept)


def _columns(vocab: int, usual: int) -> int:
    """The width of a tile: the usual one, or the whole of a vocabulary that is little wider."""
    return max(1, vocab if vocab <= 2 * usual else usual)
