"""What a GGUF file (llama.cpp's format) holds, and what of it transformers would lose or compute otherwise.

The one idea: transformers passes over what it does not know in silence. Here every tensor must have its place
in the model, every setting of the architecture must be carried over or say what the config says already, and
blocks must be of a kind that two independent programs unpack alike (`tests/test_policies_gguf.py`).
"""

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vertigym.core.errors import DataError, MissingDependencyError

ARCHITECTURES = ("gemma2", "gemma3", "llama", "qwen2", "qwen3")
BLOCKS = (
    *("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
    *("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS"),
)
_FREQUENCIES = "rope_freqs.weight"  # divisors of the rotary frequencies: Llama 3's scaling, computed
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


class GGUFFile:
    """The settings and tensors of a file.

    Raises:
        DataError: it is no GGUF file, a part of one, of another architecture, or has blocks of another kind.
        MissingDependencyError: gguf is not installed.
    """

    def __init__(self, path: Path) -> None:
        try:
            from gguf import GGUFReader
        except ImportError:
            raise MissingDependencyError("gguf", "gguf", "vertigym model import") from None
        try:
            reader = GGUFReader(path)
            self.settings = {key: field.contents() for key, field in reader.fields.items()}
            self.architecture = str(self.settings["general.architecture"])
        except Exception as error:  # of any kind: the file is the user's
            raise DataError(f"{path}: no GGUF file ({type(error).__name__}: {error})") from None
        self.path = path
        self.tensors = {tensor.name: tensor for tensor in reader.tensors}
        self.kinds = Counter(tensor.tensor_type.name for tensor in reader.tensors)
        if int(self.settings.get("split.count", 0)) > 1:
            raise DataError(f"{path}: is one of several parts: join them with `llama-gguf-split --merge`")
        if self.architecture not in ARCHITECTURES:
            raise DataError(
                f"{path}: architecture {self.architecture!r} is not imported, only {', '.join(ARCHITECTURES)}: "
                "give the model's Hugging Face folder"
            )
        if others := sorted(set(self.kinds) - set(BLOCKS)):
            raise DataError(
                f"{path}: tensors of kind {', '.join(others)}, which are not unpacked here for certain: take a "
                f"file of {', '.join(BLOCKS)}"
            )

    def ids(self, *names: str) -> list[int]:
        """The token ids that the file gives under these names: `eos`, `bos`, …"""
        found = (self.settings.get(f"tokenizer.ggml.{name}_token_id") for name in names)
        return [int(i) for i in found if i is not None]

    def check_carried(self, model: Any, config: Any) -> None:
        """Complete `config`, a copy of that of a model which transformers made of the file.

        Raises:
            DataError: tensors or settings of the file have no part in the model.
        """
        lost = sorted({*self._unplaced(model, config), *self._unsaid(config)})
        if lost:
            raise DataError(
                f"{self.path}: {', '.join(lost[:3])}{' and more' if lost[3:] else ''} would be lost, and the "
                "model compute something else: give its Hugging Face folder"
            )

    def _unplaced(self, model: Any, config: Any) -> list[str]:
        """Tensors without a place in the model. Frequencies that are Llama 3's get theirs in the config."""
        from transformers.modeling_gguf_pytorch_utils import (
            TENSOR_PROCESSORS,
            TensorProcessor,
            get_gguf_hf_weights_map,
        )

        kind: Any = TENSOR_PROCESSORS.get(self.architecture, TensorProcessor)
        places = get_gguf_hf_weights_map(model, kind(config=model.config.to_dict()))
        lost = [name for name in self.tensors if name not in places]
        if _FREQUENCIES in lost:
            divisor_F = torch.tensor(self.tensors[_FREQUENCIES].data.copy())
            return [name for name in lost if name != _FREQUENCIES or not _scale_as_llama3(config, divisor_F)]
        return lost

    def _unsaid(self, config: Any) -> list[str]:
        """Settings that transformers has not carried over, and that the config does not say already."""
        from transformers.integrations.ggml import GGUF_CONFIG_MAPPING

        carried: Any = GGUF_CONFIG_MAPPING[self.architecture]
        said, begin = _said(config), f"{self.architecture}."
        head = said["attention.key_length"]
        # No file gives Gemma's scale of attention: llama.cpp knows that of 27B, whose heads are not of 256.
        scaled = getattr(config, "query_pre_attn_scalar", head) != head
        return [f"the scale of attention with heads of {head}"] * scaled + [
            f"{key} = {value}"
            for key, value in self.settings.items()
            if key.startswith(begin)
            and not carried.get(name := key.removeprefix(begin))
            and not _is_off(value)
            and not (isinstance(value, int | float) and math.isclose(value, said.get(name) or 0, rel_tol=1e-6))
        ]


def _is_off(value: Any) -> bool:
    return value in ("", "none") or (value == 0 and value is not False)


def _said(config: Any) -> Mapping[str, float | None]:
    """What a config says, by the names that GGUF has for it."""
    rope = getattr(config, "rope_parameters", None) or {}
    rope = rope.get("full_attention", rope)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    names = ("attn_logit_softcapping", "final_logit_softcapping", "sliding_window")
    return {
        "attention.key_length": head,
        "attention.value_length": head,
        "rope.dimension_count": int(head * rope.get("partial_rotary_factor", 1)),
        "rope.freq_base": rope.get("rope_theta"),
        **{name.replace("sliding", "attention.sliding"): getattr(config, name, None) for name in names},
    }


def _scale_as_llama3(config: Any, divisor_F: Tensor) -> bool:
    """Give the config Llama 3's scaling of rotary frequencies, if that is what these divisors are."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    before = config.rope_parameters
    if before.get("rope_type") != "default":
        return False
    unscaled_F = before["rope_theta"] ** -(torch.arange(len(divisor_F)) / len(divisor_F))
    config.rope_parameters = {**before, "rope_type": "llama3", "factor": float(divisor_F.max()), **_LLAMA3}
    scaled_F, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    if torch.allclose(scaled_F, unscaled_F / divisor_F, rtol=1e-4):
        return True
    config.rope_parameters = before
    return False
