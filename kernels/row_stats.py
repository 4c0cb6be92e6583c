"""What belongs to each row of a sweep besides its hidden state: the target, running sums, upstream gradients.

Axes: N rows.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class RowInputs:
    """The inputs of each row; `softcap` is one for all."""

    target_N: Tensor  # id, counted over the whole vocabulary even when this rank holds a shard of it
    inverse_temperature_N: Tensor | None  # None: 1
    softcap: float | None

    def at(self, rows: slice | Tensor) -> "RowInputs":
        """The same for some of the rows."""
        return RowInputs(self.target_N[rows], _at(self.inverse_temperature_N, rows), self.softcap)


@dataclass(frozen=True, slots=True)
class RowSums:
    """Running sums over the vocabulary, changed in place. The last sum is centred on the maximum, so that the
    entropy stays exact when all logits of a row are shifted by a large constant."""

    max_N: Tensor
    sum_N: Tensor  # Σ e^(z−max)
    dot_N: Tensor | None  # Σ (z−max) e^(z−max); None when no entropy is wanted
    target_N: Tensor  # z of the target, 0 until its column has been seen

    @staticmethod
    def empty(rows: int, *, entropy: bool, dtype: torch.dtype, device: torch.device) -> "RowSums":
        """No column seen yet."""
        lowest, sums, dots, target = torch.zeros(4, rows, dtype=dtype, device=device)
        return RowSums(lowest.fill_(torch.finfo(dtype).min), sums, dots if entropy else None, target)

    def at(self, rows: slice) -> "RowSums":
        """A view of some rows."""
        return RowSums(self.max_N[rows], self.sum_N[rows], _at(self.dot_N, rows), self.target_N[rows])

    def recentre(self, max_N: Tensor) -> None:
        """Move to a maximum that is no lower."""
        shift_N = self.max_N - max_N
        decay_N = shift_N.exp()
        if self.dot_N is not None:  # the clamp keeps 0 · inf away where nothing has been summed yet
            self.dot_N.addcmul_(self.sum_N, shift_N.clamp_(min=-1e4)).mul_(decay_N)
        self.sum_N.mul_(decay_N)
        self.max_N.copy_(max_N)

    def log_prob(self) -> Tensor:
        """log p of the target."""
        return (self.target_N - self.max_N) - self.sum_N.log()

    def log_sum_exp(self) -> Tensor:
        """log Σ e^z."""
        return self.max_N + self.sum_N.log()

    def entropy(self) -> Tensor | None:
        """−Σ p log p."""
        return None if self.dot_N is None else self.sum_N.log() - self.dot_N / self.sum_N


@dataclass(frozen=True, slots=True)
class RowGrads:
    """What the backward pass needs of each row: the forward's results and the upstream gradients."""

    lse_N: Tensor
    entropy_N: Tensor | None
    g_N: Tensor  # of the log-prob
    h_N: Tensor | None  # of the entropy

    def at(self, rows: slice | Tensor) -> "RowGrads":
        """The same for some of the rows."""
        return RowGrads(self.lse_N[rows], _at(self.entropy_N, rows), self.g_N[rows], _at(self.h_N, rows))

    def live(self) -> Tensor | None:
        """Indices of the rows with a gradient; None when that is all of them."""
        live_N = self.g_N != 0
        if self.h_N is not None:
            live_N |= self.h_N != 0
        index = live_N.nonzero()[:, 0]
        return None if index.shape[0] == live_N.shape[0] else index


class Scratch:
    """Buffers that are made once and reused for every tile: fresh memory costs a page fault every 4 kB."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._buffers: dict[tuple[str, torch.dtype], Tensor] = {}

    def __call__(self, name: str, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """The buffer `name` in this shape; its contents are whatever was left there."""
        size = shape[0] * shape[1]
        buffer = self._buffers.get((name, dtype))
        if buffer is None or buffer.numel() < size:
            buffer = self._buffers[name, dtype] = torch.empty(size, dtype=dtype, device=self._device)
        return buffer[:size].view(shape)

    def like(self, name: str, tensor: Tensor) -> Tensor:
        """The buffer `name` in the shape and dtype of a matrix."""
        return self(name, (tensor.shape[0], tensor.shape[1]), tensor.dtype)


def _at(tensor_N: Tensor | None, rows: slice | Tensor) -> Tensor | None:
    return None if tensor_N is None else tensor_N[rows]
