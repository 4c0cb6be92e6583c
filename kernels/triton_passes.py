"""The two passes over a tile of logits as Triton kernels; `torch_passes` says what each computes."""

from torch import Tensor

from vertigym.kernels.row_stats import RowInputs
from vertigym.kernels.triton_common import INTERPRETED
from vertigym.kernels.triton_dlogits import dlogits
from vertigym.kernels.triton_fold import fold

__all__ = ["INTERPRETED", "activate", "dlogits", "fold"]


def activate(u_NC: Tensor, bias_C: Tensor | None, rows: RowInputs) -> None:
    """Nothing: the kernels read raw logits."""
