"""What the fused kernel is not given: inputs that its blocks have no room for."""

import pytest
import torch

pytest.importorskip("triton")


@pytest.mark.parametrize(
    ("dtype", "fits"), [(torch.float32, False), (torch.bfloat16, True), (torch.float16, True)]
)
def test_float32_is_refused_outside_the_interpreter(
    dtype: torch.dtype, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vertigym.kernels import triton_fused
    from vertigym.kernels.head import Head

    x_NH, weight_VH = torch.zeros(4, 16, dtype=dtype), torch.zeros(32, 16, dtype=dtype)
    monkeypatch.setattr(triton_fused, "INTERPRETED", False)
    assert triton_fused.fits(x_NH, Head(weight_VH)) is fits
