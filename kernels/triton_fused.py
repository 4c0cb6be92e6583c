"""The whole forward pass in one persistent kernel: logits never leave the chip.

A program takes a block of rows and a range of the vocabulary, multiplies tile by tile, and folds each tile into
sums that stay in registers (Cut Your Losses, https://arxiv.org/abs/2411.09009, has the idea for the
cross-entropy). Memory traffic is what wins here: at a small H, writing and reading the logits costs a third of
the matmul. Needs a contiguous head without adapter and rows of a multiple of 16 bytes (TMA).

Not measured yet, so `impl="auto"` does not choose it.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
import torch
import triton
import triton.language as tl
from torch import Tensor

from vertigym.kernels.head import LOWEST_BIAS, Head
from vertigym.kernels.row_stats import RowInputs, RowSums
from vertigym.kernels.triton_common import INTERPRETED, fold_block, tanh

BLOCK_ROWS, BLOCK_COLUMNS, BLOCK_HIDDEN = 128, 256, 64
SMALL = (32, 128, 64)  # blocks for the interpreter, which runs programs one after the other
WARPS, STAGES = 8, 4
MOST_SPLITS = 8


def fits(x_NH: Tensor, head: Head) -> bool:
    """Whether the kernel can take these inputs. Blocks of float32 would need 393,248 bytes of shared memory: no
    GPU gives a program more than 232,448."""
    weight_VH = head.weight_VH
    return (
        head.lora is None
        and (x_NH.itemsize <= 2 or INTERPRETED)
        and weight_VH.dtype == x_NH.dtype
        and weight_VH.is_contiguous()
        and x_NH.shape[0] > 0
        and x_NH.shape[1] * x_NH.itemsize % 16 == 0
        and weight_VH.data_ptr() % 16 == 0
    )


def forward(x_NH: Tensor, head: Head, rows: RowInputs, stats: RowSums, first_column: int) -> None:
    """Fill `stats` from all columns of the head."""
    x_NH = x_NH.contiguous()
    count, vocab = x_NH.shape[0], head.weight_VH.shape[0]
    block_rows, block_columns, block_hidden = (
        SMALL if INTERPRETED else (BLOCK_ROWS, BLOCK_COLUMNS, BLOCK_HIDDEN)
    )
    programs = 4
    if x_NH.is_cuda:
        programs = torch.cuda.get_device_properties(x_NH.device).multi_processor_count
        triton.set_allocator(
            lambda size, align, stream: torch.empty(size, dtype=torch.int8, device=x_NH.device)
        )
    row_blocks = triton.cdiv(count, block_rows)
    split_columns = triton.cdiv(vocab, splits_for(row_blocks, programs) * block_columns) * block_columns
    splits = triton.cdiv(vocab, split_columns)
    bias_V = None if head.bias_V is None else head.bias_V.float().clamp(min=LOWEST_BIAS)
    partial = x_NH.new_empty(4, splits, count, dtype=torch.float32)
    fused_kernel[(min(programs, row_blocks * splits),)](
        x_NH,
        head.weight_VH,
        bias_V,
        rows.target_N,
        rows.inverse_temperature_N,
        *partial,
        count,
        x_NH.shape[1],
        vocab,
        first_column,
        split_columns,
        rows.softcap,
        ENTROPY=stats.dot_N is not None,
        BLOCK_ROWS=block_rows,
        BLOCK_COLUMNS=block_columns,
        BLOCK_HIDDEN=block_hidden,
        WIDE=INTERPRETED,
        num_warps=WARPS,
        num_stages=STAGES,
    )
    for max_N, sum_N, dot_N, target_N in partial.unbind(1):
        merge(stats, RowSums(max_N, sum_N, None if stats.dot_N is None else dot_N, target_N))


def merge(stats: RowSums, other: RowSums) -> None:
    """Add the sums over other columns of the same rows to `stats`; `other` is changed too."""
    max_N = torch.maximum(stats.max_N, other.max_N)
    stats.recentre(max_N)
    other.recentre(max_N)
    stats.sum_N.add_(other.sum_N)
    stats.target_N.add_(other.target_N)
    if stats.dot_N is not None and other.dot_N is not None:
        stats.dot_N.add_(other.dot_N)


def splits_for(row_blocks: int, programs: int) -> int:
    """Into how many ranges the vocabulary is cut, so that the last wave of programs is as full as can be."""

    def fullness(splits: int) -> float:
        items = row_blocks * splits
        return items / (-(-items // programs) * programs)

    return max(range(1, MOST_SPLITS + 1), key=lambda splits: (round(fullness(splits), 2), -splits))


@triton.jit
def fused_kernel(
    x_ptr,
    weight_ptr,
    bias_ptr,
    target_ptr,
    inverse_temperature_ptr,
    max_ptr,
    sum_ptr,
    dot_ptr,
    z_target_ptr,
    rows,
    hidden,
    vocab,
    first_column,
    split_columns,
    softcap,
    ENTROPY: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_HIDDEN: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Work items are (split, block of rows), blocks fastest, so that programs share the weight in the L2.

    WIDE multiplies in fp32: Triton's interpreter multiplies the bit patterns of bf16 (triton #11584).
    """
    x = tl.make_tensor_descriptor(x_ptr, [rows, hidden], [hidden, 1], [BLOCK_ROWS, BLOCK_HIDDEN])
    weight = tl.make_tensor_descriptor(weight_ptr, [vocab, hidden], [hidden, 1], [BLOCK_COLUMNS, BLOCK_HIDDEN])
    row_blocks = tl.cdiv(rows, BLOCK_ROWS)
    for item in tl.range(tl.program_id(0), row_blocks * tl.cdiv(vocab, split_columns), tl.num_programs(0)):
        first_row = (item % row_blocks) * BLOCK_ROWS
        split = item // row_blocks
        row = first_row + tl.arange(0, BLOCK_ROWS)
        live = row < rows
        target = tl.load(target_ptr + row, mask=live, other=-1) - first_column
        inverse = tl.full((BLOCK_ROWS,), 1.0, tl.float32)
        if inverse_temperature_ptr is not None:
            inverse = tl.load(inverse_temperature_ptr + row, mask=live, other=1.0)
        m = tl.full((BLOCK_ROWS,), -3.4e38, tl.float32)
        s = tl.zeros((BLOCK_ROWS,), tl.float32)
        d = tl.zeros((BLOCK_ROWS,), tl.float32)
        z_target = tl.zeros((BLOCK_ROWS,), tl.float32)
        for first in tl.range(
            split * split_columns, tl.minimum((split + 1) * split_columns, vocab), BLOCK_COLUMNS
        ):
            acc = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
            for k in tl.range(0, hidden, BLOCK_HIDDEN):
                a = x.load([first_row, k])
                b = weight.load([first, k])
                if WIDE:
                    a = a.to(tl.float32)
                    b = b.to(tl.float32)
                acc = tl.dot(a, b.T, acc)
            # A quarter of the columns at a time: the temporaries of all 256 would not fit into the registers.
            low, high = tl.split(tl.permute(tl.reshape(acc, (BLOCK_ROWS, 2, BLOCK_COLUMNS // 2)), (0, 2, 1)))
            for part in tl.static_range(4):
                half = low if part < 2 else high
                even, odd = tl.split(
                    tl.permute(tl.reshape(half, (BLOCK_ROWS, 2, BLOCK_COLUMNS // 4)), (0, 2, 1))
                )
                z = even if part % 2 == 0 else odd
                column = first + part * (BLOCK_COLUMNS // 4) + tl.arange(0, BLOCK_COLUMNS // 4)
                inside = (column < vocab)[None, :]
                if bias_ptr is not None:
                    z += tl.load(bias_ptr + column, mask=column < vocab, other=0.0)[None, :]
                if softcap is not None:
                    z = softcap * tanh(z / softcap)
                z *= inverse[:, None]
                m, s, d, z_target = fold_block(
                    z, inside, column[None, :], target[:, None], m, s, d, z_target, 1, ENTROPY
                )
        place = split.to(tl.int64) * rows + row
        tl.store(max_ptr + place, m, mask=live)
        tl.store(sum_ptr + place, s, mask=live)
        tl.store(z_target_ptr + place, z_target, mask=live)
        if ENTROPY:
            tl.store(dot_ptr + place, d, mask=live)
