"""Where the gradients of a backward sweep are summed.

What belongs to rows (hidden states) is summed over the tiles of the vocabulary; what belongs to the
vocabulary (weight, bias, the adapter's B) is summed over blocks of rows within a tile, and written once.

Axes: N rows, H hidden, V vocabulary, C columns of a tile, R LoRA rank, K any width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from vertigym.kernels.head import Head, Lora, add_matmul, matmul


@dataclass(frozen=True, slots=True)
class Needs:
    """Which gradients are wanted."""

    hidden: bool
    weight: bool
    bias: bool
    lora_a: bool
    lora_b: bool

    @property
    def any(self) -> bool:
        """A backward pass may come."""
        return self.hidden or self.weight or self.bias or self.lora_a or self.lora_b

    @property
    def only_hidden(self) -> bool:
        """The head is frozen."""
        return self.hidden and not (self.weight or self.bias or self.lora_a or self.lora_b)


@dataclass(frozen=True, slots=True)
class InputGrads:
    """Gradients of `x` and of `s x Aᵀ`; None where not needed."""

    hidden_NH: Tensor | None
    adapter_NR: Tensor | None

    @staticmethod
    def zeros(x_NH: Tensor, xa_NR: Tensor | None, needs: Needs, dtype: torch.dtype) -> "InputGrads":
        """Nothing summed yet."""
        through = None if xa_NR is None or not (needs.hidden or needs.lora_a) else xa_NR
        return InputGrads(
            torch.zeros_like(x_NH, dtype=dtype) if needs.hidden else None,
            None if through is None else torch.zeros_like(through, dtype=dtype),
        )

    def zeros_like(self, rows: int) -> "InputGrads":
        """The same kinds of sums for `rows` rows, nothing summed yet."""
        some = (None if g is None else g.new_zeros(rows, g.shape[1]) for g in (self.hidden_NH, self.adapter_NR))
        return InputGrads(*some)

    def at(self, rows: slice) -> "InputGrads":
        """A view of some rows."""
        return InputGrads(*(None if g is None else g[rows] for g in (self.hidden_NH, self.adapter_NR)))

    def scale(self, factor: Tensor) -> None:
        """Multiply, in place."""
        for grad in (self.hidden_NH, self.adapter_NR):
            if grad is not None:
                grad.mul_(factor)

    def put(self, rows: Tensor, some: "InputGrads") -> None:
        """Write `some` at the indices `rows`."""
        for mine, theirs in ((self.hidden_NH, some.hidden_NH), (self.adapter_NR, some.adapter_NR)):
            if mine is not None and theirs is not None:
                mine.index_copy_(0, rows, theirs)

    def add(self, d_NC: Tensor, part: Head) -> None:
        """Take in dL/du of the tile `part`."""
        if self.hidden_NH is not None:
            add_matmul(d_NC, part.weight_VH, self.hidden_NH)
        if self.adapter_NR is not None and part.lora is not None:
            add_matmul(d_NC, part.lora.b_VR, self.adapter_NR)

    def finish(self, x_NH: Tensor, lora: Lora | None, needs: Needs) -> Tensor | None:
        """Lead the adapter's gradient on to the hidden states, once all tiles are in; returns that of A."""
        if self.adapter_NR is None or lora is None:
            return None
        d_NR = self.adapter_NR * lora.scale
        if self.hidden_NH is not None:
            self.hidden_NH.addmm_(d_NR, lora.a_RH.to(d_NR.dtype))
        return (d_NR.T @ x_NH.to(d_NR.dtype)).to(lora.a_RH.dtype) if needs.lora_a else None


class TileSum:
    """The gradient of a parameter whose first axis is the vocabulary: `begin` a tile, `add` blocks, `end`.

    A tile is summed in `dtype` and rounded once, into the parameter's dtype. Where that dtype is `direct`, the
    matmul rounds its own sum, and no buffer is needed: only for a caller that adds one block a tile. With
    `again`, the caller comes back to a tile with more rows, so the whole gradient stays in `dtype` until
    `finish`.
    """

    def __init__(
        self, parameter: Tensor, dtype: torch.dtype, direct: torch.dtype | None, *, again: bool
    ) -> None:
        self._parameter, self._dtype = parameter, dtype
        kind = dtype if again else parameter.dtype
        self._buffered = kind not in (dtype, direct)
        self._grad = torch.empty(parameter.shape, dtype=kind, device=parameter.device)
        self._tile, self._fresh = self._grad, True
        self._written: set[int] = set()

    def begin(self, columns: slice) -> None:
        """Start on a tile, or come back to it."""
        self._tile = self._grad[columns]
        if self._buffered:
            self._tile = torch.empty_like(self._tile, dtype=self._dtype)
        self._fresh = columns.start not in self._written
        self._written.add(columns.start)

    def add(self, d_CN: Tensor, input_NK: Tensor) -> None:
        """Add `d @ input` to the tile."""
        (matmul if self._fresh else add_matmul)(d_CN, input_NK, self._tile)
        self._fresh = False

    def end(self, columns: slice) -> None:
        """The blocks of rows are through."""
        if self._buffered:
            self._grad[columns] = self._tile

    def scale(self, factor: Tensor) -> None:
        """Multiply, in place."""
        self._grad.mul_(factor)

    def finish(self) -> Tensor:
        """The gradient, in the dtype of its parameter."""
        return self._grad.to(self._parameter.dtype) if self._written else torch.zeros_like(self._parameter)


class VocabularyGrads:
    """Gradients of the weight, the bias and the adapter's B; those not needed are left out."""

    def __init__(
        self, head: Head, needs: Needs, dtype: torch.dtype, *, direct: torch.dtype | None, again: bool
    ) -> None:
        lora, bias_V = head.lora, head.bias_V
        self._weight = TileSum(head.weight_VH, dtype, direct, again=again) if needs.weight else None
        self._b = TileSum(lora.b_VR, dtype, direct, again=again) if needs.lora_b and lora is not None else None
        self._bias_V = torch.zeros_like(bias_V, dtype=dtype) if needs.bias and bias_V is not None else None
        self._bias_dtype = None if bias_V is None else bias_V.dtype

    def begin(self, columns: slice) -> None:
        """Start on a tile of the vocabulary."""
        for tiles in (self._weight, self._b):
            if tiles is not None:
                tiles.begin(columns)

    def add(self, d_NC: Tensor, x_NH: Tensor, xa_NR: Tensor | None, columns: slice) -> None:
        """Take in dL/du of one block of rows in the tile."""
        if self._bias_V is not None:
            self._bias_V[columns] += d_NC.sum(0, dtype=self._bias_V.dtype)
        if self._weight is not None:
            self._weight.add(d_NC.T, x_NH)
        if self._b is not None and xa_NR is not None:
            self._b.add(d_NC.T, xa_NR)

    def end(self, columns: slice) -> None:
        """The tile is complete, for these rows."""
        for tiles in (self._weight, self._b):
            if tiles is not None:
                tiles.end(columns)

    def scale(self, factor: Tensor) -> None:
        """Multiply, in place."""
        for tiles in (self._weight, self._b):
            if tiles is not None:
                tiles.scale(factor)
        if self._bias_V is not None:
            self._bias_V.mul_(factor)

    def finish(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Gradients of the weight, the bias and B, each in the dtype of its parameter."""
        return (
            None if self._weight is None else self._weight.finish(),
            None if self._bias_V is None else self._bias_V.to(self._bias_dtype),
            None if self._b is None else self._b.finish(),
        )
