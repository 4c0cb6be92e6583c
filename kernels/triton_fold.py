"""Maximum, sum, entropy sum and target of a tile of logits in one read of it.

The reference is `torch_passes.fold`. Bias, soft-cap and temperature are applied on the fly, so the tile stays
the raw fp32 matmul output.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
import triton
import triton.language as tl
from torch import Tensor

from vertigym.kernels.row_stats import RowInputs, RowSums, Scratch
from vertigym.kernels.triton_common import block_of, fold_block, tanh


def fold(
    z_NC: Tensor, bias_C: Tensor | None, start: int, rows: RowInputs, stats: RowSums, scratch: Scratch
) -> None:
    """Add the columns `start …` to `stats`."""
    count, columns = z_NC.shape
    if not count:
        return
    fold_kernel[(count,)](
        z_NC,
        z_NC.stride(0),
        bias_C,
        rows.target_N,
        rows.inverse_temperature_N,
        stats.max_N,
        stats.sum_N,
        stats.dot_N,
        stats.target_N,
        start,
        columns,
        rows.softcap,
        BLOCK=block_of(columns),
        num_warps=4,
    )


@triton.jit
def fold_kernel(
    u_ptr,
    u_stride,
    bias_ptr,
    target_ptr,
    inverse_temperature_ptr,
    max_ptr,
    sum_ptr,
    dot_ptr,
    z_target_ptr,
    start,
    columns,
    softcap,
    BLOCK: tl.constexpr,
):
    """One program a row. A pointer or softcap that is None leaves its part out."""
    row = tl.program_id(0).to(tl.int64)  # row × stride passes 2³¹
    target = tl.load(target_ptr + row) - start
    m = tl.load(max_ptr + row)
    s = tl.load(sum_ptr + row)
    d = 0.0 if dot_ptr is None else tl.load(dot_ptr + row)
    z_target = tl.load(z_target_ptr + row)
    inverse = 1.0 if inverse_temperature_ptr is None else tl.load(inverse_temperature_ptr + row)
    for first in range(0, columns, BLOCK):
        column = first + tl.arange(0, BLOCK)
        inside = column < columns
        z = tl.load(u_ptr + row * u_stride + column, mask=inside, other=0.0)
        if bias_ptr is not None:
            z += tl.load(bias_ptr + column, mask=inside, other=0.0)
        if softcap is not None:
            z = softcap * tanh(z / softcap)
        z *= inverse
        m, s, d, z_target = fold_block(z, inside, column, target, m, s, d, z_target, 0, dot_ptr is not None)
    tl.store(max_ptr + row, m)
    tl.store(sum_ptr + row, s)
    tl.store(z_target_ptr + row, z_target)
    if dot_ptr is not None:
        tl.store(dot_ptr + row, d)
