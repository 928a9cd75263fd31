"""Choose the engine that trains a study: packed LoRA, or DeepSpeed."""

from __future__ import annotations

import torch

from lorasweep.data.shard import Shard
from lorasweep.model.base import load_base
from lorasweep.model.packed import PackedModel
from lorasweep.spec.sweep import SweepSpec
from lorasweep.spec.trial import TrialSpec
from lorasweep.train.engine import Engine
from lorasweep.train.packed import PackedEngine


def open_engine(
    spec: SweepSpec, shard: Shard, device: torch.device, trial: TrialSpec | None
) -> Engine:
    """Load the base of a study into an engine.

    Args:
        trial: the only one to come, if DeepSpeed spreads it over the workers; None loads the base
            for measuring it, with the memory that some trial of the study would need.
    """
    if spec.sharding is None:
        base = load_base(spec.model, device)
        if spec.train.recompute:
            base.gradient_checkpointing_enable({"use_reentrant": False})
        # A GPU is faster with few large products than with many small ones, padding included.
        return PackedEngine(
            PackedModel(base, device, spec.targets), shard, level=device.type == "cuda"
        )
    from lorasweep.train.deepspeed import DeepSpeedEngine

    engine = DeepSpeedEngine(spec.model, spec.sharding, shard, device, spec.targets)
    # The hyperparameters' fixed values would not do: a searched one has a fixed value too, which no
    # trial uses and which may not divide by the workers.
    loaded = trial or spec.trial({axis: spec.levels_of(axis)[0] for axis in spec.space.axes})
    engine.load(loaded.hyperparameters, spec.train, loaded.seed)
    return engine
