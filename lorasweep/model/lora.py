"""LoRA on named sets of modules; PEFT makes, names and saves the adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lorasweep.errors import ModelError
from lorasweep.spec.trial import LoraHyperparameters

# Linear layers by the names that families of models give them: Llama, Mistral, Qwen and Gemma
# first, then Phi, GPT-NeoX, GPT-2, OPT, Falcon and Bloom. `attention` is q, k, v, o and `mlp` gate,
# up, down (Biderman et al. 2024, v2, appendix A).
ATTENTION = frozenset(
    [
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "qkv_proj",
        "out_proj",
        "query_key_value",
        "c_attn",
        "Wqkv",
    ]
)
MLP = frozenset(
    [
        "gate_proj",
        "up_proj",
        "down_proj",
        "gate_up_proj",
        "fc1",
        "fc2",
        "dense_h_to_4h",
        "dense_4h_to_h",
        "c_fc",
    ]
)
# These names stand in both parts of a block, so the module they are in decides.
_AMBIGUOUS = frozenset({"dense", "c_proj"})
_ATTENTION_PARTS = ("attention", "self_attn", "attn", "self_attention")


def target_modules(model: Any, targets: str) -> list[str]:
    """Find the linear layers of a named set, by their full names, sorted.

    Args:
        model: the base model.
        targets: `attention`, `mlp` or `all`.

    Raises:
        ModelError: the model's layers bear none of the known names, or those of one half only.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    found: dict[str, list[str]] = {"attention": [], "mlp": []}
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.Linear | Conv1D):
            continue
        *parents, leaf = name.split(".")
        in_attention = leaf in ATTENTION or (
            leaf in _AMBIGUOUS and any(part in _ATTENTION_PARTS for part in parents[-1:])
        )
        if in_attention:
            found["attention"].append(name)
        elif leaf in MLP or leaf in _AMBIGUOUS:
            found["mlp"].append(name)
    wanted = ["attention", "mlp"] if targets == "all" else [targets]
    # `all` with one half missing would be that other half under a wrong name.
    if missing := [part for part in wanted if not found[part]]:
        linear = {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear | Conv1D)
        }
        raise ModelError(
            f"space.targets: {targets!r} finds no {' or '.join(missing)} layer in this model; its "
            f"linear layers are {', '.join(sorted(linear)) or 'none'}"
        )
    return sorted(name for part in wanted for name in found[part])


def attach_lora(model: Any, hyperparameters: LoraHyperparameters, seed: int) -> Any:
    """Wrap a base in a fresh adapter; A is initialised from the seed, B is zero.

    The adapter is fp32 whatever the base is, since updates at small learning rates vanish in bf16.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    names = target_modules(model, hyperparameters.targets)
    alpha, rslora = hyperparameters.resolved_alpha
    config = LoraConfig(
        r=hyperparameters.rank,
        lora_alpha=alpha,
        use_rslora=rslora,
        lora_dropout=hyperparameters.dropout,
        target_modules=names,
        fan_in_fan_out=isinstance(model.get_submodule(names[0]), Conv1D),  # GPT-2 stores W^T
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(seed)
    return get_peft_model(model, config, autocast_adapter_dtype=True)


def adapter_parameters(model: Any) -> dict[str, Any]:
    """Give the trainable parameters by name, sorted, so that every worker has the same order."""
    return {name: p for name, p in sorted(model.named_parameters()) if p.requires_grad}


def save_adapter(model: Any, folder: Path, base_name: str) -> None:
    """Save the adapter as an ordinary PEFT folder that names its base."""
    model.peft_config["default"].base_model_name_or_path = base_name
    # The vocabulary never changes; left to find out, PEFT asks the hub about the base.
    model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
