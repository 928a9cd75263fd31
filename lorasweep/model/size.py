"""How large a model is, what a trial adds to it, and what both cost: arithmetic without weights.

Where the shape of a family is known, the numbers in its configuration are enough; of any other
model transformers lays out the parameters without memory for them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from lorasweep.errors import ModelError, in_a_line
from lorasweep.model.base import base_path
from lorasweep.model.published import PUBLISHED
from lorasweep.model.shape import FAMILIES, GATE, Architecture, Linear
from lorasweep.spec.sweep import ModelSpec

GIGABYTE = 1e9  # decimal, as in the tables of Biderman et al. (2024, v2, appendix H)
FP32 = 4
# fp32 numbers that an optimizer keeps of each weight: AdamW two averages, Lion one.
STATES = {"adamw": 2, "lion": 1}


def read_architecture(spec: ModelSpec) -> Architecture:
    """Find out a model's shape: from its configuration, or from a table of published ones.

    The hub is asked only for a model that is neither on this machine nor in the table.

    Raises:
        ModelError: it cannot be found out.
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
    """Give the shape that a configuration describes.

    Raises:
        ModelError: it is of a kind that transformers cannot lay out, or the names of its layers
            are none that we know.
    """
    text = config.get_text_config()
    family = FAMILIES.get(str(text.model_type))
    if family is not None:
        return family(text)
    return _laid_out(config, trust_remote_code=trust_remote_code)


def _laid_out(config: Any, *, trust_remote_code: bool) -> Architecture:
    """Count the parameters of a model that is laid out without memory."""
    import torch
    from transformers import AutoModelForCausalLM

    from lorasweep.model.lora import adapter_layers

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except (ValueError, KeyError, ImportError) as error:
        reason = in_a_line(error)
        raise ModelError(
            f"model.path: must be a causal language model, got a {config.model_type!r} ({reason})"
        ) from error
    linears = tuple(
        Linear(_part(part, layer.name), layer.inputs, layer.outputs, 1)
        for part in ("attention", "mlp")
        for layer in adapter_layers(model, part)
    )
    text = config.get_text_config()
    parameters = sum(weight.numel() for weight in model.parameters())
    return Architecture(
        hidden_size=int(text.hidden_size),
        layers=int(text.num_hidden_layers),
        positions=int(getattr(text, "max_position_embeddings", None) or 1024),
        vocabulary=int(text.vocab_size),
        linears=linears,
        others=parameters - sum(linear.weights for linear in linears),
    )


def _part(section: str, name: str) -> str:
    """Tell the gates from the rest of their MLP."""
    from lorasweep.model.lora import GATE as LEAF

    return GATE if name.rpartition(".")[2] == LEAF else section


def flops_per_token(shape: Architecture, method: Literal["lora", "full"], trained: int) -> float:
    """Count what training on one token takes, attention scores left out.

    A weight takes two FLOPs going forward, two for the gradient of what went in, and two for its
    own gradient, which a frozen weight does without: 6 N for full finetuning and 4 N + 6 N_lora for
    LoRA, slightly over two thirds (Schulman et al. 2025, "LoRA Without Regret"). N are the weights
    that every token is multiplied with: the linear layers and the output head, not the embedding.

    Args:
        trained: parameters of the adapter; full finetuning ignores it.
    """
    if method == "full":
        return 6.0 * shape.multiplied
    return 4.0 * shape.multiplied + 6.0 * trained


def attention_flops_per_token(shape: Architecture, seq_len: int) -> float:
    """Count what attending takes for a token of a full sequence, 12 x layers x width x length.

    As in Chowdhery et al. (2022, PaLM), appendix B; a causal kernel may do half of it.
    """
    return 12.0 * shape.layers * shape.hidden_size * seq_len


@dataclass(frozen=True)
class StateMemory:
    """Hold bytes of what a trial keeps besides activations, over all GPUs together.

    weights: frozen ones and trained ones.
    """

    weights: float
    gradients: float
    states: float

    def per_gpu(self, gpus: int, stage: int) -> float:
        """Give bytes on each GPU: a ZeRO stage shards states, then gradients, then weights."""
        return (
            self.weights / (gpus if stage >= 3 else 1)
            + self.gradients / (gpus if stage >= 2 else 1)
            + self.states / (gpus if stage >= 1 else 1)
        )

    def on_device(self, stage: int) -> StateMemory:
        """Leave out what ZeRO offloads to the host: states, and under stage 3 weights too."""
        return replace(self, states=0.0, weights=0.0 if stage >= 3 else self.weights)


def full_memory(parameters: int, optimizer: str) -> StateMemory:
    """Give the state of full finetuning: 16 bytes a parameter with Adam, 12 with Lion (app. H)."""
    bytes_each = float(FP32 * parameters)
    return StateMemory(bytes_each, bytes_each, STATES[optimizer] * bytes_each)


def lora_memory(
    parameters: int, trained: int, optimizer: str, *, frozen_bytes: int = 2, slots: int = 1
) -> StateMemory:
    """Give the state of LoRA: a frozen base and, of each trained weight, 16 or 12 bytes (app. H).

    Args:
        trained: parameters of one adapter.
        frozen_bytes: of each weight of the base; 2 is bf16.
        slots: adapters that share the base.
    """
    bytes_each = float(FP32 * trained * slots)
    base = float(frozen_bytes * parameters)
    return StateMemory(base + bytes_each, bytes_each, STATES[optimizer] * bytes_each)
