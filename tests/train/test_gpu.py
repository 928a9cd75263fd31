"""Packed equals alone on a GPU, whose kernels may sum in another order for other shapes.

Runs without Ray, Optuna and lm-eval: `pytest -m gpu tests/train`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lorasweep.data.shard import Shard
from lorasweep.model.base import load_base
from lorasweep.model.packed import PackedModel
from lorasweep.spec.sweep import ModelSpec, TrainSpec
from lorasweep.spec.trial import LoraHyperparameters
from lorasweep.train.packed import PackedEngine
from lorasweep.train.progress import TrialNotes
from tests.train.trial import Outcome, Trial, distance, engine_for, equal, outcome_of, run, train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
GPU = torch.device("cuda")
# Losses by relative difference; adapters by the norm of the difference over that of the whole.
TOLERANCE = {"fp32": (1e-4, 1e-3), "bf16": (3e-2, 0.3)}


@pytest.fixture(autouse=True)
def _full_precision():
    """Multiply fp32 without TF32, as the tolerance assumes."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


@pytest.fixture(params=["fp32", "bf16"])
def trials(request: pytest.FixtureRequest, trial: Trial) -> list[Trial]:
    """Build trials of several shapes, too short for rounding to add up."""
    trial = replace(trial, dtype=request.param, width=64, steps=6, spec=TrainSpec(micro_batch=4))

    def made(name: str, lr: float = 1e-3, **fields: Any) -> Trial:
        fields = {"rank": 4, "batch_size": 8, **fields}
        return replace(trial, name=name, hyperparameters=LoraHyperparameters(lr=lr, **fields))

    return [
        made("plain"),
        made("decayed", weight_decay=0.5, lr=3e-3),
        replace(made("dropping", dropout=0.3, rank=7), seed=1),
        made("wide", rank=12, targets="mlp", alpha="rslora:8"),
        replace(made("small", targets="attention", batch_size=4), steps=4),
        replace(
            made("lion", lr=1e-4),
            spec=TrainSpec(micro_batch=2, optimizer="lion", clip=0.5),
            seed=2,
        ),
    ]


def on_gpu(folder: Path, dtype: Any, *, recompute: bool = False) -> PackedModel:
    base = load_base(ModelSpec(path=str(folder), dtype=dtype), GPU)
    if recompute:
        base.gradient_checkpointing_enable({"use_reentrant": False})
    return PackedModel(base, GPU)


def train_on_gpu(model: PackedModel, trials: list[Trial], **how: Any) -> list[Outcome]:
    engine = engine_for(*trials, model=model, **how)
    steps = list(run(engine))
    found = [outcome_of(engine.slots[trial.name], steps) for trial in trials]
    return [
        replace(one, adapter={name: value.cpu() for name, value in one.adapter.items()})
        for one in found
    ]


def assert_near(trial: Trial, one: Outcome, other: Outcome) -> None:
    losses, adapters = TOLERANCE[trial.dtype]
    if trial.spec.optimizer == "lion":
        adapters = max(adapters, 3e-2)  # a sign that rounding turns moves a weight by two steps
    assert one.losses == pytest.approx(other.losses, rel=losses), trial.name
    assert distance(one.adapter, other.adapter) < adapters, trial.name


@pytest.mark.parametrize("how", [{}, {"level": True}, {"one_by_one": True}], ids=str)
def test_packed_equals_alone_on_a_gpu(trials: list[Trial], how: dict[str, bool]):
    model = on_gpu(trials[0].folder, trials[0].dtype)
    assert model.shares_rows
    together = train_on_gpu(model, trials, **how)
    for trial, other in zip(trials, together, strict=True):
        (one,) = train_on_gpu(model, [trial])
        assert_near(trial, one, other)
        assert all(value.any() for value in other.adapter.values()), trial.name  # B has moved


def test_the_plain_loop_is_alone_bit_for_bit_on_a_gpu(trials: list[Trial]):
    model = on_gpu(trials[0].folder, trials[0].dtype)
    for trial, other in zip(trials, train_on_gpu(model, trials, one_by_one=True), strict=True):
        (one,) = train_on_gpu(model, [trial])
        assert one.losses == pytest.approx(other.losses, rel=1e-6), trial.name
        assert distance(one.adapter, other.adapter) < 1e-5, trial.name


def test_a_gpu_trains_as_the_cpu_does(trials: list[Trial]):
    undropped = [trial for trial in trials if not trial.hyperparameters.dropout]  # other draws
    found = train_on_gpu(on_gpu(trials[0].folder, trials[0].dtype), undropped, level=True)
    for trial, other in zip(undropped, found, strict=True):
        assert_near(trial, train(trial), other)


def test_a_trial_that_is_not_finite_affects_no_other_on_a_gpu(trials: list[Trial]):
    model = on_gpu(trials[0].folder, trials[0].dtype)

    def spoilt(value: float) -> list[Outcome]:
        engine = PackedEngine(model, Shard(), level=True)
        for trial in trials:
            engine.admit(engine.prepare(trial.engine_trial))
        steps = engine.step()
        engine.slots["plain"].adapter.gradients_P[3] = value
        while engine.slots["plain"].diverged is None:
            steps += engine.step()
        assert engine.slots["plain"].position.step == 0
        engine.retire("plain")
        steps += run(engine)
        return [outcome_of(engine.slots[trial.name], steps) for trial in trials[1:]]

    for trial, one, other in zip(trials[1:], spoilt(math.nan), spoilt(math.inf), strict=True):
        assert equal(one.adapter, other.adapter), trial.name
        assert all(bool(value.isfinite().all()) for value in one.adapter.values())


def test_a_trial_resumes_from_its_saved_state_on_a_gpu(trials: list[Trial], tmp_path: Path):
    model = on_gpu(trials[0].folder, trials[0].dtype)
    (whole,) = train_on_gpu(model, [trials[2]])
    engine = PackedEngine(model, Shard())
    engine.admit(engine.prepare(trials[2].engine_trial))
    for _ in range(5):
        engine.step()
    engine.slots["dropping"].save_state(tmp_path, TrialNotes())
    engine = PackedEngine(model, Shard())
    slot = engine.prepare(trials[2].engine_trial, tmp_path)
    assert slot.position.step == 2
    engine.admit(slot)
    steps = list(run(engine))
    rest = outcome_of(slot, steps)
    adapter = {name: value.cpu() for name, value in rest.adapter.items()}
    assert_near(trials[2], replace(whole, steps=whole.steps[2:]), replace(rest, adapter=adapter))


# transformers 5.23 has a new name for it, which its first releases lack.
@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated:FutureWarning")
def test_recomputing_activations_changes_nothing_on_a_gpu(trials: list[Trial]):
    folder, dtype = trials[0].folder, trials[0].dtype
    kept = train_on_gpu(on_gpu(folder, dtype), trials, level=True)
    recomputed = train_on_gpu(on_gpu(folder, dtype, recompute=True), trials, level=True)
    for trial, one, other in zip(trials, kept, recomputed, strict=True):
        assert_near(trial, one, other)
