"""Which engine a study's trials train in."""

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
        trial: the only one to come, where DeepSpeed spreads it over the workers; without one the
            base is there to be measured, within what some trial of the study adds.
    """
    if spec.spread is None:
        base = load_base(spec.model, device)
        if spec.train.recompute:
            base.gradient_checkpointing_enable({"use_reentrant": False})
        # On a GPU few large products beat many small ones, padding and all.
        return PackedEngine(PackedModel(base, device), shard, level=device.type == "cuda")
    from lorasweep.train.deepspeed import DeepSpeedEngine

    engine = DeepSpeedEngine(spec.model, spec.spread, shard, device)
    # What is searched has a fixed value too, which no trial has and which may not suit the rest.
    loaded = trial or spec.trial({axis: spec.levels_of(axis)[0] for axis in spec.space.axes})
    engine.load(loaded.hyperparameters, spec.train, loaded.seed)
    return engine
