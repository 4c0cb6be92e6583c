"""What the Triton kernels share."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
import os

import triton
import triton.language as tl

# Triton decides when a kernel is decorated whether it will be compiled or interpreted.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
BLOCK = 1024


def block_of(columns: int) -> int:
    """How many columns a program takes at a time."""
    return min(BLOCK, 1 << max(0, columns - 1).bit_length())


@triton.jit
def tanh(x):
    """Without overflow; triton's own is not there under the interpreter."""
    e = tl.exp(-2 * tl.abs(x))
    return tl.where(x < 0, -1.0, 1.0) * (1 - e) / (1 + e)


@triton.jit
def fold_block(z, inside, column, target, m, s, d, z_target, AXIS: tl.constexpr, ENTROPY: tl.constexpr):
    """Add columns along AXIS to the running sums of a row (or of a column vector of rows).

    Columns that are not `inside` count as −inf: a vocabulary that no block size divides gains no phantoms.
    """
    z_target += tl.sum(tl.where(inside & (column == target), z, 0.0), axis=AXIS)
    higher = tl.maximum(m, tl.max(tl.where(inside, z, float("-inf")), axis=AXIS))
    wide = higher if AXIS == 0 else higher[:, None]
    centred = tl.where(inside, z - wide, 0.0)
    e = tl.where(inside, tl.exp(centred), 0.0)
    decay = tl.exp(m - higher)
    if ENTROPY:  # the maximum keeps 0 · inf away where nothing has been summed yet
        d = (d + s * tl.maximum(m - higher, -1e4)) * decay + tl.sum(centred * e, axis=AXIS)
    return higher, s * decay + tl.sum(e, axis=AXIS), d, z_target
