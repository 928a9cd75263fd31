"""Run small packed trials from start to end, in this process or in a worker."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lorasweep.data.batches import Batches, MicroBatch
from lorasweep.data.shard import Shard
from lorasweep.data.tokens import Tokens
from lorasweep.model.base import load_base, load_tokenizer
from lorasweep.model.packed import PackedModel
from lorasweep.spec.sweep import ModelSpec, TrainSpec
from lorasweep.spec.trial import LoraHyperparameters
from lorasweep.train.lora_slot import LoraSlot, LoraTrial
from lorasweep.train.packed import PackedEngine
from lorasweep.train.progress import Progress, micro_batch_size

CPU = torch.device("cpu")
SPEC = TrainSpec(micro_batch=2)
LORA = LoraHyperparameters(lr=1e-2, rank=4, batch_size=8, weight_decay=0.1)
LION = LoraHyperparameters(lr=1e-3, rank=4, batch_size=8, weight_decay=0.01)


@dataclass(frozen=True)
class Trial:
    folder: Path
    tokens: Tokens
    spec: TrainSpec = SPEC
    hyperparameters: LoraHyperparameters = LORA
    steps: int = 12
    seed: int = 0
    dtype: Literal["fp32", "bf16"] = "fp32"
    width: int | None = None
    shared: bool = True
    name: str = "trial"

    @property
    def batches(self) -> Batches:
        return Batches(
            self.tokens,
            self.hyperparameters.batch_size,
            micro_batch_size(self.spec, self.hyperparameters.batch_size, 1),
            self.seed,
            pad_of(self.folder),
            self.width,
            self.shared,
        )

    @property
    def engine_trial(self) -> LoraTrial:
        """The trial as the engine takes it."""
        return LoraTrial(self.name, self.hyperparameters, self.spec, self.batches, self.steps)


@dataclass(frozen=True)
class Outcome:
    """What became of a trial.

    moments: of its optimizer, by name, and its step count.
    """

    steps: list[Progress]
    adapter: dict[str, Tensor]
    moments: dict[str, Tensor] = field(default_factory=dict)

    @property
    def losses(self) -> list[float]:
        return [progress.position.losses[-1] for progress in self.steps]


@functools.cache
def pad_of(folder: Path) -> int:
    return int(load_tokenizer(ModelSpec(path=str(folder))).pad_token_id)


def fresh_model(folder: Path, dtype: Any = "fp32", *, recompute: bool = False) -> PackedModel:
    base = load_base(ModelSpec(path=str(folder), dtype=dtype), CPU)
    if recompute:
        base.gradient_checkpointing_enable({"use_reentrant": False})
    return PackedModel(base, CPU)


@functools.cache
def model_of(folder: Path, dtype: Any) -> PackedModel:
    """Load a model that tests share, since nothing in it ever changes."""
    return fresh_model(folder, dtype)


class OneByOneEngine(PackedEngine):
    """The plain loop to which packing is held: one trial after the other."""

    def _accumulate(self, slots: Sequence[LoraSlot], batches: Sequence[MicroBatch]) -> None:
        for slot, batch in zip(slots, batches, strict=True):
            super()._accumulate([slot], [batch])


def engine_for(
    *trials: Trial,
    shard: Shard = Shard(),  # noqa: B008 - frozen
    model: PackedModel | None = None,
    level: bool = False,
    one_by_one: bool = False,
) -> PackedEngine:
    """Start an engine with some trials in its slots."""
    if model is None:
        model = model_of(trials[0].folder, trials[0].dtype)
    kind = OneByOneEngine if one_by_one else PackedEngine
    engine = kind(model, shard, level=level)
    for trial in trials:
        engine.admit(engine.prepare(trial.engine_trial))
    return engine


def going_on(engine: PackedEngine) -> bool:
    return any(
        slot.diverged is None and slot.position.step < slot.trial.steps
        for slot in engine.slots.values()
    )


def run(engine: PackedEngine) -> Iterator[Progress]:
    """Train until every trial has ended."""
    while going_on(engine):
        yield from engine.step()


def outcome_of(slot: LoraSlot, steps: Sequence[Progress]) -> Outcome:
    """Copy the result of a trial; `steps` may include other trials' progress."""
    state = slot.optimizer.state.get(slot.adapter.weights_P, {})
    return Outcome(
        [progress for progress in steps if progress.trial == slot.trial.id],
        copied(slot.adapter.named()),
        {name: torch.as_tensor(value).clone() for name, value in state.items()},
    )


def train_together(
    trials: Sequence[Trial],
    shard: Shard = Shard(),  # noqa: B008 - frozen
    **how: Any,
) -> list[Outcome]:
    """Train trials side by side from beginning to end."""
    engine = engine_for(*trials, shard=shard, **how)
    steps = list(run(engine))
    return [outcome_of(engine.slots[trial.name], steps) for trial in trials]


def train(trial: Trial, shard: Shard = Shard(), **how: Any) -> Outcome:  # noqa: B008 - frozen
    """Train a trial alone from its beginning to its end."""
    (outcome,) = train_together([trial], shard, **how)
    return outcome


def copied(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in parameters.items()}


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Norm of the difference between two adapters, relative to that of the first."""
    assert one.keys() == other.keys()
    apart = torch.cat([(one[name] - other[name]).flatten() for name in one])
    return float(apart.norm() / torch.cat([value.flatten() for value in one.values()]).norm())


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Check whether two adapters are the same, bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@functools.cache
def rows_compute_alike() -> bool:
    """Measure whether matrix kernels are row-invariant: a row gets the same bits beside any other.

    MKL's and OpenBLAS' do on most machines; where they do not, trials in company are near to what
    they are alone, and not equal.
    """
    generator = torch.Generator().manual_seed(0)
    for inputs, outputs in ((48, 80), (80, 48), (48, 24), (48, 400), (48, 8), (8, 48)):
        x_NI = torch.randn(640, inputs, generator=generator)
        w_OI = torch.randn(outputs, inputs, generator=generator)
        whole_NO = x_NI @ w_OI.T
        for first, last in ((0, 16), (16, 40), (40, 160), (160, 640), (7, 57)):
            if not torch.equal(whole_NO[first:last], x_NI[first:last] @ w_OI.T):
                return False
    return True


# Relative norms of the difference of two adapters whose gradients were summed in another order.
# Measured after 12 steps: 3e-7 for AdamW; for Lion one sign that rounding turns makes 1e-4.
SUMMED_ELSEWHERE = {"adamw": 1e-5, "lion": 1e-3}


def near(one: Outcome, other: Outcome, optimizer: str) -> bool:
    """Check whether two trials differ by no more than sums in another order explain."""
    losses = zip(one.losses, other.losses, strict=True)
    return distance(one.adapter, other.adapter) < SUMMED_ELSEWHERE[optimizer] and all(
        math.isclose(a, b, rel_tol=1e-5) for a, b in losses
    )


def same(one: Outcome, other: Outcome, optimizer: str) -> bool:
    """Check whether two trials are the same, bit for bit where this machine's kernels allow it."""
    if not rows_compute_alike():
        return near(one, other, optimizer)
    return (
        equal(one.adapter, other.adapter)
        and equal(one.moments, other.moments)
        and [without_time(progress) for progress in one.steps]
        == [without_time(progress) for progress in other.steps]
    )


def without_time(progress: Progress) -> tuple[Any, ...]:
    """The outcome of a step, without the seconds it took."""
    position = replace(progress.position, train_s=0.0)
    return position, progress.lr, progress.grad_norm, progress.diverged
