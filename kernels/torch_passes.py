"""The two passes over a tile of logits, in plain torch: the reference, and what every CPU run uses.

With z = cap·tanh(u / cap) / τ (cap and τ optional), p = softmax(z), y the target, Ent = −Σ p log p:

    fold      running max m, Σ e^(z−m), Σ (z−m) e^(z−m) and z_y over the tiles of a row (online softmax:
              Milakov & Gimelshein, https://arxiv.org/abs/1805.02867)
    dlogits   dL/du = (g (1_y − p) − h p (log p + Ent)) · (1 − tanh²) / τ
              for upstream gradients g of the log-prob and h of the entropy

Axes: N rows, C columns of the tile.
"""

import torch
from torch import Tensor

from vertigym.kernels.row_stats import RowGrads, RowInputs, RowSums, Scratch


def activate(u_NC: Tensor, bias_C: Tensor | None, rows: RowInputs) -> None:
    """Raw logits without bias become z, in place."""
    if bias_C is not None:
        u_NC += bias_C
    if rows.softcap is not None:
        u_NC.div_(rows.softcap).tanh_().mul_(rows.softcap)
    if rows.inverse_temperature_N is not None:
        u_NC.mul_(rows.inverse_temperature_N[:, None])


def fold(
    z_NC: Tensor, bias_C: Tensor | None, start: int, rows: RowInputs, stats: RowSums, scratch: Scratch
) -> None:
    """Add the columns `start …` to `stats`."""
    max_N = torch.maximum(stats.max_N, z_NC.amax(1))
    stats.recentre(max_N)
    inside_N, column_N = _locate(rows.target_N, start, z_NC.shape[1])
    stats.target_N.add_(z_NC.gather(1, column_N[:, None])[:, 0].where(inside_N, 0.0))
    centred_NC = torch.sub(z_NC, max_N[:, None], out=scratch.like("centred", z_NC))
    if stats.dot_N is None:
        stats.sum_N.add_(centred_NC.exp_().sum(1))
    else:
        e_NC = torch.exp(centred_NC, out=scratch.like("exp", z_NC))
        stats.sum_N.add_(e_NC.sum(1))
        stats.dot_N.add_(torch.linalg.vecdot(centred_NC, e_NC))


def dlogits(
    z_NC: Tensor,
    bias_C: Tensor | None,
    start: int,
    rows: RowInputs,
    grads: RowGrads,
    dtype: torch.dtype,
    scratch: Scratch,
) -> Tensor:
    """dL/du of the columns `start …` in `dtype`; `z_NC` is overwritten."""
    inverse_N, g_N, h_N = rows.inverse_temperature_N, grads.g_N, grads.h_N
    slope_NC = None
    if rows.softcap is not None:  # tanh = z·τ/cap
        scale_N = torch.full_like(g_N, 1 / rows.softcap)
        scale_N = scale_N if inverse_N is None else scale_N / inverse_N
        slope_NC = torch.mul(z_NC, scale_N[:, None], out=scratch.like("slope", z_NC))
        slope_NC.square_().neg_().add_(1)
    if inverse_N is not None:
        g_N, h_N = g_N * inverse_N, None if h_N is None else h_N * inverse_N
    z_NC.sub_(grads.lse_N[:, None])
    if h_N is None or grads.entropy_N is None:
        z_NC.exp_().mul_(g_N.neg()[:, None])
    else:
        p_NC = torch.exp(z_NC, out=scratch.like("exp", z_NC))
        z_NC.mul_(h_N[:, None]).add_((g_N + h_N * grads.entropy_N)[:, None]).mul_(p_NC).neg_()
    inside_N, column_N = _locate(rows.target_N, start, z_NC.shape[1])
    z_NC.scatter_add_(1, column_N[:, None], g_N.where(inside_N, 0.0)[:, None])
    return (z_NC if slope_NC is None else z_NC.mul_(slope_NC)).to(dtype)


def _locate(target_N: Tensor, start: int, columns: int) -> tuple[Tensor, Tensor]:
    """Which targets lie in the tile, and the nearest of its columns."""
    column_N = target_N - start
    nearest_N = column_N.clamp(0, columns - 1)
    return column_N == nearest_N, nearest_N
