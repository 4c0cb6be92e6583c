"""What is counted of a model on tensors without data is what its real passes hold."""

from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from transformers import Qwen3Config

from tests.tiny_models import tiny_config, tiny_model
from vertigym.core.errors import InputError
from vertigym.learner.logit_head import trunk_of
from vertigym.learner.model_numbers import ModelNumbers
from vertigym.policies.lora import LoRAConfig

# Qwen3's sizes: hidden, MLP, heads; and bytes a token and layer, float32 and bfloat16, as they were measured on
# real passes before this arithmetic was written.
QWEN3 = {
    "0.6B": ((1024, 3072, 16), (123_048, 82_088)),
    "1.7B": ((2048, 6144, 16), (196_776, 133_288)),
    "4B": ((2560, 9728, 32), (299_304, 195_880)),
    "8B": ((4096, 12288, 32), (377_128, 256_296)),
}


def qwen3(name: str, layers: int) -> Qwen3Config:
    hidden, mlp, heads = QWEN3[name][0]
    return Qwen3Config(
        hidden_size=hidden,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=151_936,
    )


@pytest.mark.parametrize("name", QWEN3)
def test_a_layer_keeps_the_bytes_that_were_measured(name: str) -> None:
    one, two = (ModelNumbers(qwen3(name, layers)) for layers in (1, 2))
    for dtype, measured in zip((torch.float32, torch.bfloat16), QWEN3[name][1], strict=True):
        assert two.kept(dtype).token - one.kept(dtype).token == measured
    hidden = QWEN3[name][0][0]
    again = [numbers.kept(torch.bfloat16, checkpointing=True).token for numbers in (one, two)]
    assert again[1] - again[0] == 4 * hidden, "a checkpointed layer keeps its input, in float32"


@pytest.mark.parametrize("family", ["qwen2", "gemma2", "gpt2", "phi3", "olmo2"])
def test_any_architecture_is_counted_as_its_real_pass_is(family: str) -> None:
    model, length = tiny_model(family), 80
    trunk = trunk_of(model)
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        trunk(input_ids=torch.zeros(1, length, dtype=torch.long), use_cache=False)
    for weight in trunk.parameters():
        kept.pop(weight.untyped_storage().data_ptr(), None)
    real = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    numbers = ModelNumbers(tiny_config(family))
    # Gemma's window is longer than this row, which needs no mask; the count is of rows that do.
    assert 0.99 * real <= numbers.kept(torch.float32).of(1, length) <= 1.1 * real
    assert numbers.parameters == sum(p.numel() for p in model.parameters())


def test_adapters_and_the_cache_are_counted() -> None:
    numbers = ModelNumbers(qwen3("0.6B", 2), LoRAConfig(rank=4))
    ends = {"q": (1024, 2048), "k": (1024, 1024), "v": (1024, 1024), "o": (2048, 1024)}
    ends |= {"gate": (1024, 3072), "up": (1024, 3072), "down": (3072, 1024)}
    assert numbers.trained == 2 * 4 * sum(sum(pair) for pair in ends.values())
    assert numbers.adapted == 2 * sum(one * other for one, other in ends.values())
    assert numbers.cache == 2 * 2 * 8 * 128
    forward = 2 * numbers.adapted + 2 * numbers.trained  # a multiplication and an addition a weight
    assert numbers.operations.token == pytest.approx(forward)


def test_a_model_whose_code_asks_for_data_is_said_to_be_only_measurable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from transformers.models.qwen3 import modeling_qwen3

    inner: Any = modeling_qwen3.Qwen3MLP.forward
    monkeypatch.setattr(modeling_qwen3.Qwen3MLP, "forward", lambda self, x: inner(self, x[x.abs().sum(-1) > 0]))
    with pytest.raises(InputError, match="cannot be computed, only measured"):
        ModelNumbers(qwen3("0.6B", 1))
