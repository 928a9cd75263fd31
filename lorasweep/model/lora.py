"""LoRA on named sets of layers, initialised, named and saved as PEFT does it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lorasweep.errors import ModelError
from lorasweep.spec.trial import GATE, TARGET_SECTIONS, UNGATED, LoraHyperparameters

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


@dataclass(frozen=True)
class AdapterLayer:
    """A linear layer with an adapter.

    name: in the model.
    inputs, outputs: its features.
    transposed: whether its weight is inputs x outputs, as in GPT-2.
    """

    name: str
    inputs: int
    outputs: int
    transposed: bool = False

    @property
    def a(self) -> str:
        """The name PEFT saves A under."""
        return f"base_model.model.{self.name}.lora_A.weight"

    @property
    def b(self) -> str:
        """The name PEFT saves B under."""
        return f"base_model.model.{self.name}.lora_B.weight"


def adapter_layers(model: Any, targets: str) -> tuple[AdapterLayer, ...]:
    """List the layers of a named set in the order of the model, in which PEFT initialises them.

    Raises:
        ModelError: as `target_modules`.
    """
    wanted = set(target_modules(model, targets))
    return tuple(
        _adapter_layer(name, module) for name, module in model.named_modules() if name in wanted
    )


def _adapter_layer(name: str, linear: Any) -> AdapterLayer:
    rows, columns = linear.weight.shape
    if stores_transposed(linear):
        return AdapterLayer(name, rows, columns, transposed=True)
    return AdapterLayer(name, columns, rows)


def stores_transposed(linear: Any) -> bool:
    """Check whether a layer's weight is inputs x outputs, as in GPT-2."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(linear, Conv1D)


def initial_adapter(layers: tuple[AdapterLayer, ...], rank: int, seed: int) -> dict[str, Tensor]:
    """Draw the adapter that PEFT would draw after `torch.manual_seed(seed)`; B is zero.

    PEFT creates both matrices as linear layers, which initialise themselves, and then draws A
    again, from a uniform distribution of variance 1 / (3 inputs) (Kaiming with a = sqrt(5)). All
    draws are repeated here in that order, from a generator of the trial's own instead of the global
    one, so that an adapter can be made while others train.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(rows: int, columns: int) -> Tensor:
        empty = torch.empty(rows, columns)
        return torch.nn.init.kaiming_uniform_(empty, a=math.sqrt(5), generator=generator)

    adapter = {}
    for layer in layers:
        draw(rank, layer.inputs)
        draw(layer.outputs, rank)
        adapter[layer.a] = draw(rank, layer.inputs)
        adapter[layer.b] = torch.zeros(layer.outputs, rank)
    return adapter


def peft_fields(
    layers: tuple[AdapterLayer, ...], hyperparameters: LoraHyperparameters
) -> dict[str, Any]:
    """Convert hyperparameters to the fields of PEFT's LoraConfig that differ from its defaults."""
    alpha, rslora = hyperparameters.resolved_alpha
    return {
        "task_type": "CAUSAL_LM",
        "r": hyperparameters.rank,
        "lora_alpha": alpha,
        "use_rslora": rslora,
        "lora_dropout": hyperparameters.dropout,
        "target_modules": sorted(layer.name for layer in layers),
        "fan_in_fan_out": layers[0].transposed,
    }


def save_adapter(
    folder: Path,
    adapter: Mapping[str, Tensor],
    layers: tuple[AdapterLayer, ...],
    hyperparameters: LoraHyperparameters,
    base_name: str,
) -> None:
    """Save an adapter as a PEFT folder that names its base."""
    from safetensors.torch import save_file

    # Written by hand: importing peft for its LoraConfig takes longer than a short trial.
    config = {
        **peft_fields(layers, hyperparameters),
        "peft_type": "LORA",
        "base_model_name_or_path": base_name,
        "bias": "none",
        "inference_mode": True,
    }
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().cpu().contiguous() for name, value in adapter.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    content = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / "adapter_config.json").write_text(content, encoding="utf-8")
