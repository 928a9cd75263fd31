"""Run small trials under DeepSpeed from start to end, in this process or in a worker."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lorasweep.data.batches import Batches
from lorasweep.data.shard import Shard
from lorasweep.data.tokens import Tokens
from lorasweep.model.base import load_tokenizer
from lorasweep.spec.sweep import DeepSpeedSpec, ModelSpec, TrainSpec
from lorasweep.spec.targets import OwnSets
from lorasweep.spec.trial import FullHyperparameters, LoraHyperparameters
from lorasweep.store.paths import TrialPaths
from lorasweep.store.records import Rung
from lorasweep.train.deepspeed import DeepSpeedEngine
from lorasweep.train.deepspeed_slot import DeepSpeedSlot
from lorasweep.train.progress import Progress, Trial, TrialNotes, micro_batch_size
from tests.train.cleanup import close
from tests.train.trial import CPU, pad_of

ALONE = Shard()
ADAMW = FullHyperparameters(lr=3e-3, batch_size=8, weight_decay=0.1)
LION = FullHyperparameters(lr=3e-4, batch_size=8, weight_decay=0.01)
SPEC = TrainSpec(micro_batch=2, clip=2.5)


@dataclass(frozen=True)
class Setup:
    """A trial and the way to train it.

    saved: the step after which it is saved, for another engine to resume from.
    lockstep: evaluate with the model sharded, even though it would fit.
    own: sets of targets that the sweep defines.
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
    own: OwnSets = field(default_factory=dict)

    def begin(self, shard: Shard, state: Path | None = None) -> DeepSpeedEngine:
        """Load an engine and admit the trial."""
        model = ModelSpec(path=str(self.folder), dtype=self.dtype)
        spec = DeepSpeedSpec(stage=self.stage, offload=self.offload)
        engine = DeepSpeedEngine(model, spec, shard, CPU, self.own)
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
class Trained:
    """What became of a trial, as one worker saw it.

    logits: of the model as it was served at the end.
    again: what became of it when it was resumed from its state.
    """

    steps: list[Progress]
    logits: Tensor
    again: Trained | None = None

    @property
    def losses(self) -> list[float]:
        return [progress.position.losses[-1] for progress in self.steps]

    @property
    def norms(self) -> list[float]:
        return [progress.grad_norm for progress in self.steps]


IDS_BT = torch.tensor([[5, 9, 200, 17, 33, 250, 8, 1], [1, 2, 3, 5, 8, 13, 21, 34]])
NOTES = TrialNotes(rungs=(Rung(percent=25, step=3, response_loss=1.5),), evaluate_s=0.5)


def slot_of(engine: DeepSpeedEngine) -> DeepSpeedSlot:
    (slot,) = engine.slots.values()
    return slot


def one_step(engine: DeepSpeedEngine) -> Progress:
    (progress,) = engine.step()
    return progress


def served_logits(engine: DeepSpeedEngine) -> Tensor:
    with engine.serving(["trial"]) as (served, order), served.all_copies() as model:
        assert order == ["trial"]
        assert not model.training
        logits: Tensor = model(input_ids=IDS_BT).logits
    return logits.clone()


def run_trial(setup: Setup, out: Path, shard: Shard = ALONE) -> Trained:
    """Train a trial from beginning to end, and save its model or adapter under `out`."""
    trained = _run(setup, setup.begin(shard), out)
    if setup.saved is not None:
        engine = setup.begin(shard, out / "state")
        assert slot_of(engine).notes == NOTES
        assert slot_of(engine).position.step == setup.saved
        trained.again = _run(replace(setup, saved=None), engine, out)
    return trained


def _run(setup: Setup, engine: DeepSpeedEngine, out: Path) -> Trained:
    steps, slot = [], slot_of(engine)
    while slot.position.step < setup.steps and slot.diverged is None:
        if slot.position.step == setup.saved:
            slot.save_state(out / "state", NOTES)
        steps.append(one_step(engine))
    trained = Trained(steps, served_logits(engine))
    tokenizer = load_tokenizer(ModelSpec(path=str(setup.folder)))
    slot.save_trained(TrialPaths(out), tokenizer)
    weights = [weakref.ref(weight) for weight in engine._model.module.parameters()]
    del slot
    close(engine)
    left = sum(weight.numel() for made in weights if (weight := made()) is not None)
    assert left == 0, "memory must be given back"
    return trained


def run_trials(setups: dict[str, Setup], out: Path, shard: Shard) -> dict[str, Trained]:
    """Train several trials, one after the other in the same process."""
    return {name: run_trial(setup, out / name, shard) for name, setup in setups.items()}


def with_engine(
    setup: Setup, function: Callable[[DeepSpeedEngine], Any], shard: Shard = ALONE
) -> Any:
    """Admit a trial, call a function with its engine, and close the engine."""
    engine = setup.begin(shard)
    try:
        return function(engine)
    finally:
        close(engine)
