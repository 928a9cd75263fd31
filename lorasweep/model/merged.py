"""A base with an adapter merged into its weights, saved as transformers saves any model.

Plain transformers and PEFT do all of it, on the CPU. The dtype stays that of the base's files.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lorasweep.errors import ModelError, in_a_line
from lorasweep.model.base import base_path, quiet_deepspeed
from lorasweep.spec.sweep import ModelSpec


def save_merged(spec: ModelSpec, adapter: Path, folder: Path) -> float:
    """Merge an adapter into its base, and save model and tokenizer.

    Args:
        adapter: a PEFT folder.
        folder: to write.

    Returns:
        The share of the update's norm that rounding to the base's dtype took or added.

    Raises:
        ModelError: base or adapter cannot be loaded, or the adapter changes a head that the base
            shares with its embedding.
    """
    quiet_deepspeed()
    from peft import PeftModel
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    source, trusted = base_path(spec), spec.trust_remote_code
    try:
        base = AutoModelForCausalLM.from_pretrained(
            source, revision=spec.revision, dtype="auto", trust_remote_code=trusted
        )
        tokenizer = AutoTokenizer.from_pretrained(
            source, revision=spec.revision, trust_remote_code=trusted
        )
        tied = _shared_weight(base)
        model = PeftModel.from_pretrained(base, str(adapter))
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        raise ModelError(
            f"--merge: {str(adapter)!r} must be an adapter of {spec.path!r}, and plain PEFT cannot "
            f"load it onto that ({in_a_line(error)})"
        ) from error
    if tied is not None and any(weight is tied for weight, _ in _updates(model)):
        raise ModelError(
            "--merge: the adapter must not change the head of a base that shares it with its "
            "embedding, since a merged update would change both; leave the head out of the targets"
        )
    rounding = _rounding(model)
    merged = model.merge_and_unload(safe_merge=True)
    merged.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return rounding


def _shared_weight(base: Any) -> Any:
    """Get the weight that is embedding and head at once; None if they are two."""
    head, embedding = base.get_output_embeddings(), base.get_input_embeddings()
    return head.weight if head is not None and head.weight is embedding.weight else None


def _updates(model: Any) -> list[tuple[Any, Any]]:
    """List each weight that an adapter changes, with PEFT's layer that knows its update."""
    from peft.tuners.lora import LoraLayer

    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    return [
        (layer.get_param() if hasattr(layer, "get_param") else layer.get_base_layer().weight, layer)
        for layer in layers
    ]


def _rounding(model: Any) -> float:
    """Measure what rounding does to the update, relative to its norm."""
    import torch

    lost, whole = 0.0, 0.0
    with torch.no_grad():
        for weight, layer in _updates(model):
            update = layer.get_delta_weight("default").float()
            before = weight.float()
            rounded = (weight + update.to(weight.dtype)).float() - before
            lost += float((rounded - update).square().sum())
            whole += float(update.square().sum())
    return math.sqrt(lost / whole) if whole else 0.0
