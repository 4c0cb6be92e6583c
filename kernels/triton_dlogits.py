"""Gradients of the raw logits from a tile of logits, in one read and one write.

The reference is `torch_passes.dlogits`. Bias, soft-cap and temperature are applied on the fly.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
import torch
import triton
import triton.language as tl
from torch import Tensor

from vertigym.kernels.row_stats import RowGrads, RowInputs, Scratch
from vertigym.kernels.triton_common import block_of, tanh


def dlogits(
    z_NC: Tensor,
    bias_C: Tensor | None,
    start: int,
    rows: RowInputs,
    grads: RowGrads,
    dtype: torch.dtype,
    scratch: Scratch,
) -> Tensor:
    """dL/du of the columns `start …` in `dtype`; `z_NC` is overwritten when that is its dtype."""
    count, columns = z_NC.shape
    d_NC = z_NC if dtype == z_NC.dtype else scratch("dlogits", (count, columns), dtype)
    if not count:
        return d_NC
    block = block_of(columns)
    dlogits_kernel[(count, triton.cdiv(columns, block))](
        z_NC,
        z_NC.stride(0),
        d_NC,
        d_NC.stride(0),
        bias_C,
        rows.target_N,
        rows.inverse_temperature_N,
        grads.lse_N,
        grads.entropy_N,
        grads.g_N,
        grads.h_N if grads.entropy_N is not None else None,
        start,
        columns,
        rows.softcap,
        BLOCK=block,
        num_warps=4,
    )
    return d_NC


@triton.jit
def dlogits_kernel(
    u_ptr,
    u_stride,
    d_ptr,
    d_stride,
    bias_ptr,
    target_ptr,
    inverse_temperature_ptr,
    lse_ptr,
    entropy_ptr,
    g_ptr,
    h_ptr,
    start,
    columns,
    softcap,
    BLOCK: tl.constexpr,
):
    """One program for BLOCK columns of a row; `d` may be `u`. A None leaves its part out."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < columns
    z = tl.load(u_ptr + row * u_stride + column, mask=inside, other=0.0)
    slope = tl.full((BLOCK,), 1.0, tl.float32)
    if bias_ptr is not None:
        z += tl.load(bias_ptr + column, mask=inside, other=0.0)
    if softcap is not None:
        t = tanh(z / softcap)
        slope *= 1 - t * t
        z = softcap * t
    if inverse_temperature_ptr is not None:
        inverse = tl.load(inverse_temperature_ptr + row)
        slope *= inverse
        z *= inverse
    g = tl.load(g_ptr + row)
    logp = tl.where(inside, z - tl.load(lse_ptr + row), 0.0)
    weight = g + tl.zeros((BLOCK,), tl.float32)
    if h_ptr is not None:
        weight += tl.load(h_ptr + row) * (logp + tl.load(entropy_ptr + row))
    d = tl.where(column + start == tl.load(target_ptr + row), g, 0.0) - weight * tl.exp(logp)
    tl.store(d_ptr + row * d_stride + column, (d * slope).to(d_ptr.dtype.element_ty), mask=inside)
