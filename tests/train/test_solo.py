from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lorasweep.data.shard import Shard
from lorasweep.data.tokens import Tokens
from lorasweep.spec.sweep import TrainSpec
from lorasweep.train.checkpoint import Position, load_state, save_state
from lorasweep.train.solo import SMOOTHED_STEPS
from tests.reference import finetune
from tests.train.trial import (
    LION,
    LORA,
    Outcome,
    Trial,
    copied,
    distance,
    equal,
    go_on,
    start,
    train,
)
from tests.workers import TwoWorkers

ADAMW_SPEC = TrainSpec(micro_batch=2)
LION_SPEC = TrainSpec(micro_batch=2, optimizer="lion")
BOTH = pytest.mark.parametrize(
    ("spec", "hyperparameters"), [(ADAMW_SPEC, LORA), (LION_SPEC, LION)], ids=["adamw", "lion"]
)
# Two workers add up the same gradients in another order; relative norms of the difference after 12
# steps. Measured: 1.4e-7 for AdamW, 0 for Lion, where one sign that rounding turns would make 1e-4.
SUMMED_ELSEWHERE = {"adamw": 1e-5, "lion": 1e-3}


@pytest.fixture
def trial(tiny_model: Path, tokens: Tokens) -> Trial:
    return Trial(tiny_model, tokens)


@BOTH
@pytest.mark.parametrize("clip", [0.05, 100.0])
def test_a_trial_equals_a_plain_finetuning_script(trial: Trial, spec, hyperparameters, clip: float):
    trial = replace(
        trial, spec=spec.model_copy(update={"clip": clip}), hyperparameters=hyperparameters
    )
    batches = trial.batches
    outcome = train(trial)
    plain = finetune(
        trial.folder,
        [
            [
                (ids.tolist(), prompt)
                for ids, prompt in map(trial.tokens.example, batches.rows(step))
            ]
            for step in range(trial.steps)
        ],
        target_modules=[
            *("q_proj", "k_proj", "v_proj", "o_proj"),
            *("gate_proj", "up_proj", "down_proj"),
        ],
        rank=4,
        alpha=8,
        lr=hyperparameters.lr,
        optimizer=spec.optimizer,
        weight_decay=hyperparameters.weight_decay,
        warmup_steps=2,
        micro_batch=2,
        clip=clip,
        seed=0,
    )
    norms = [progress.grad_norm for progress in outcome.steps]
    assert min(norms) > clip or max(norms) < clip  # each side of the law is put to the test
    assert outcome.losses == pytest.approx(plain.losses, rel=1e-6)
    assert plain.losses[-1] < plain.losses[0]
    assert distance(plain.adapter, outcome.adapter) < 1e-6


def test_a_whole_batch_equals_its_micro_batches(trial: Trial):
    pieces = train(trial)
    whole = train(replace(trial, spec=TrainSpec(micro_batch=None)))
    assert whole.losses == pytest.approx(pieces.losses, rel=1e-5)
    assert distance(whole.adapter, pieces.adapter) < SUMMED_ELSEWHERE["adamw"]


def _train_all(trials: list[Trial], shard: Shard) -> list[Outcome]:
    return [train(trial, shard) for trial in trials]


def test_the_number_of_workers_changes_nothing(trial: Trial, two_workers: TwoWorkers):
    dropout = LORA.model_copy(update={"dropout": 0.3})
    trials = [
        trial,
        replace(trial, spec=LION_SPEC, hyperparameters=LION),
        replace(trial, hyperparameters=dropout),
        replace(trial, hyperparameters=dropout, spec=TrainSpec(micro_batch=4)),
    ]
    alone = _train_all(trials, Shard())
    first, second = two_workers(_train_all, trials)
    for told, single, one, other in zip(trials, alone, first, second, strict=True):
        assert equal(one.adapter, other.adapter)
        assert one.losses == other.losses
        assert one.losses == pytest.approx(single.losses, rel=1e-5)
        assert distance(single.adapter, one.adapter) < SUMMED_ELSEWHERE[told.spec.optimizer]
        assert one.steps[-1].position.tokens == single.steps[-1].position.tokens
    assert distance(alone[0].adapter, alone[2].adapter) > 0.01  # dropout does something
    assert distance(alone[2].adapter, alone[3].adapter) > 0.01


def test_another_split_over_workers_changes_nothing(trial: Trial, two_workers: TwoWorkers):
    alone = train(replace(trial, spec=TrainSpec(micro_batch=8)))
    shared, _ = two_workers(_train_all, [replace(trial, spec=TrainSpec(micro_batch=4))])
    assert shared[0].losses == pytest.approx(alone.losses, rel=1e-5)
    assert distance(alone.adapter, shared[0].adapter) < SUMMED_ELSEWHERE["adamw"]


@BOTH
@pytest.mark.parametrize("rung", [1, 5])
def test_an_interrupted_trial_ends_as_an_uninterrupted_one(
    trial: Trial, spec, hyperparameters, rung: int, tmp_path: Path
):
    dropout = hyperparameters.model_copy(update={"dropout": 0.3})
    trial = replace(trial, spec=spec, hyperparameters=dropout, steps=8)
    whole = train(trial)

    model, parameters, optimizer = start(trial)
    for progress in go_on(trial, model, parameters, optimizer, Position(), Shard()):
        if progress.position.step == rung:
            save_state(tmp_path, parameters, optimizer, progress.position, {})
            break
    model, parameters, optimizer = start(trial)
    position, _ = load_state(tmp_path, parameters, optimizer)
    rest = list(go_on(trial, model, parameters, optimizer, position, Shard()))

    assert equal(whole.adapter, copied(parameters))
    for resumed, told in zip(rest, whole.steps[rung:], strict=True):
        assert replace(resumed.position, train_s=0.0) == replace(told.position, train_s=0.0)
        assert (resumed.lr, resumed.grad_norm) == (told.lr, told.grad_norm)
        assert resumed.position.train_s > position.train_s


def test_a_seed_decides_a_trial(trial: Trial):
    trial = replace(trial, hyperparameters=LORA.model_copy(update={"dropout": 0.3}), steps=4)
    once, again, other = train(trial), train(trial), train(replace(trial, seed=1))
    assert once.losses == again.losses
    assert equal(once.adapter, again.adapter)
    assert distance(once.adapter, other.adapter) > 0.01
    assert once.losses != other.losses


def test_what_else_draws_random_numbers_changes_nothing(trial: Trial):
    trial = replace(trial, hyperparameters=LORA.model_copy(update={"dropout": 0.3}), steps=4)
    alone = train(trial)
    model, parameters, optimizer = start(trial)
    for _ in go_on(trial, model, parameters, optimizer, Position(), Shard()):
        torch.rand(7)
    assert equal(alone.adapter, copied(parameters))


def test_progress_tells_step_rate_and_tokens(trial: Trial):
    outcome = train(trial)
    batches = trial.batches
    tokens = 0
    for step, progress in enumerate(outcome.steps):
        tokens += sum(len(trial.tokens.example(row)[0]) for row in batches.rows(step))
        recent = outcome.losses[max(0, step + 1 - SMOOTHED_STEPS) : step + 1]
        assert progress.position.step == step + 1
        assert progress.position.tokens == tokens
        assert progress.position.train_loss == pytest.approx(sum(recent) / len(recent))
        assert progress.lr <= trial.hyperparameters.lr
        assert progress.diverged is None
    assert [round(p.lr / LORA.lr, 2) for p in outcome.steps[:3]] == [0.5, 1.0, 1.0]


def test_a_bf16_base_with_an_fp32_adapter_learns(trial: Trial):
    trial = replace(trial, dtype="bf16", spec=TrainSpec(), steps=24)
    model, parameters, _ = start(trial)
    assert model.get_base_model().lm_head.weight.dtype == torch.bfloat16
    assert all(p.dtype == torch.float32 for p in parameters.values())
    outcome = train(trial)
    assert outcome.losses[-1] < outcome.losses[0] - 0.2
    fp32 = train(replace(trial, dtype="fp32", steps=1))
    assert outcome.losses[0] == pytest.approx(fp32.losses[0], rel=1e-2)


def test_a_single_step_trains(trial: Trial):
    outcome = train(replace(trial, steps=1))
    assert len(outcome.steps) == 1
    assert outcome.steps[0].lr == LORA.lr
    assert any(bool(value.any()) for name, value in outcome.adapter.items() if "lora_B" in name)


@BOTH
def test_a_huge_learning_rate_diverges_with_a_finite_adapter(trial: Trial, spec, hyperparameters):
    huge = hyperparameters.model_copy(update={"lr": 10.0, "warmup": 0.0, "weight_decay": 0.0})
    outcome = train(replace(trial, spec=spec, hyperparameters=huge, steps=40))
    assert outcome.steps[-1].diverged is not None
    assert all(progress.diverged is None for progress in outcome.steps[:-1])
    assert all(bool(value.isfinite().all()) for value in outcome.adapter.values())
    assert math.isfinite(outcome.steps[-1].position.train_loss)
    assert outcome.steps[-1].position.step < 40


def _break_gradient(trial: Trial, broken: int, value: float, shard: Shard) -> tuple[Any, Any, Any]:
    """Spoil one worker's gradient in step four; give the adapter before and after, and the end."""
    model, parameters, optimizer = start(trial)
    before, last = copied(parameters), None
    for last in go_on(trial, model, parameters, optimizer, Position(), shard):
        if last.diverged is None:
            before = copied(parameters)
        if last.position.step == 3 and shard.worker == broken:
            next(iter(parameters.values())).register_hook(lambda gradient: gradient * value)
    return before, copied(parameters), last


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_ends_the_trial_before_its_step(trial: Trial, value: float):
    before, after, last = _break_gradient(trial, 0, value, Shard())
    assert last.diverged == "the gradient is not finite"
    assert last.position.step == 3
    assert equal(before, after)


def test_a_gradient_that_is_not_finite_on_one_worker_ends_the_trial_on_both(
    trial: Trial, two_workers: TwoWorkers
):
    for before, after, last in two_workers(_break_gradient, trial, 1, math.nan):
        assert last.diverged == "the gradient is not finite"
        assert last.position.step == 3
        assert equal(before, after)


def _inflate(model: Any, factor: float) -> None:
    with torch.no_grad():
        model.get_base_model().get_output_embeddings().weight.mul_(factor)


def test_a_loss_that_is_not_finite_ends_the_trial(trial: Trial):
    model, parameters, optimizer = start(trial)
    _inflate(model, math.nan)
    (only,) = go_on(trial, model, parameters, optimizer, Position(), Shard())
    assert only.diverged == "the training loss is not finite"
    assert only.position == Position()
    assert math.isnan(only.position.train_loss)


def test_a_loss_beyond_twice_that_of_guessing_ends_the_trial_after_ten_steps(trial: Trial):
    model, parameters, optimizer = start(trial)
    _inflate(model, 100.0)
    steps = list(go_on(trial, model, parameters, optimizer, Position(), Shard()))
    assert len(steps) == SMOOTHED_STEPS
    assert steps[-1].diverged is not None
    assert "beyond twice that of guessing, 5.9" in steps[-1].diverged
