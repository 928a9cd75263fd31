"""Layers whose names PEFT takes for those of experts, and so does not adapt by name.

Since transformers 5, the experts of many families are one tensor, and no longer layers called
`gate_proj`, `up_proj` and `down_proj`. PEFT rewrites these names in `adapter_config.json` to the
tensors' ones, so that adapters of earlier versions still load. It looks at a name's last part only,
and so rewrites the dense layers and shared experts of these families too, which are layers still:
none of their tensors would arrive. PEFT leaves names of weights alone.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


def taken_for_experts(model: Any, layers: Collection[str]) -> frozenset[str]:
    """Find the layers that PEFT would not adapt by their names.

    Args:
        layers: full names in the model.
    """
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    family = getattr(getattr(model, "config", None), "model_type", None)
    if get_checkpoint_conversion_mapping(family) is None:
        return frozenset()  # PEFT rewrites nothing; most families, so PEFT need not be imported
    last = {name.rpartition(".")[2] for name in layers}
    taken = {part for part in last if _is_rewritten(part, model)}
    return frozenset(name for name in layers if name.rpartition(".")[2] in taken)


def _is_rewritten(target: str, model: Any) -> bool:
    from peft import LoraConfig

    try:
        from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
    except ImportError:  # a PEFT that does not rewrite names yet
        return False
    config = LoraConfig(target_modules=[target])
    try:
        convert_peft_config_for_transformers(config, model, None)
    except ValueError:  # one half of a tensor into which transformers joins two layers
        return True
    return target not in (config.target_modules or ())
