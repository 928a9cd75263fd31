"""The linear layers of a model that `attention`, `mlp`, `all` and `ungated` adapt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from lorasweep.errors import ModelError
from lorasweep.model.lora import AdapterLayer
from lorasweep.model.peft_names import taken_for_experts
from lorasweep.spec.trial import GATE, TARGET_SECTIONS, UNGATED

# Names of linear layers in the families of models: Llama, Mistral, Qwen and Gemma first, then Phi,
# GPT-NeoX, GPT-2, OPT, Falcon and Bloom. `attention` is q, k, v, o and `mlp` is gate, up, down
# (Biderman et al. 2024, v2, appendix A).
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
_GATE_LAYER = "gate_proj"
# These names occur in attention and in the MLP, so the parent module decides.
AMBIGUOUS = frozenset({"dense", "c_proj"})
_ATTENTION_PARTS = ("attention", "self_attn", "attn", "self_attention")


def layer_sections(model: Any) -> dict[str, str]:
    """Find the linear layers that can be adapted, each with its section of a block.

    Returns:
        `attention`, `mlp` or `gate` by the full name of the layer, in the order of the model.
    """
    sections = {}
    for name, _ in _linear_layers(model):
        *parents, leaf = name.split(".")
        in_attention = any(part in _ATTENTION_PARTS for part in parents[-1:])
        if leaf in ATTENTION or (leaf in AMBIGUOUS and in_attention):
            sections[name] = "attention"
        elif leaf in MLP or leaf in AMBIGUOUS:
            sections[name] = GATE if leaf == _GATE_LAYER else "mlp"
    return sections


def _linear_layers(model: Any) -> Iterator[tuple[str, Any]]:
    from transformers.pytorch_utils import Conv1D

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear | Conv1D):
            yield name, module


def target_modules(model: Any, targets: str) -> list[str]:
    """List the full names of the linear layers in a named set, sorted.

    Args:
        model: the base model.
        targets: `attention`, `mlp`, `all` or `ungated`.

    Raises:
        ModelError: the model lacks layers of known names for all or half of the set, or has no
            gate to leave out.
    """
    sections = layer_sections(model)
    wanted, found = TARGET_SECTIONS[targets], set(sections.values())
    if GATE in found:
        found.add("mlp")
    # `all` with one half missing would be the other half under a wrong name.
    if missing := [section for section in wanted if section not in {*found, GATE}]:
        linear = {name.rpartition(".")[2] for name, _ in _linear_layers(model)}
        raise ModelError(
            f"space.targets: {targets!r} finds no {' or '.join(missing)} layer in this model; its "
            f"linear layers are {', '.join(sorted(linear)) or 'none'}"
        )
    if targets == UNGATED and GATE not in found:
        raise ModelError(
            f"space.targets: {UNGATED!r} leaves out the layers called {_GATE_LAYER} (version 1 of "
            "Biderman et al.), and this model has none; use 'all'"
        )
    return sorted(name for name, section in sections.items() if section in wanted)


def adapter_layers(model: Any, targets: str) -> tuple[AdapterLayer, ...]:
    """List the layers of a named set in the order of the model, in which PEFT initialises them.

    Raises:
        ModelError: as `target_modules`.
    """
    wanted = set(target_modules(model, targets))
    by_weight = taken_for_experts(model, wanted)
    return tuple(
        AdapterLayer.of(name, module, by_weight=name in by_weight)
        for name, module in model.named_modules()
        if name in wanted
    )
