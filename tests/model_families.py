"""Tiny models with random weights, of the families that transformers knows.

Weights are large enough for attention and experts to differ between tokens; windows are shorter than the rows.
"""

from pathlib import Path
from typing import Any

import torch

from vertigym.policies import tiny

SIZE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
}
EXPERTS: dict[str, Any] = {
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 24,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
}
LATENT: dict[str, Any] = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "head_dim": 8,
    "num_key_value_heads": 4,
    "first_k_dense_replace": 1,
    **EXPERTS,
}
MAMBA: dict[str, Any] = {
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_d_state": 8,
    "mamba_d_ssm": 64,
    "mamba_expand": 2,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 16,
    "n_mamba_heads": 4,
    "mamba_dt_rank": 4,
}
DELTA: dict[str, Any] = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}
ALTERNATING = ["sliding_attention", "full_attention"]
WINDOW: dict[str, Any] = {"sliding_window": 8}
HYBRID = ["mamba", "attention"]

VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
LLAMA4: dict[str, Any] = {
    **EXPERTS,
    "intermediate_size_mlp": 48,
    "attention_chunk_size": 8,
    "layer_types": ["chunked_attention", "full_attention"],
    "no_rope_layers": [1, 0],
    "moe_layers": [1],
}

# name -> (model type, what differs from SIZE)
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama, tied": ("llama", {"tie_word_embeddings": True}),
    "llama, biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama, rope llama3": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 1e4,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        },
    ),
    "llama, rope yarn": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1e4,
                "factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
    ),
    "llama, padded vocabulary": ("llama", {"vocab_size": 300}),
    "gemma2, padded vocabulary": ("gemma2", {"vocab_size": 300, "final_logit_softcapping": 3.0}),
    "qwen2": ("qwen2", {}),
    "qwen2, window": ("qwen2", {**WINDOW, "use_sliding_window": True, "layer_types": ALTERNATING}),
    "qwen3": ("qwen3", {}),
    "qwen3, tied": ("qwen3", {"tie_word_embeddings": True}),
    "qwen3, window": ("qwen3", {**WINDOW, "use_sliding_window": True, "layer_types": ALTERNATING}),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral, window": ("mistral", WINDOW),
    "ministral": ("ministral", {**WINDOW, "layer_types": ALTERNATING}),
    "ministral3": ("ministral3", WINDOW),
    "gemma": ("gemma", {}),
    "gemma2": ("gemma2", {**WINDOW, "final_logit_softcapping": 3.0, "query_pre_attn_scalar": 8}),
    "gemma3 text": ("gemma3_text", {**WINDOW, "layer_types": ALTERNATING, "final_logit_softcapping": 3.0}),
    "gemma3": (
        "gemma3",
        {
            "text_config": {**SIZE, **WINDOW, "layer_types": ALTERNATING},
            "vision_config": VISION,
            "mm_tokens_per_image": 4,
        },
    ),
    "gemma3n text": (
        "gemma3n_text",
        {
            **WINDOW,
            "num_hidden_layers": 4,
            "layer_types": [*ALTERNATING, *ALTERNATING],
            "num_kv_shared_layers": 2,
            "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": 0,
            "altup_num_inputs": 2,
            "laurel_rank": 4,
            "intermediate_size": [48] * 4,
            "activation_sparsity_pattern": [0.5, 0.5, 0.0, 0.0],
        },
    ),
    "gemma4 text": (
        "gemma4_text",
        {
            **WINDOW,
            "layer_types": ALTERNATING,
            "final_logit_softcapping": 3.0,
            "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": 0,
            "global_head_dim": 8,
            "num_kv_shared_layers": 0,
        },
    ),
    "gemma4": (
        "gemma4",
        {
            "text_config": {
                **SIZE,
                **WINDOW,
                "layer_types": ALTERNATING,
                "final_logit_softcapping": 3.0,
                "hidden_size_per_layer_input": 8,
                "vocab_size_per_layer_input": 266,
                "global_head_dim": 8,
                "num_kv_shared_layers": 0,
            },
            "vision_config": {
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "head_dim": 8,
            },
            "audio_config": None,
        },
    ),
    "vaultgemma": ("vaultgemma", {**WINDOW, "layer_types": ALTERNATING}),
    "recurrent_gemma": (
        "recurrent_gemma",
        {"lru_width": 32, "attention_window_size": 8, "block_types": ["recurrent", "attention"]},
    ),
    "phi": ("phi", {}),
    "phi3": ("phi3", {"pad_token_id": 0}),
    "phi3, window": ("phi3", {**WINDOW, "pad_token_id": 0}),
    "phimoe": ("phimoe", {**EXPERTS, "sliding_window": 8}),
    "olmo": ("olmo", {}),
    "olmo2": ("olmo2", {}),
    "olmo3": ("olmo3", {**WINDOW, "layer_types": ALTERNATING}),
    "olmoe": ("olmoe", EXPERTS),
    "olmo_hybrid": ("olmo_hybrid", DELTA),
    "flex_olmo": ("flex_olmo", EXPERTS),
    "cohere": ("cohere", {"logit_scale": 0.25}),
    "cohere2": ("cohere2", {**WINDOW, "logit_scale": 0.25, "layer_types": ALTERNATING}),
    "cohere2_moe": ("cohere2_moe", {**WINDOW, **EXPERTS, "logit_scale": 0.25, "layer_types": ALTERNATING}),
    "starcoder2": ("starcoder2", {**WINDOW, "residual_dropout": 0.1, "embedding_dropout": 0.1}),
    "exaone4": ("exaone4", {**WINDOW, "layer_types": ALTERNATING}),
    "exaone_moe": ("exaone_moe", {**WINDOW, **EXPERTS, "layer_types": ALTERNATING}),
    "granite": ("granite", {"logits_scaling": 4.0, "embedding_multiplier": 2.0, "residual_multiplier": 0.5}),
    "granite_swa": ("granite_swa", {**WINDOW, "logits_scaling": 4.0}),
    "granitemoe": ("granitemoe", {**EXPERTS, "logits_scaling": 4.0}),
    "granitemoeshared": (
        "granitemoeshared",
        {**EXPERTS, "logits_scaling": 4.0, "shared_intermediate_size": 24},
    ),
    "granitemoehybrid": (
        "granitemoehybrid",
        {**MAMBA, **EXPERTS, "logits_scaling": 4.0, "layer_types": HYBRID, "shared_intermediate_size": 24},
    ),
    "minicpm3": (
        "minicpm3",
        {**LATENT, "dim_model_base": 8, "scale_emb": 2, "scale_depth": 1.4},
    ),
    "falcon_h1": ("falcon_h1", {**MAMBA, "lm_head_multiplier": 0.25, "mamba_d_ssm": 64}),
    "bamba": ("bamba", {**MAMBA, "attn_layer_indices": [1]}),
    "jamba": (
        "jamba",
        {**MAMBA, "num_experts": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2},
    ),
    "nemotron": ("nemotron", {}),
    "nemotron_h": (
        "nemotron_h",
        {
            **EXPERTS,
            "num_hidden_layers": 4,
            "layers_block_type": ["mamba", "attention", "moe", "mlp"],
            "mamba_num_heads": 4,
            "mamba_head_dim": 16,
            "ssm_state_size": 8,
            "n_groups": 1,
            "chunk_size": 16,
            "moe_latent_size": None,
            "moe_shared_expert_intermediate_size": 24,
        },
    ),
    "mamba": ("mamba", {"state_size": 8, "time_step_rank": 4}),
    "mamba2": ("mamba2", {"state_size": 8, "num_heads": 4, "head_dim": 16, "n_groups": 1, "chunk_size": 16}),
    "falcon_mamba": ("falcon_mamba", {"state_size": 8, "time_step_rank": 4}),
    "rwkv": ("rwkv", {"attention_hidden_size": 32, "context_length": 256}),
    "xlstm": ("xlstm", {"num_heads": 4, "chunk_size": 16}),
    "zamba": (
        "zamba",
        {
            **MAMBA,
            "num_hidden_layers": 4,
            "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
            "attention_head_dim": 16,
        },
    ),
    "zamba2": (
        "zamba2",
        {
            **MAMBA,
            "layers_block_type": ["mamba", "hybrid"],
            "n_mamba_heads": 4,
            "mamba_headdim": 16,
            "mamba_ngroups": 1,
            "chunk_size": 16,
            "adapter_rank": 4,
            "num_mem_blocks": 1,
        },
    ),
    "lfm2": ("lfm2", {"layer_types": ["conv", "full_attention"]}),
    "lfm2_moe": ("lfm2_moe", {**EXPERTS, "layer_types": ["conv", "full_attention"], "num_dense_layers": 1}),
    "qwen2_moe": ("qwen2_moe", EXPERTS),
    "qwen3_moe": ("qwen3_moe", EXPERTS),
    "qwen3_next": ("qwen3_next", {**DELTA, **EXPERTS}),
    "qwen3_5": ("qwen3_5_text", DELTA),
    "qwen3_5, with vision": (
        "qwen3_5",
        {
            "text_config": {**SIZE, **DELTA},
            "vision_config": {
                "depth": 1,
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_heads": 2,
                "out_hidden_size": 32,
            },
        },
    ),
    "qwen3_5_moe": ("qwen3_5_moe_text", {**DELTA, **EXPERTS}),
    "mixtral": ("mixtral", EXPERTS),
    "deepseek_v2": ("deepseek_v2", {**LATENT, "topk_method": "greedy"}),
    "deepseek_v3": ("deepseek_v3", LATENT),
    "kimi_linear": ("kimi_linear", {**LATENT, "layer_types": ["linear_attention", "full_attention"]}),
    "youtu": ("youtu", LATENT),
    "glm4_moe_lite": ("glm4_moe_lite", LATENT),
    "longcat_flash": (
        "longcat_flash",
        {**LATENT, "num_layers": 1, "ffn_hidden_size": 48, "expert_ffn_hidden_size": 24, "moe_topk": 2},
    ),
    "dots1": ("dots1", {**EXPERTS, "first_k_dense_replace": 1, "layer_types": ALTERNATING, **WINDOW}),
    "glm": ("glm", {"pad_token_id": 0}),
    "glm4": ("glm4", {"pad_token_id": 0}),
    "glm4_moe": ("glm4_moe", {**EXPERTS, "first_k_dense_replace": 1}),
    "gpt_oss": ("gpt_oss", {**EXPERTS, **WINDOW, "layer_types": ALTERNATING}),
    "ernie4_5": ("ernie4_5", {}),
    "ernie4_5_moe": (
        "ernie4_5_moe",
        {**EXPERTS, "moe_num_experts": 4, "moe_k": 2, "moe_num_shared_experts": 1},
    ),
    "hunyuan_v1_dense": ("hunyuan_v1_dense", {}),
    "hunyuan_v1_moe": ("hunyuan_v1_moe", {**EXPERTS, "moe_topk": 2}),
    "minimax": (
        "minimax",
        {**EXPERTS, "layer_types": ["linear_attention", "full_attention"], "block_size": 16},
    ),
    "minimax_m2": ("minimax_m2", EXPERTS),
    "afmoe": ("afmoe", {**EXPERTS, **WINDOW, "layer_types": ALTERNATING, "num_dense_layers": 1}),
    "llama4 text": ("llama4_text", LLAMA4),
    "llama4": (
        "llama4",
        {
            "text_config": {**SIZE, **LLAMA4},
            "vision_config": {
                **VISION,
                "projector_input_dim": 16,
                "projector_output_dim": 16,
                "vision_output_dim": 16,
            },
        },
    ),
    "jetmoe": ("jetmoe", {**EXPERTS, "kv_channels": 8, "num_key_value_heads": 4}),
    "solar_open": ("solar_open", EXPERTS),
    "smollm3": ("smollm3", {"no_rope_layers": [1, 0]}),
    "seed_oss": ("seed_oss", {}),
    "apertus": ("apertus", {}),
    "arcee": ("arcee", {}),
    "bitnet": ("bitnet", {}),
    "cwm": ("cwm", {**WINDOW, "layer_types": ALTERNATING}),
    "diffllama": ("diffllama", {}),
    "doge": ("doge", {}),
    "helium": ("helium", {}),
    "nanochat": ("nanochat", {}),
    "stablelm": ("stablelm", {}),
    "persimmon": ("persimmon", {}),
    "bloom": ("bloom", {"n_head": 4, "n_layer": 2}),
    "mpt": ("mpt", {"d_model": 32, "n_heads": 4, "n_layers": 2}),
    "falcon": ("falcon", {"head_dim": None}),
    "falcon, alibi": ("falcon", {"head_dim": None, "alibi": True}),
    "gpt2": ("gpt2", {}),  # its dropout is 0.1
    "gpt_bigcode": ("gpt_bigcode", {}),
    "gpt_neo": (
        "gpt_neo",
        {"num_layers": 2, "attention_types": [[["global", "local"], 1]], "window_size": 8, "num_heads": 4},
    ),
    "gpt_neox": ("gpt_neox", {}),
    "gptj": ("gptj", {"rotary_dim": 4}),
    "codegen": ("codegen", {"rotary_dim": 4}),
    "opt": ("opt", {"ffn_dim": 48, "word_embed_proj_dim": 16}),
    "xglm": ("xglm", {"d_model": 32, "ffn_dim": 48, "num_layers": 2, "attention_heads": 4, "pad_token_id": 1}),
    "biogpt": ("biogpt", {}),
}


def build(name: str, folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """A model folder of the family `name`, with a tokenizer and a chat template of our own."""
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = tiny.make_tokenizer(
        ["how many days do refunds take", "four"] * 2, tiny.TinySize(vocabulary=300)
    )
    kind, differing = FAMILIES[name]
    ids = {
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    settings = {
        key: value for key, value in {**SIZE, **ids, **differing, **changes}.items() if value is not None
    }
    if settings.get("vocab_size_per_layer_input") == 0:
        settings["vocab_size_per_layer_input"] = len(tokenizer)
    if "text_config" in settings:
        settings["text_config"] = {**ids, **settings["text_config"]}
    config = AutoConfig.for_model(kind, **settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
