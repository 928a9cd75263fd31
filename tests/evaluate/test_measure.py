from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from lorasweep.data.shard import Shard
from lorasweep.data.tokens import Tokens
from lorasweep.evaluate.agreement import sample_base
from lorasweep.evaluate.heldout import heldout_responses, measure_heldout
from lorasweep.evaluate.measure import Measurement
from lorasweep.evaluate.tasks import load_tasks
from lorasweep.spec.sweep import EvaluateSpec
from lorasweep.store.scores import Scores
from tests.evaluate.programs import write_task
from tests.evaluate.taught import CPU, alone, load, serve
from tests.workers import TwoWorkers

LEARNING = ("response_accuracy", "told")
SOURCE = ("base_agreement", "chosen", "told")


def _measurement(
    folder: Path,
    tokens: Tokens,
    spec: EvaluateSpec,
    shard: Shard = Shard(),  # noqa: B008
) -> Measurement:
    model, tokenizer = load(folder)
    samples = sample_base(model, 0, positions=16, batch_size=16, device=CPU)
    return Measurement(spec, tokenizer, tokens, lambda: samples, shard, CPU)


def _scores(
    folder: Path,
    tokens: Tokens,
    spec: EvaluateSpec,
    shard: Shard = Shard(),  # noqa: B008
) -> Scores:
    (scores,) = _measurement(folder, tokens, spec, shard).scores(serve(folder)[0])
    return scores


def _of_copies(
    folder: Path,
    tokens: Tokens,
    spec: EvaluateSpec,
    shard: Shard = Shard(),  # noqa: B008
) -> list[Scores]:
    served, _ = serve(folder, copies=3)
    return _measurement(folder, tokens, spec, shard).scores(served)


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
    served, _ = serve(taught_model, copies=2)
    measurement = _measurement(taught_model, taught_tokens, spec)
    share = heldout_responses(taught_tokens, batch_size=4, pad=0, shard=Shard())
    losses = [loss for loss, _ in measure_heldout(served, share, shard=Shard(), device=CPU)]
    assert len(set(losses)) == 2
    assert measurement.response_losses(served) == losses
    assert [scores.response_loss for scores in measurement.scores(served)] == losses


def test_a_copy_measures_the_same_in_any_company(
    taught_model: Path, taught_tokens: Tokens, spec: EvaluateSpec
):
    served, _ = serve(taught_model, copies=4)
    measurement = _measurement(taught_model, taught_tokens, spec)
    together = measurement.scores(served)
    assert together == [measurement.scores(one)[0] for one in alone(served)]
    assert len({scores.response_loss for scores in together}) == 4
    assert len({scores.learning for scores in together}) > 1


def test_one_thread_may_prepare_what_another_measures_with(
    taught_model: Path, taught_tokens: Tokens, spec: EvaluateSpec, monkeypatch: pytest.MonkeyPatch
):
    served, _ = serve(taught_model)
    measurement = _measurement(taught_model, taught_tokens, spec)
    loads = []

    def load_slowly(names: tuple[str, ...], spec: EvaluateSpec) -> dict[str, Any]:
        loads.append(names)
        time.sleep(0.2)
        return load_tasks(names, spec)

    monkeypatch.setattr("lorasweep.evaluate.measure.load_tasks", load_slowly)
    with ThreadPoolExecutor(1) as pool:
        preparing = pool.submit(measurement.prepare)
        (scores,) = measurement.scores(served)
        preparing.result()
    measurement.prepare()
    assert measurement.scores(served) == [scores]
    assert len(loads) == 1


def test_the_number_of_workers_changes_nothing(
    taught_model: Path, taught_tokens: Tokens, spec: EvaluateSpec, two_workers: TwoWorkers
):
    alone = _scores(taught_model, taught_tokens, spec)
    first, second = two_workers(_scores, taught_model, taught_tokens, spec)
    assert first == second
    assert first.tasks == pytest.approx(alone.tasks)
    assert first.response_loss == pytest.approx(alone.response_loss, rel=1e-5)


def test_the_number_of_workers_changes_no_copy(
    taught_model: Path, taught_tokens: Tokens, spec: EvaluateSpec, two_workers: TwoWorkers
):
    expected = _of_copies(taught_model, taught_tokens, spec)
    first, second = two_workers(_of_copies, taught_model, taught_tokens, spec)
    assert first == second
    for scores, other in zip(first, expected, strict=True):
        assert scores.tasks == pytest.approx(other.tasks)
        assert scores.response_loss == pytest.approx(other.response_loss, rel=1e-5)


def test_measuring_leaves_the_model_in_training_and_its_weights_alone(
    taught_model: Path, taught_tokens: Tokens, spec: EvaluateSpec
):
    served, _ = serve(taught_model, copies=2)
    measurement = _measurement(taught_model, taught_tokens, spec)
    model = served._packed.base
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adapters = [adapter.weights_P.clone() for adapter in served._adapters]
    assert measurement.scores(served) == measurement.scores(served)
    assert all(part.training for part in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for adapter, weights in zip(served._adapters, adapters, strict=True):
        assert torch.equal(adapter.weights_P, weights)
        assert not adapter.gradients_P.any()


def test_tasks_that_run_programs_score_their_pass_at_one(
    taught_model: Path, taught_tokens: Tokens, tmp_path: Path
):
    write_task(tmp_path, problems=2)
    spec = EvaluateSpec(
        learning=("quoted", "response_accuracy"),
        source=(),
        tasks=str(tmp_path),
        allow_code_execution=True,
    )
    served, _ = serve(taught_model, copies=2)
    measurement = _measurement(taught_model, taught_tokens, spec)
    assert measurement.completions == []
    scores = measurement.scores(served)
    assert [len(own) for own in measurement.completions] == [8, 8]
    for own, completions in zip(scores, measurement.completions, strict=True):
        passed = sum(completion.status == "passed" for completion in completions) / 8
        assert own.code["quoted"].pass_at["1"] == own.tasks["quoted"] == pytest.approx(passed)
        assert own.learning == pytest.approx((passed + own.tasks["response_accuracy"]) / 2)
    before = measurement.completions[:]
    measurement.scores(alone(served)[1])
    assert measurement.completions == before[1:]


def test_lm_eval_is_not_loaded_where_only_programs_are_asked_for(
    taught_model: Path, taught_tokens: Tokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for module in ("lm_eval", "lorasweep.evaluate.served_lm"):
        monkeypatch.setitem(sys.modules, module, None)  # then importing it is an error
    write_task(tmp_path, problems=1, samples=1, pass_at=[1])
    spec = EvaluateSpec(
        learning=("quoted",), source=(), tasks=str(tmp_path), allow_code_execution=True
    )
    assert list(_scores(taught_model, taught_tokens, spec).tasks) == ["quoted"]
