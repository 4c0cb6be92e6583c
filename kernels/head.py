"""The language-model head, one vocabulary tile at a time.

    u = x Wᵀ + s (x Aᵀ) Bᵀ + b                 raw logits (A, B, s: a LoRA adapter on the head)

Matmuls multiply in the dtype of the hidden states and sum in fp32 (cuBLAS with an fp32 output; a CPU
converts the hidden states and each weight tile to fp32 instead, which is exact for bf16).

Axes: N rows (tokens), H hidden, V vocabulary, C columns of one vocabulary tile, R LoRA rank.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

# A bias of -inf (a masked column) would make 0 * inf in the entropy; this low, exp() is 0 all the same.
LOWEST_BIAS = -1e30


class Lora(NamedTuple):
    """A low-rank update of the head, in PEFT's orientation: `scale * B @ A` is added to the weight."""

    a_RH: Tensor
    b_VR: Tensor
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Head:
    """The parameters that turn hidden states into raw logits."""

    weight_VH: Tensor
    bias_V: Tensor | None = None
    lora: Lora | None = None

    def tile(self, columns: slice, dtype: torch.dtype, sums: torch.dtype) -> "Head":
        """Some columns of the vocabulary, to be multiplied in `dtype` and summed in `sums`."""
        bias, lora = self.bias_V, self.lora
        return Head(
            self.weight_VH[columns].to(dtype),
            None if bias is None else bias[columns].to(sums).clamp(min=LOWEST_BIAS),
            None if lora is None else Lora(lora.a_RH, lora.b_VR[columns].to(dtype), lora.scale),
        )

    def adapter_input(self, x_NH: Tensor) -> Tensor | None:
        """`s x Aᵀ` [N, R], in the dtype of `x`; None without an adapter."""
        return None if self.lora is None else x_NH @ self.lora.a_RH.to(x_NH.dtype).T * self.lora.scale

    def logits(self, x_NH: Tensor, xa_NR: Tensor | None, out_NC: Tensor) -> None:
        """Raw logits but for the bias, into `out_NC`; `self` is a tile."""
        matmul(x_NH, self.weight_VH.T, out_NC)
        if self.lora is not None and xa_NR is not None:
            add_matmul(xa_NR, self.lora.b_VR.T, out_NC)


def matmul(a_NK: Tensor, b_KM: Tensor, out_NM: Tensor) -> None:
    """`out = a b`, summed in the dtype of `out`."""
    if a_NK.dtype == out_NM.dtype:
        torch.mm(a_NK, b_KM, out=out_NM)
    else:
        torch.mm(a_NK, b_KM, out_dtype=out_NM.dtype, out=out_NM)


def add_matmul(a_NK: Tensor, b_KM: Tensor, out_NM: Tensor) -> None:
    """`out += a b`, summed in the dtype of `out`."""
    if a_NK.dtype == out_NM.dtype:
        out_NM.addmm_(a_NK, b_KM)
    else:
        torch.addmm(out_NM, a_NK, b_KM, out_dtype=out_NM.dtype, out=out_NM)
