"""Configurations of small models by family: dense ones, with experts, with Mamba layers."""

from __future__ import annotations

from typing import Any

ENDS = {"vocab_size": 261, "bos_token_id": 0, "eos_token_id": 1}
DENSE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
WIDE = {**DENSE, "head_dim": 8}
EXPERTS = {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2}
ROUTED = {
    "moe_intermediate_size": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
LATENT = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    "n_shared_experts": 1,
}
LINEAR = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": DENSE,
    "mistral": DENSE,
    "qwen2": DENSE,
    "qwen3": WIDE,
    "gpt2": GPT2,
    "gpt_neox": DENSE,
    "gemma2": WIDE,
    "gemma3_text": WIDE,
    "phi3": {**DENSE, "pad_token_id": 0},
    "falcon": DENSE,
    "mixtral": {**DENSE, "num_local_experts": 4},
    "olmoe": {**DENSE, "num_experts": 4, "num_experts_per_tok": 2},
    "granitemoe": {**DENSE, "num_local_experts": 4, "num_experts_per_tok": 2},
    "gpt_oss": {**WIDE, "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2_moe": {**DENSE, **EXPERTS, "shared_expert_intermediate_size": 24},
    "qwen3_moe": {**WIDE, **EXPERTS, "mlp_only_layers": [0]},
    "deepseek_v2": {**DENSE, **ROUTED, **LATENT},
    "deepseek_v3": {**DENSE, **ROUTED, **LATENT},
    "glm4_moe": {**WIDE, **ROUTED},
    "qwen3_next": {**WIDE, **EXPERTS, **LINEAR, "shared_expert_intermediate_size": 24},
    "hunyuan_v1_moe": {**WIDE, "num_experts": 4, "moe_topk": 2},
    # Plain PEFT does not take back adapters of its shared experts.
    "laguna": {
        **WIDE,
        **EXPERTS,
        "shared_expert_intermediate_size": 24,
        "layer_types": ["full_attention", "full_attention"],
        "mlp_layer_types": ["dense", "sparse"],
        "num_attention_heads_per_layer": [4, 4],
        "gating": True,
    },
    "falcon_h1": {
        **DENSE,
        "mamba_d_ssm": 64,
        "mamba_n_heads": 8,
        "mamba_d_head": 8,
        "mamba_d_state": 8,
    },
}

VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1}
# Further families, for where their layers belong.
MORE: dict[str, dict[str, Any]] = {
    "gemma": WIDE,
    "gemma3": {"text_config": {**ENDS, **WIDE}, "vision_config": VISION, "mm_tokens_per_image": 4},
    "gemma3n_text": {
        **WIDE,
        "num_kv_shared_layers": 0,
        "intermediate_size": [48, 48],
        "layer_types": ["full_attention", "full_attention"],
        "activation_sparsity_pattern": [0.0, 0.0],
        "vocab_size_per_layer_input": 261,
        "hidden_size_per_layer_input": 4,
        "laurel_rank": 4,
    },
    "phi": DENSE,
    "gpt_bigcode": GPT2,
    "gpt_neo": {**DENSE, "num_layers": 2, "num_heads": 4, "attention_types": [[["global"], 2]]},
    "gptj": {**GPT2, "rotary_dim": 8},
    "codegen": {**GPT2, "rotary_dim": 8},
    "opt": {**DENSE, "ffn_dim": 48, "word_embed_proj_dim": 16},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4},
    "stablelm": DENSE,
    "cohere": DENSE,
    "cohere2": WIDE,
    "olmo": DENSE,
    "olmo2": DENSE,
    "starcoder2": DENSE,
    "granite": DENSE,
    "nemotron": DENSE,
    "smollm3": {**DENSE, "pad_token_id": 0},
    "glm4": {**WIDE, "pad_token_id": 0},
    "ernie4_5": WIDE,
    "exaone4": WIDE,
    "apertus": DENSE,
    "lfm2": {**DENSE, "layer_types": ["conv", "full_attention"]},
    "deepseek_v32": {
        **{**DENSE, **ROUTED, **LATENT},
        **{"index_n_heads": 2, "index_head_dim": 8, "index_topk": 4},
    },
    "minimax": {**WIDE, "num_local_experts": 4, "block_size": 16},
    "llama4_text": {**WIDE, "num_local_experts": 4, "intermediate_size_mlp": 40},
    "phimoe": {**DENSE, "num_local_experts": 4},
    "ernie4_5_moe": {
        **{**DENSE, "moe_intermediate_size": 16, "moe_num_experts": 4, "moe_k": 2},
        **{"moe_layer_start_index": 1, "moe_num_shared_experts": 1},
    },
    "jetmoe": {**DENSE, "kv_channels": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
    "dbrx": {
        **{"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64},
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
        "ffn_config": {"hidden_size": 32, "ffn_hidden_size": 16, "moe_num_experts": 4},
    },
    "jamba": {
        **{**DENSE, "num_experts": 4, "num_experts_per_tok": 2, "use_mamba_kernels": False},
        **{"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 4},
        **{"expert_layer_period": 2, "expert_layer_offset": 1, "mamba_dt_rank": 4},
    },
    "mamba2": {**DENSE, "head_dim": 8, "num_heads": 8, "state_size": 8, "n_groups": 1},
    "bamba": {**DENSE, **MAMBA, "attn_layer_indices": [1]},
    "recurrent_gemma": {**WIDE, "lru_width": 32, "block_types": ["recurrent", "attention"]},
}


def config_of(name: str) -> Any:
    """Build the configuration of a family's small model."""
    from transformers import CONFIG_MAPPING

    if name == "gemma3":  # whose text model has them
        return CONFIG_MAPPING[name](**MORE[name])
    return CONFIG_MAPPING[name](**ENDS, **(CONFIGS | MORE)[name])


def model_of(name: str, device: str = "cpu") -> Any:
    """Draw a family's small model at random, or on the meta device only its shapes."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config_of(name))
