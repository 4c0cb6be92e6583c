"""A sweep over the vocabulary, tile by tile: forward to the statistics, backward to the gradients.

The vocabulary is the outer loop, so that each tile of the weight is read (and converted) once and each tile
of its gradient is written once, whatever the number of rows. The matmuls are the library's (cuBLAS, MKL);
the passes between them are torch's or Triton's.

Axes: N rows, H hidden, V vocabulary, C columns of a tile, R LoRA rank.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from vertigym.kernels.grads import InputGrads, VocabularyGrads
from vertigym.kernels.head import Head
from vertigym.kernels.plan import TilePlan, cut
from vertigym.kernels.row_stats import RowGrads, RowInputs, RowSums, Scratch


class TilePasses(Protocol):
    """The two passes over a tile of logits; `torch_passes` says what each computes."""

    def activate(self, u_NC: Tensor, bias_C: Tensor | None, rows: RowInputs) -> None:
        """Whatever the pass wants done to a tile once, right after the matmul."""

    def fold(
        self, z_NC: Tensor, bias_C: Tensor | None, start: int, rows: RowInputs, stats: RowSums, scratch: Scratch
    ) -> None:
        """Add a tile to `stats`; the tile stays as it is."""

    def dlogits(
        self,
        z_NC: Tensor,
        bias_C: Tensor | None,
        start: int,
        rows: RowInputs,
        grads: RowGrads,
        dtype: torch.dtype,
        scratch: Scratch,
    ) -> Tensor:
        """dL/du in `dtype`; the tile may be overwritten."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """RowInputs `x_NH` (in the dtype they are multiplied in) under a head; `dtype` is that of all sums."""

    x_NH: Tensor
    xa_NR: Tensor | None
    head: Head
    rows: RowInputs
    plan: TilePlan
    passes: TilePasses
    dtype: torch.dtype
    first_column: int
    scratch: Scratch

    def at(self, rows: slice | Tensor) -> "Sweep":
        """The same sweep over some of the rows."""
        xa_NR = None if self.xa_NR is None else self.xa_NR[rows]
        return replace(self, x_NH=self.x_NH[rows], xa_NR=xa_NR, rows=self.rows.at(rows))

    def forward(self, stats: RowSums, kept_tiles: int) -> list[Tensor]:
        """Fill `stats`; returns the logits of the first `kept_tiles` tiles."""
        kept: list[Tensor] = []
        for columns, part in self._tiles():
            if len(kept) < kept_tiles:
                shape = self.x_NH.shape[0], columns.stop - columns.start
                kept.append(self.scratch(f"kept {len(kept)}", shape, self.dtype))
                whole_NC = kept[-1]
            else:
                whole_NC = None
            for block in cut(self.x_NH.shape[0], self.plan.forward_rows):
                some = self.at(block)
                z_NC = some._logits(part, None if whole_NC is None else whole_NC[block])
                start = self.first_column + columns.start
                self.passes.fold(z_NC, part.bias_V, start, some.rows, stats.at(block), self.scratch)
        return kept

    def backward(
        self,
        grads: RowGrads,
        kept: list[Tensor],
        inputs: InputGrads,
        vocabulary: VocabularyGrads,
        kept_rows: Tensor | None = None,
    ) -> None:
        """Add the gradients for the upstream gradients in `grads`. The tensors in `kept` are overwritten; when
        they have other rows too, `kept_rows` says which of them are these."""
        if not self.x_NH.shape[0]:
            return
        for number, (columns, part) in enumerate(self._tiles()):
            vocabulary.begin(columns)
            whole_NC = kept[number] if number < len(kept) else None
            if whole_NC is not None and kept_rows is not None:
                whole_NC = whole_NC[kept_rows]
            for block in cut(self.x_NH.shape[0], self.plan.backward_rows):
                some = self.at(block)
                z_NC = some._logits(part, None) if whole_NC is None else whole_NC[block]
                start = self.first_column + columns.start
                d_NC = self.passes.dlogits(
                    z_NC, part.bias_V, start, some.rows, grads.at(block), self.x_NH.dtype, self.scratch
                )
                inputs.at(block).add(d_NC, part)
                vocabulary.add(d_NC, some.x_NH, some.xa_NR, columns)
            vocabulary.end(columns)

    def backward_live(
        self, grads: RowGrads, kept: list[Tensor], inputs: InputGrads, vocabulary: VocabularyGrads
    ) -> None:
        """`backward` over the rows that have a gradient."""
        live = grads.live()
        if live is None:
            self.backward(grads, kept, inputs, vocabulary)
        elif live.shape[0]:
            some = self.at(live)
            sums = inputs.zeros_like(live.shape[0])
            some.backward(grads.at(live), kept, sums, vocabulary, live)
            inputs.put(live, sums)

    def _tiles(self) -> Iterator[tuple[slice, Head]]:
        for columns in cut(self.head.weight_VH.shape[0], self.plan.columns):
            yield columns, self.head.tile(columns, self.x_NH.dtype, self.dtype)

    def _logits(self, part: Head, out_NC: Tensor | None) -> Tensor:
        """The tile `part`, into `out_NC` or a buffer."""
        if out_NC is None:
            out_NC = self.scratch("logits", (self.x_NH.shape[0], part.weight_VH.shape[0]), self.dtype)
        part.logits(self.x_NH, self.xa_NR, out_NC)
        self.passes.activate(out_NC, part.bias_V, self.rows)
        return out_NC
