"""Parameters, memory and FLOPs of a model and its trials, computed without loading weights.

For known families the configuration is enough; any other model is instantiated by transformers on
the meta device, where parameters have shapes but no memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from lorasweep.errors import ModelError, in_a_line
from lorasweep.model.base import base_path
from lorasweep.model.published import PUBLISHED
from lorasweep.model.shape import FAMILIES, Architecture, positions_of
from lorasweep.spec.sweep import ModelSpec

GIGABYTE = 1e9  # decimal, as in the tables of Biderman et al. (2024, v2, appendix H)
FP32 = 4
# fp32 numbers of optimizer state per trained weight: AdamW has two moments, Lion one momentum.
STATES = {"adamw": 2, "lion": 1}


def read_architecture(spec: ModelSpec) -> Architecture:
    """Read a model's shape from its configuration, or from the table of published models.

    The hub is asked only about a model that is neither on this machine nor in the table.

    Raises:
        ModelError: the configuration cannot be loaded.
    """
    from transformers import AutoConfig

    path = base_path(spec)
    published = PUBLISHED.get(spec.path)
    options = {"revision": spec.revision, "trust_remote_code": spec.trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(path, local_files_only=published is not None, **options)
    except (OSError, ValueError, KeyError) as error:
        if published is not None:
            return replace(published, published=True)
        reason = in_a_line(error)
        raise ModelError(
            f"model.path: the configuration of {spec.path!r} cannot be loaded ({reason})"
        ) from error
    return architecture_of(config, trust_remote_code=spec.trust_remote_code)


def architecture_of(config: Any, *, trust_remote_code: bool = False) -> Architecture:
    """Work out the shape that a configuration describes.

    Raises:
        ModelError: transformers cannot instantiate it.
    """
    family = FAMILIES.get(str(config.model_type))
    if family is not None:
        return family(config)
    return _on_meta_device(config, trust_remote_code=trust_remote_code)


def _on_meta_device(config: Any, *, trust_remote_code: bool) -> Architecture:
    """Count the parameters of a model instantiated without memory."""
    import torch
    from transformers import AutoModelForCausalLM

    from lorasweep.model.targets import find_layers

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except (ValueError, KeyError, ImportError) as error:
        reason = in_a_line(error)
        raise ModelError(
            f"model.path: must be a causal language model, got a {config.model_type!r} ({reason})"
        ) from error
    text = config.get_text_config()
    parameters = sum(weight.numel() for weight in model.parameters())
    linear = find_layers(model)
    return Architecture(
        hidden_size=int(text.hidden_size),
        layers=int(text.num_hidden_layers),
        positions=positions_of(text),
        vocabulary=int(text.vocab_size),
        linear=linear,
        others=parameters - linear.weights,
    )


def flops_per_token(shape: Architecture, method: Literal["lora", "full"], trained: int) -> float:
    """Compute the FLOPs of training on one token, attention scores left out.

    A weight takes two FLOPs in the forward pass, two for the gradient of its input, and two for its
    own gradient, which a frozen weight does not need: 6 N for full finetuning and 4 N + 6 N_lora
    for LoRA, slightly over two thirds (Schulman et al. 2025, "LoRA Without Regret"). N counts the
    weights that every token is multiplied with: linear layers and output head, not the embedding.

    Args:
        trained: parameters of the adapter; full finetuning ignores it.
    """
    if method == "full":
        return 6.0 * shape.multiplied
    return 4.0 * shape.multiplied + 6.0 * trained


@dataclass(frozen=True)
class StateMemory:
    """Bytes of a trial's state, activations left out, summed over all GPUs.

    weights: frozen and trained ones.
    """

    weights: float
    gradients: float
    states: float

    def per_gpu(self, gpus: int, stage: int) -> float:
        """Compute the bytes on each GPU: ZeRO shards states, then gradients, then weights."""
        return (
            self.weights / (gpus if stage >= 3 else 1)
            + self.gradients / (gpus if stage >= 2 else 1)
            + self.states / (gpus if stage >= 1 else 1)
        )

    def on_device(self, stage: int) -> StateMemory:
        """Subtract what ZeRO offloads to the host: states, and under stage 3 weights too."""
        return replace(self, states=0.0, weights=0.0 if stage >= 3 else self.weights)


def full_memory(parameters: int, optimizer: str) -> StateMemory:
    """Size the state of full finetuning: 16 bytes a parameter with Adam, 12 with Lion (app. H)."""
    bytes_each = float(FP32 * parameters)
    return StateMemory(bytes_each, bytes_each, STATES[optimizer] * bytes_each)


def lora_memory(
    parameters: int, trained: int, optimizer: str, *, frozen_bytes: int = 2, slots: int = 1
) -> StateMemory:
    """Size the state of LoRA: a frozen base, and 16 or 12 bytes per trained weight (app. H).

    Args:
        trained: parameters of one adapter.
        frozen_bytes: of each weight of the base; 2 is bf16.
        slots: adapters that share the base.
    """
    bytes_each = float(FP32 * trained * slots)
    base = float(frozen_bytes * parameters)
    return StateMemory(base + bytes_each, bytes_each, STATES[optimizer] * bytes_each)
