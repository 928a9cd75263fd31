"""Small trials under DeepSpeed, from their base to their last step, in this process or a worker."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lorasweep.data.batches import Batches
from lorasweep.data.shard import Shard
from lorasweep.data.tokens import Tokens
from lorasweep.model.base import load_tokenizer
from lorasweep.spec.sweep import DeepSpeedSpec, ModelSpec, TrainSpec
from lorasweep.spec.trial import FullHyperparameters, LoraHyperparameters
from lorasweep.store.paths import TrialPaths
from lorasweep.train.deepspeed import DeepSpeedEngine
from lorasweep.train.deepspeed_slot import DeepSpeedSlot
from lorasweep.train.progress import Progress, Trial, micro_batch_size
from tests.train.cleanup import close
from tests.train.trial import CPU, pad_of

ALONE = Shard()
ADAMW = FullHyperparameters(lr=3e-3, batch_size=8, weight_decay=0.1)
LION = FullHyperparameters(lr=3e-4, batch_size=8, weight_decay=0.01)
SPEC = TrainSpec(micro_batch=2, clip=2.5)


@dataclass(frozen=True)
class Journey:
    """A trial to train.

    saved: the step after which it is saved, for another engine to go on from.
    lockstep: evaluate with the model sharded, even though it would fit.
    """

    folder: Path
    tokens: Tokens
    stage: Literal[0, 1, 2, 3] = 2
    offload: bool = False
    hyperparameters: FullHyperparameters | LoraHyperparameters = ADAMW
    train: TrainSpec = SPEC
    steps: int = 8
    seed: int = 0
    dtype: Literal["fp32", "bf16"] = "fp32"
    saved: int | None = None
    lockstep: bool = False

    def begin(self, shard: Shard, state: Path | None = None) -> DeepSpeedEngine:
        """Make an engine that has begun the trial."""
        model = ModelSpec(path=str(self.folder), dtype=self.dtype)
        spec = DeepSpeedSpec(stage=self.stage, offload=self.offload)
        engine = DeepSpeedEngine(model, spec, shard, CPU)
        try:
            engine.load(self.hyperparameters, self.train, self.seed)
            engine.admit(engine.prepare(self.trial(engine, shard), state))
        except Exception:
            close(engine)
            raise
        if self.lockstep:
            engine.lockstep = True
        return engine

    def trial(self, engine: DeepSpeedEngine, shard: Shard = ALONE) -> Trial:
        """Make the trial for an engine that has loaded the model."""
        batches = Batches(
            self.tokens,
            self.hyperparameters.batch_size,
            micro_batch_size(self.train, self.hyperparameters.batch_size, shard.workers),
            self.seed,
            pad_of(self.folder),
            64,
            engine.shares_rows,
        )
        return Trial("trial", self.hyperparameters, self.train, batches, self.steps)


@dataclass
class Travelled:
    """What became of a trial, as one worker saw it.

    logits: of the model as it was served at the end.
    again: what became of it when it went on from its state.
    """

    steps: list[Progress]
    logits: Tensor
    again: Travelled | None = None

    @property
    def losses(self) -> list[float]:
        return [progress.position.losses[-1] for progress in self.steps]

    @property
    def norms(self) -> list[float]:
        return [progress.grad_norm for progress in self.steps]


IDS_BT = torch.tensor([[5, 9, 200, 17, 33, 250, 8, 1], [1, 2, 3, 5, 8, 13, 21, 34]])
NOTES = {"rungs": [{"step": 3}], "evaluate_s": 0.5}


def slot_of(engine: DeepSpeedEngine) -> DeepSpeedSlot:
    (slot,) = engine.slots.values()
    return slot


def one_step(engine: DeepSpeedEngine) -> Progress:
    (progress,) = engine.step()
    return progress


def served_logits(engine: DeepSpeedEngine) -> Tensor:
    with engine.serving(["trial"]) as (served, order), served.together() as model:
        assert order == ["trial"]
        assert not model.training
        logits: Tensor = model(input_ids=IDS_BT).logits
    return logits.clone()


def travel(journey: Journey, out: Path, shard: Shard = ALONE) -> Travelled:
    """Train a trial from beginning to end, and save its model or adapter under `out`."""
    travelled = _travel(journey, journey.begin(shard), out)
    if journey.saved is not None:
        engine = journey.begin(shard, out / "state")
        assert slot_of(engine).notes == NOTES
        assert slot_of(engine).position.step == journey.saved
        travelled.again = _travel(replace(journey, saved=None), engine, out)
    return travelled


def _travel(journey: Journey, engine: DeepSpeedEngine, out: Path) -> Travelled:
    steps, slot = [], slot_of(engine)
    while slot.position.step < journey.steps and slot.diverged is None:
        if slot.position.step == journey.saved:
            slot.save_state(out / "state", NOTES)
        steps.append(one_step(engine))
    travelled = Travelled(steps, served_logits(engine))
    tokenizer = load_tokenizer(ModelSpec(path=str(journey.folder)))
    slot.save_trained(TrialPaths(out), tokenizer)
    weights = [weakref.ref(weight) for weight in engine._model.module.parameters()]
    del slot
    close(engine)
    left = sum(weight.numel() for made in weights if (weight := made()) is not None)
    assert left == 0, "memory must be given back"
    return travelled


def travel_all(journeys: dict[str, Journey], out: Path, shard: Shard) -> dict[str, Travelled]:
    """Train several trials, one after the other in the same process."""
    return {name: travel(journey, out / name, shard) for name, journey in journeys.items()}


def ask(journey: Journey, question: Callable[[DeepSpeedEngine], Any], shard: Shard = ALONE) -> Any:
    """Begin a trial only to ask its engine something."""
    engine = journey.begin(shard)
    try:
        return question(engine)
    finally:
        close(engine)
