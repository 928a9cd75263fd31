from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lorasweep.data.shard import Shard
from lorasweep.data.tokens import Tokens
from lorasweep.evaluate.agreement import sample_base
from lorasweep.evaluate.heldout import measure_heldout
from lorasweep.evaluate.measure import Measurement
from lorasweep.model.lora import attach_lora
from lorasweep.spec.sweep import EvaluateSpec
from lorasweep.spec.trial import LoraHyperparameters
from lorasweep.store.records import Scores
from tests.evaluate.taught import CPU, load
from tests.workers import TwoWorkers

LEARNING = ("response_accuracy", "told")
SOURCE = ("base_agreement", "chosen", "told")


def _measurement(
    folder: Path,
    tokens: Tokens,
    spec: EvaluateSpec,
    shard: Shard = Shard(),  # noqa: B008
) -> tuple[Measurement, Any]:
    model, tokenizer = load(folder)
    samples = sample_base(model, 0, positions=16, batch_size=16, device=CPU)
    return Measurement(spec, tokenizer, tokens, samples, shard, CPU), model


def _scores(
    folder: Path,
    tokens: Tokens,
    spec: EvaluateSpec,
    shard: Shard = Shard(),  # noqa: B008
) -> Scores:
    measurement, model = _measurement(folder, tokens, spec, shard)
    return measurement.scores(model)


@pytest.fixture
def spec(tasks_folder: Path) -> EvaluateSpec:
    return EvaluateSpec(learning=LEARNING, source=SOURCE, tasks=str(tasks_folder), batch_size=4)


def test_scores_are_the_means_of_their_suites(
    taught_model: Path, taught_tokens: Tokens, spec: EvaluateSpec
):
    scores = _scores(taught_model, taught_tokens, spec)
    assert scores.tasks == {
        "response_accuracy": 1.0,
        "told": 0.7,
        "base_agreement": 1.0,
        "chosen": 0.7,
    }
    assert scores.learning == pytest.approx((1.0 + 0.7) / 2)
    assert scores.source_accuracy == pytest.approx((1.0 + 0.7 + 0.7) / 3)
    assert scores.response_loss == pytest.approx(0.0, abs=0.02)


def test_an_empty_source_suite_has_no_score(
    taught_model: Path, taught_tokens: Tokens, spec: EvaluateSpec
):
    bare = spec.model_copy(update={"learning": ("response_accuracy",), "source": ()})
    scores = _scores(taught_model, taught_tokens, bare)
    assert scores.source_accuracy is None
    assert scores.tasks == {"response_accuracy": 1.0}


def test_a_rung_measures_the_same_loss_as_the_end(
    taught_model: Path, taught_tokens: Tokens, spec: EvaluateSpec
):
    measurement, model = _measurement(taught_model, taught_tokens, spec)
    loss, _ = measure_heldout(model, taught_tokens, batch_size=4, pad=0, shard=Shard(), device=CPU)
    assert measurement.response_loss(model) == loss
    assert measurement.scores(model).response_loss == loss


def test_the_number_of_workers_changes_nothing(
    taught_model: Path, taught_tokens: Tokens, spec: EvaluateSpec, two_workers: TwoWorkers
):
    alone = _scores(taught_model, taught_tokens, spec)
    first, second = two_workers(_scores, taught_model, taught_tokens, spec)
    assert first == second
    assert first.tasks == pytest.approx(alone.tasks)
    assert first.response_loss == pytest.approx(alone.response_loss, rel=1e-5)


def test_measuring_leaves_the_model_in_training_and_its_weights_alone(
    taught_model: Path, taught_tokens: Tokens, spec: EvaluateSpec
):
    measurement, base = _measurement(taught_model, taught_tokens, spec)
    model = attach_lora(base, LoraHyperparameters(rank=2, dropout=0.5), 0)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert measurement.scores(model) == measurement.scores(model)
    assert all(part.training for part in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
