"""Models of every family that transformers has, tiny and with random weights, made from their configs."""

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCABULARY = 320
_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "initializer_range": 0.2, "max_position_embeddings": 128, "n_positions": 128,
    "hidden_size": 32, "d_model": 32, "n_embd": 32, "word_embed_proj_dim": 32,
    "intermediate_size": 48, "ffn_dim": 48, "n_inner": 48, "decoder_ffn_dim": 48, "moe_intermediate_size": 16,
    "num_hidden_layers": 2, "n_layer": 2, "n_layers": 2, "num_layers": 2, "decoder_layers": 2,
    "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "decoder_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "rotary_dim": 4, "state_size": 8,
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_MAMBA = {"mamba_d_state": 8, "mamba_d_head": 16, "mamba_n_heads": 4, "mamba_expand": 2, "mamba_n_groups": 1}
_LINEAR = {
    "num_hidden_layers": 4, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "head_dim": 8,
}  # fmt: skip
_LATENT = {
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8,
    "num_key_value_heads": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "head_dim": 8,
}  # fmt: skip
# What the sizes above do not fit.
_SPECIAL: dict[str, dict[str, Any]] = {
    "bamba": {**_MAMBA, "attn_layer_indices": [1]},
    "granitemoehybrid": {**_MAMBA, "layers_block_type": ["mamba", "attention"], "shared_intermediate_size": 48},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "mamba_d_state": 8},
    "qwen3_next": _LINEAR,
    "qwen3_5": _LINEAR,
    "qwen3_5_text": _LINEAR,
    "qwen3_5_moe": {**_LINEAR, "shared_expert_intermediate_size": 16},
    "qwen3_5_moe_text": {**_LINEAR, "shared_expert_intermediate_size": 16},
    "mamba2": {"num_heads": 4, "head_dim": 16, "expand": 2, "n_groups": 1},
    "gemma4_text": {"num_hidden_layers": 2, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 320,
                    "num_kv_shared_layers": 0, "layer_types": ["sliding_attention", "full_attention"]},
    "gemma3n_text": {"num_hidden_layers": 5, "num_kv_shared_layers": 0, "hidden_size_per_layer_input": 8,
                     "vocab_size_per_layer_input": 320, "laurel_rank": 8, "intermediate_size": [48] * 5,
                     "activation_sparsity_pattern": [0.0] * 5},
    "minicpm3": _LATENT,
    "deepseek_v2": _LATENT,
    "deepseek_v3": _LATENT,
    "glm4_moe_lite": _LATENT,
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 4},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "dots1": {"n_group": 1, "topk_group": 1, "n_shared_experts": 1},
    "mistral": {"sliding_window": 4},
    "phi3": {"sliding_window": 4},
    "qwen2": {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0},
    "starcoder2": {"sliding_window": 4},
    "gpt2": {"resid_pdrop": 0.1},
    "zamba2": {**_MAMBA, "layers_block_type": ["mamba", "hybrid"], "mamba_headdim": 16, "n_mamba_heads": 4,
               "num_mem_blocks": 1, "hybrid_layer_ids": [1], "mamba_ngroups": 1},
}  # fmt: skip
FAMILIES = sorted({*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES})
_LARGEST = 3_000_000


class NotTinyError(Exception):
    """A family that these sizes do not make tiny, or not at all."""


def tiny_model(family: str, **more: Any) -> Any:
    """A model of a family, in evaluation mode.

    Raises:
        NotTinyError: it cannot be made tiny here.
    """
    try:
        config = tiny_config(family, **more)
        with torch.device("meta"):
            size = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
        if size > _LARGEST:
            raise NotTinyError(f"{size:,} parameters")
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()
    except NotTinyError:
        raise
    except Exception as error:
        raise NotTinyError(f"{type(error).__name__}: {str(error).splitlines()[:1]}") from error


def tiny_config(family: str, **more: Any) -> Any:
    """Its config; for a conditional family, of its text part."""
    whole = AutoConfig.for_model(family)
    text = whole.get_text_config()
    known = {*text.to_dict(), *getattr(text, "attribute_map", {})}
    given = {name: value for name, value in _SIZES.items() if name in known} | _SPECIAL.get(family, {}) | more
    if text is whole:
        return AutoConfig.for_model(family, **given)
    return AutoConfig.for_model(family, text_config=given)
