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
    "falcon_h1": {
        **DENSE,
        "mamba_d_ssm": 64,
        "mamba_n_heads": 8,
        "mamba_d_head": 8,
        "mamba_d_state": 8,
    },
}


def config_of(name: str) -> Any:
    """Build the configuration of a family's small model."""
    from transformers import CONFIG_MAPPING

    return CONFIG_MAPPING[name](**ENDS, **CONFIGS[name])


def model_of(name: str, device: str = "cpu") -> Any:
    """Draw a family's small model at random, or on the meta device only its shapes."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config_of(name))
