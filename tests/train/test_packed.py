"""One trial in the engine: what it computes, and that nothing but its own numbers decides it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers.models.qwen2.modeling_qwen2 import Qwen2MLP

from lorasweep.data.shard import Shard
from lorasweep.data.tokens import Tokens
from lorasweep.errors import ModelError
from lorasweep.model.base import load_base
from lorasweep.model.lora import save_adapter
from lorasweep.model.packed import PackedCopies
from lorasweep.spec.sweep import ModelSpec, TrainSpec
from lorasweep.spec.trial import LoraHyperparameters
from lorasweep.train.progress import SMOOTHED_STEPS, Position, TrialNotes
from tests.examples import pack, prompted
from tests.reference import Finetuned, finetune
from tests.train.trial import (
    CPU,
    LION,
    LORA,
    SUMMED_ELSEWHERE,
    Outcome,
    Trial,
    copied,
    distance,
    engine_for,
    equal,
    fresh_model,
    near,
    outcome_of,
    run,
    train,
    without_time,
)
from tests.workers import TwoWorkers

LION_SPEC = TrainSpec(micro_batch=2, optimizer="lion")
BOTH = pytest.mark.parametrize(
    ("spec", "hyperparameters"),
    [(TrainSpec(micro_batch=2), LORA), (LION_SPEC, LION)],
    ids=["adamw", "lion"],
)
MODULES = {
    "attention": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "mlp": ["gate_proj", "up_proj", "down_proj"],
}
MODULES["all"] = MODULES["attention"] + MODULES["mlp"]


def scripted(trial: Trial) -> Finetuned:
    """Train a trial by the plain script."""
    spec, hyperparameters, batches = trial.spec, trial.hyperparameters, trial.batches
    alpha, rslora = hyperparameters.resolved_alpha
    assert spec.schedule == "cosine"
    assert spec.betas is None
    return finetune(
        trial.folder,
        [
            [
                (ids.tolist(), prompt)
                for ids, prompt in (
                    prompted(trial.tokens, row) for row in batches.examples(step).tolist()
                )
            ]
            for step in range(trial.steps)
        ],
        target_modules=MODULES[hyperparameters.targets],
        rank=hyperparameters.rank,
        alpha=alpha,
        rslora=rslora,
        dropout=hyperparameters.dropout,
        lr=hyperparameters.lr,
        optimizer=spec.optimizer,
        weight_decay=hyperparameters.weight_decay,
        warmup_steps=math.ceil(hyperparameters.warmup * trial.steps),
        micro_batch=batches.micro_batch,
        clip=spec.clip or math.inf,
        seed=trial.seed,
        dtype={"fp32": torch.float32, "bf16": torch.bfloat16}[trial.dtype],
    )


def varied(trial: Trial, hyperparameters: LoraHyperparameters, **fields: Any) -> Trial:
    return replace(trial, hyperparameters=hyperparameters.model_copy(update=fields))


@BOTH
@pytest.mark.parametrize("clip", [0.05, 100.0])
@pytest.mark.parametrize("shared", [False, True])
def test_a_trial_equals_a_plain_finetuning_script(
    trial: Trial, spec, hyperparameters, clip: float, *, shared: bool
):
    trial = replace(
        trial,
        spec=spec.model_copy(update={"clip": clip}),
        hyperparameters=hyperparameters,
        shared=shared,
        width=64 if shared else None,
    )
    outcome, plain = train(trial), scripted(trial)
    norms = [progress.grad_norm for progress in outcome.steps]
    assert min(norms) > clip or max(norms) < clip  # each side of the law is put to the test
    assert outcome.losses == pytest.approx(plain.losses, rel=1e-6)
    assert plain.losses[-1] < plain.losses[0]
    assert distance(plain.adapter, outcome.adapter) < (1e-5 if shared else 1e-6)


@pytest.mark.parametrize(
    "fields",
    [
        {"dropout": 0.3},
        {"dropout": 0.1, "targets": "mlp", "rank": 9},
        {"dropout": 0.5, "targets": "attention", "rank": 1, "batch_size": 4},
        {"alpha": "rslora:12", "rank": 12},
        {"alpha": 5.0, "rank": 8, "targets": "mlp", "warmup": 0.0},
        {"alpha": "1r", "rank": 33, "weight_decay": 1.0, "warmup": 0.5},
    ],
)
@BOTH
def test_a_trial_equals_the_script_whatever_its_hyperparameters(
    trial: Trial, spec, hyperparameters, fields
):
    trial = varied(replace(trial, spec=spec, seed=3, width=48), hyperparameters, **fields)
    outcome, plain = train(trial), scripted(trial)
    assert outcome.losses == pytest.approx(plain.losses, rel=1e-5)
    assert distance(plain.adapter, outcome.adapter) < SUMMED_ELSEWHERE[spec.optimizer]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_trial_on_a_bf16_base_is_close_to_the_script(trial: Trial, dropout: float):
    trial = varied(replace(trial, dtype="bf16", steps=8), LORA, dropout=dropout)
    outcome, plain = train(trial), scripted(trial)
    assert outcome.losses == pytest.approx(plain.losses, rel=1e-3)
    assert distance(plain.adapter, outcome.adapter) < 0.05
    fp32 = train(replace(trial, dtype="fp32"))
    assert outcome.losses == pytest.approx(fp32.losses, rel=2e-3)
    assert distance(fp32.adapter, outcome.adapter) < 0.1


def test_a_bf16_base_with_an_fp32_adapter_learns(trial: Trial):
    trial = replace(trial, dtype="bf16", spec=TrainSpec(), steps=24)
    engine = engine_for(trial)
    assert {p.dtype for p in engine.model.base.parameters()} == {torch.bfloat16}
    slot = engine.slots[trial.name]
    outcome = outcome_of(slot, list(run(engine)))
    assert {value.dtype for value in outcome.adapter.values()} == {torch.float32}
    assert {value.dtype for value in outcome.moments.values()} == {torch.float32}
    assert outcome.losses[-1] < outcome.losses[0] - 0.2


def test_a_whole_batch_equals_its_micro_batches(trial: Trial):
    pieces = train(trial)
    whole = train(replace(trial, spec=TrainSpec(micro_batch=None)))
    assert near(whole, pieces, "adamw")


def test_the_layout_of_examples_in_rows_changes_nothing(trial: Trial):
    trial = varied(replace(trial, spec=TrainSpec(micro_batch=8)), LORA, dropout=0.3)
    apart = train(replace(trial, shared=False))
    for width in (None, 48, 100):
        assert near(apart, train(replace(trial, width=width)), "adamw")


def test_the_loss_is_the_mean_over_the_responses_of_the_whole_step(trial: Trial):
    batches = trial.batches
    base = load_base(ModelSpec(path=str(trial.folder), dtype="fp32"), CPU)
    total, count = 0.0, 0
    for row in batches.examples(0):
        ids, prompt = prompted(trial.tokens, row)
        with torch.no_grad():
            logits = base(input_ids=torch.tensor(ids.tolist())[None]).logits[0].log_softmax(-1)
        total -= sum(float(logits[i - 1, ids[i]]) for i in range(prompt, len(ids)))
        count += len(ids) - prompt
    first = train(replace(trial, steps=1))
    assert first.losses[0] == pytest.approx(total / count, rel=1e-6)


def test_turns_that_carry_no_loss_are_seen_and_not_learned(trial: Trial):
    rows = [trial.tokens.example(row) for row in range(len(trial.tokens))]
    gaps = [
        (ids.tolist(), [bool(one) and i % 3 > 0 for i, one in enumerate(loss)])
        for ids, loss in rows
    ]
    talks = replace(trial, tokens=Tokens.pack(gaps), steps=1)
    base = load_base(ModelSpec(path=str(trial.folder), dtype="fp32"), CPU)
    total, count = 0.0, 0
    for row in talks.batches.examples(0):
        ids, loss = talks.tokens.example(row)
        with torch.no_grad():
            logits = base(input_ids=torch.tensor(ids.tolist())[None]).logits[0].log_softmax(-1)
        learned = [i for i in range(1, len(ids)) if loss[i]]
        total -= sum(float(logits[i - 1, ids[i]]) for i in learned)
        count += len(learned)
    assert count < talks.batches.tokens.lengths_N.sum()
    assert train(talks).losses[0] == pytest.approx(total / count, rel=1e-6)


def _train_all(trials: list[Trial], shard: Shard) -> list[Outcome]:
    """Train trials side by side, on each worker."""
    engine = engine_for(*trials, shard=shard)
    steps = list(run(engine))
    return [outcome_of(engine.slots[trial.name], steps) for trial in trials]


def test_the_number_of_workers_changes_nothing(trial: Trial, two_workers: TwoWorkers):
    dropout = LORA.model_copy(update={"dropout": 0.3})
    trials = [
        replace(trial, name="adamw"),
        replace(trial, name="lion", spec=LION_SPEC, hyperparameters=LION),
        replace(trial, name="dropout", hyperparameters=dropout),
        replace(
            trial, name="larger", hyperparameters=dropout, spec=TrainSpec(micro_batch=4), steps=7
        ),
        replace(varied(trial, LORA, rank=9, targets="mlp", batch_size=4), name="other", steps=5),
    ]
    alone = [train(trial) for trial in trials]
    first, second = two_workers(_train_all, trials)
    for one_trial, single, one, other in zip(trials, alone, first, second, strict=True):
        assert equal(one.adapter, other.adapter)
        assert equal(one.moments, other.moments)
        assert [without_time(p) for p in one.steps] == [without_time(p) for p in other.steps]
        assert near(single, one, one_trial.spec.optimizer)
        assert one.steps[-1].position.tokens == single.steps[-1].position.tokens
    assert distance(alone[0].adapter, alone[2].adapter) > 0.01  # dropout does something
    assert distance(alone[2].adapter, alone[3].adapter) > 0.01


def test_another_split_over_workers_changes_nothing(trial: Trial, two_workers: TwoWorkers):
    alone = train(replace(trial, spec=TrainSpec(micro_batch=8)))
    shared, _ = two_workers(_train_all, [replace(trial, spec=TrainSpec(micro_batch=4))])
    assert near(alone, shared[0], "adamw")


@BOTH
@pytest.mark.parametrize("rung", [1, 5])
def test_an_interrupted_trial_ends_as_an_uninterrupted_one(
    trial: Trial, spec, hyperparameters, rung: int, tmp_path: Path
):
    trial = varied(replace(trial, spec=spec, steps=8), hyperparameters, dropout=0.3)
    whole = train(trial)

    engine = engine_for(trial)
    while engine.slots[trial.name].position.step < rung:
        engine.step()
    engine.step()  # a micro-batch of the next step, which will be done again
    engine.slots[trial.name].save_state(tmp_path, TrialNotes(evaluate_s=0.5))

    engine = engine_for(model=fresh_model(trial.folder))
    slot = engine.prepare(trial.engine_trial, tmp_path)
    assert (slot.position.step, slot.notes) == (rung, TrialNotes(evaluate_s=0.5))
    train_s = slot.position.train_s
    engine.admit(slot)
    rest = outcome_of(slot, list(run(engine)))

    assert equal(whole.adapter, rest.adapter)
    assert equal(whole.moments, rest.moments)
    assert [without_time(p) for p in rest.steps] == [without_time(p) for p in whole.steps[rung:]]
    assert all(progress.position.train_s > train_s > 0 for progress in rest.steps)


def test_a_trial_without_a_saved_state_starts_at_step_0(trial: Trial, tmp_path: Path):
    engine = engine_for(trial)
    slot = engine.prepare(trial.engine_trial, tmp_path / "nowhere")
    assert (slot.position, slot.notes) == (Position(), TrialNotes())


def test_a_seed_determines_a_trial(trial: Trial):
    trial = varied(replace(trial, steps=4), LORA, dropout=0.3)
    once, again, other = train(trial), train(trial), train(replace(trial, seed=1))
    assert [without_time(p) for p in once.steps] == [without_time(p) for p in again.steps]
    assert equal(once.adapter, again.adapter)
    assert distance(once.adapter, other.adapter) > 0.01
    assert once.losses != other.losses


def test_other_users_of_the_random_generator_change_nothing(trial: Trial):
    trial = varied(replace(trial, steps=4), LORA, dropout=0.3)
    alone = train(trial)
    engine = engine_for(trial)
    before = torch.get_rng_state()
    for _ in run(engine):
        assert torch.equal(torch.get_rng_state(), before)
        torch.rand(7)
        before = torch.get_rng_state()
    assert equal(alone.adapter, copied(engine.slots[trial.name].adapter.named()))


def test_progress_has_step_rate_and_tokens(trial: Trial):
    outcome = train(trial)
    batches = trial.batches
    tokens, train_s = 0, 0.0
    for step, progress in enumerate(outcome.steps):
        tokens += sum(len(trial.tokens.example(row)[0]) for row in batches.examples(step))
        recent = outcome.losses[max(0, step + 1 - SMOOTHED_STEPS) : step + 1]
        assert progress.trial == trial.name
        assert progress.position.step == step + 1
        assert progress.position.tokens == tokens
        assert progress.position.train_loss == pytest.approx(sum(recent) / len(recent))
        assert progress.position.train_s > train_s
        assert progress.lr <= trial.hyperparameters.lr
        assert progress.diverged is None
        train_s = progress.position.train_s
    assert [round(p.lr / LORA.lr, 2) for p in outcome.steps[:3]] == [0.5, 1.0, 1.0]


def test_only_the_micro_batch_that_completes_a_batch_makes_a_step(trial: Trial):
    engine = engine_for(replace(trial, steps=2))
    slot = engine.slots[trial.name]
    told_of = []
    tokens = 0
    for _ in range(8):
        told_of.append(len(engine.step()))
        tokens += engine.tokens
        assert engine.seconds > 0
    assert told_of == [0, 0, 0, 1] * 2
    assert tokens == slot.position.tokens
    assert engine.step() == []
    assert (engine.tokens, engine.seconds) == (0, 0.0)


def test_a_single_step_trains(trial: Trial):
    outcome = train(replace(trial, steps=1))
    assert len(outcome.steps) == 1
    assert outcome.steps[0].lr == LORA.lr
    assert any(bool(value.any()) for name, value in outcome.adapter.items() if "lora_B" in name)


@BOTH
def test_a_trial_whose_numbers_overflow_diverges_with_a_finite_adapter(
    trial: Trial, spec, hyperparameters
):
    huge = {"lr": 10.0, "alpha": 1e18, "warmup": 0.0, "weight_decay": 0.0}
    outcome = train(varied(replace(trial, spec=spec), hyperparameters, **huge))
    assert outcome.steps[-1].diverged is not None
    assert all(progress.diverged is None for progress in outcome.steps[:-1])
    assert all(bool(value.isfinite().all()) for value in outcome.adapter.values())
    assert math.isfinite(outcome.steps[-1].position.train_loss)
    assert 0 < outcome.steps[-1].position.step == len(outcome.steps) - 1


def _break_gradient(trial: Trial, broken: int, value: float, shard: Shard) -> tuple[Any, Any, Any]:
    """Spoil one worker's gradient in step four; return the adapter before and after."""
    engine = engine_for(trial, shard=shard)
    slot = engine.slots[trial.name]
    while slot.position.step < 3:
        engine.step()
    before = copied(slot.adapter.named())
    engine.step()  # now half of the step's gradient is there
    if shard.worker == broken:
        slot.adapter.gradients_P[5] = value
    (last,) = run(engine)
    return before, copied(slot.adapter.named()), last


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


def _inflated(trial: Trial, factor: float) -> Any:
    model = fresh_model(trial.folder)
    with torch.no_grad():
        model.base.get_output_embeddings().weight.mul_(factor)
    return model


def test_a_loss_that_is_not_finite_ends_the_trial(trial: Trial):
    engine = engine_for(trial, model=_inflated(trial, math.nan))
    (only,) = run(engine)
    assert only.diverged == "the training loss is not finite"
    assert only.position == Position()
    assert math.isnan(only.position.train_loss)
    assert engine.step() == []


def test_a_loss_beyond_twice_that_of_guessing_ends_the_trial_after_ten_steps(trial: Trial):
    steps = list(run(engine_for(trial, model=_inflated(trial, 100.0))))
    assert len(steps) == SMOOTHED_STEPS
    assert steps[-1].diverged is not None
    assert "beyond twice that of guessing, 5.9" in steps[-1].diverged


# transformers 5.23 has a new name for it, which its first releases lack.
@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated:FutureWarning")
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_recomputing_activations_changes_nothing(
    trial: Trial, dropout: float, monkeypatch: pytest.MonkeyPatch
):
    trial = varied(replace(trial, steps=3), LORA, dropout=dropout)
    beside = replace(varied(trial, LORA, rank=9), name="beside")
    kept = [train(trial), train(beside)]

    runs = []
    forward = Qwen2MLP.forward

    def counted(layer: Any, x: Any) -> Any:
        runs.append(layer)
        return forward(layer, x)

    monkeypatch.setattr(Qwen2MLP, "forward", counted)
    model = fresh_model(trial.folder, recompute=True)
    assert model.shares_rows
    runs.clear()
    engine = engine_for(trial, beside, model=model)
    steps = list(run(engine))
    assert len(runs) == 2 * 2 * 3 * 4  # each of the two layers ran again in each backward pass
    for one, slot in zip(kept, engine.slots.values(), strict=True):
        recomputed = outcome_of(slot, steps)
        assert equal(one.adapter, recomputed.adapter)
        assert one.losses == recomputed.losses


@pytest.mark.parametrize("alpha", ["2r", "rslora:8"])
def test_an_exported_adapter_has_the_same_logits_in_peft_as_in_its_slot(
    trial: Trial, alpha: str, tmp_path: Path
):
    trial = varied(replace(trial, steps=6), LORA, alpha=alpha, rank=5, dropout=0.2)
    engine = engine_for(trial, replace(trial, name="beside", seed=1))
    list(run(engine))
    slot = engine.slots[trial.name]
    folder = tmp_path / "adapter"
    save_adapter(
        folder, slot.adapter.named(), slot.adapter.layers, trial.hyperparameters, str(trial.folder)
    )
    ids_BT = torch.tensor([trial.tokens.example(0)[0][:16].tolist()])
    with engine.serving([trial.name]) as (served, order), served.all_copies() as model:
        assert order == [trial.name]
        ours = model(ids_BT).logits
    with PackedCopies(engine.model).all_copies() as model:
        bare = model(ids_BT).logits
    base = load_base(ModelSpec(path=str(trial.folder), dtype="fp32"), CPU)
    theirs = PeftModel.from_pretrained(base, str(folder)).eval()
    assert not any(parameter.requires_grad for parameter in theirs.parameters())
    with torch.no_grad():
        torch.testing.assert_close(ours, theirs(ids_BT).logits, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(ours, bare, atol=1e-2)


def test_copies_are_served_in_the_order_that_serving_returns(trial: Trial):
    trials = [
        varied(replace(trial, name=f"rank {rank}", steps=2), LORA, rank=rank) for rank in (9, 4, 20)
    ]
    engine = engine_for(*trials)
    list(run(engine))
    ids_BT = torch.tensor([trial.tokens.example(0)[0][:16].tolist()])
    with engine.serving(["rank 20", "rank 9"]) as (served, order), served.all_copies() as model:
        assert sorted(order) == ["rank 20", "rank 9"]
        together = model(ids_BT.repeat(2, 1)).logits
    for name, logits in zip(order, together, strict=True):
        with engine.serving([name]) as (served, _), served.all_copies() as model:
            torch.testing.assert_close(model(ids_BT).logits[0], logits, atol=1e-6, rtol=1e-5)


def test_targets_that_the_model_lacks_are_refused_without_touching_other_trials(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
):
    trial = replace(trial, steps=3)
    alone = train(trial)
    model = fresh_model(trial.folder)
    monkeypatch.setitem(model.layers, "mlp", ModelError("space.targets: 'mlp' finds no layer"))
    engine = engine_for(trial, model=model)
    with pytest.raises(ModelError, match="finds no layer"):
        engine.prepare(replace(varied(trial, LORA, targets="mlp"), name="lost").engine_trial)
    assert list(engine.slots) == [trial.name]
    outcome = outcome_of(engine.slots[trial.name], list(run(engine)))
    assert equal(alone.adapter, outcome.adapter)


@pytest.mark.parametrize("shared", [True, False])
def test_a_base_without_position_ids_trains_with_one_example_per_row(trial: Trial, *, shared: bool):
    trial = replace(trial, steps=4, shared=False)
    model = fresh_model(trial.folder)
    expected = train(trial)
    if not shared:
        forward = model.base.forward
        model.base.forward = lambda input_ids, use_cache: forward(input_ids, use_cache=use_cache)
    assert model.shares_rows == shared
    engine = engine_for(trial, model=model)
    assert near(expected, outcome_of(engine.slots[trial.name], list(run(engine))), "adamw")


def test_tolerances_distinguish_one_trial_from_another(trial: Trial):
    one = train(trial)
    hardly = train(varied(trial, LORA, lr=LORA.lr * 1.001))
    assert distance(one.adapter, hardly.adapter) > 10 * SUMMED_ELSEWHERE["adamw"]
    assert not near(one, hardly, "adamw")
    lion = replace(trial, spec=LION_SPEC, hyperparameters=LION)
    hardly = train(varied(lion, LION, lr=LION.lr * 1.01))
    assert not near(train(lion), hardly, "lion")


def test_documents_without_a_prompt_train_too(trial: Trial):
    tokens = pack([(list(range(i, i + 16)), 0) for i in range(3, 30)])
    outcome = train(replace(trial, tokens=tokens, width=16))
    assert outcome.losses[-1] < outcome.losses[0]
    assert outcome.steps[0].position.tokens == 8 * 16
