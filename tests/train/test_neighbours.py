"""A trial's outcome never depends on the trials beside it: packed equals alone."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lorasweep.data.batches import MIN_ROWS
from lorasweep.data.shard import Shard
from lorasweep.errors import OutOfMemoryError
from lorasweep.model import packed as packed_layers
from lorasweep.model.adapter import Stack, layer_tensors
from lorasweep.model.base import load_base
from lorasweep.model.packed import PackedModel
from lorasweep.spec.sweep import ModelSpec, TrainSpec
from lorasweep.spec.targets import TARGET_SETS, UNGATED, OwnSets
from lorasweep.spec.trial import LoraHyperparameters
from lorasweep.train.lora_slot import LoraSlot
from lorasweep.train.packed import PackedEngine
from lorasweep.train.progress import TrialNotes
from tests.examples import examples, pack
from tests.train.trial import (
    CPU,
    Outcome,
    Trial,
    copied,
    distance,
    engine_for,
    equal,
    fresh_model,
    going_on,
    near,
    outcome_of,
    run,
    same,
    train,
    train_together,
)


def lora(**fields: Any) -> LoraHyperparameters:
    return LoraHyperparameters(**{"lr": 1e-2, "rank": 4, "batch_size": 8, **fields})


@pytest.fixture
def mixed(trial: Trial) -> list[Trial]:
    """Six trials that have hardly anything in common but their base."""
    trial = replace(trial, width=48)
    spec = TrainSpec(micro_batch=2)
    return [
        replace(trial, name="plain", steps=6, hyperparameters=lora(weight_decay=0.1)),
        replace(  # of the first one's shape, and stacked with it
            trial,
            name="dropping",
            steps=5,
            seed=1,
            hyperparameters=lora(rank=7, lr=3e-3, alpha=16, dropout=0.3, batch_size=4),
        ),
        replace(
            trial,
            name="unclipped",
            steps=4,
            seed=2,
            spec=TrainSpec(micro_batch=4, schedule="constant", clip=None),
            hyperparameters=lora(rank=12, targets="mlp", alpha="rslora:8", warmup=0.5),
        ),
        replace(
            trial,
            name="lion",
            steps=3,
            seed=3,
            spec=TrainSpec(micro_batch=8, optimizer="lion", clip=0.05),
            hyperparameters=lora(rank=1, targets="attention", lr=1e-3, weight_decay=0.01),
        ),
        replace(
            trial,
            name="hasty",
            steps=9,
            spec=TrainSpec(micro_batch=1, schedule="trapezoidal", betas=(0.8, 0.95)),
            hyperparameters=lora(rank=8, lr=1e-4, batch_size=2, dropout=0.1, alpha="1r"),
        ),
        replace(
            trial,
            name="twin",
            steps=6,
            spec=spec.model_copy(update={"clip": 0.01}),
            hyperparameters=lora(lr=1e-3, weight_decay=0.5),
        ),
    ]


@pytest.fixture
def alone(mixed: list[Trial]) -> list[Outcome]:
    return [train(trial) for trial in mixed]


def assert_same(trials: list[Trial], expected: list[Outcome], found: list[Outcome]) -> None:
    for trial, one, other in zip(trials, expected, found, strict=True):
        assert same(one, other, trial.spec.optimizer), trial.name


def outcomes(engine: PackedEngine, trials: list[Trial], steps: list[Any]) -> list[Outcome]:
    return [outcome_of(engine.slots[trial.name], steps) for trial in trials]


def test_packed_trials_end_as_each_does_alone(mixed: list[Trial], alone: list[Outcome]):
    assert_same(mixed, alone, train_together(mixed))
    # In another order of admission, too.
    back = mixed[::-1]
    assert_same(back, alone[::-1], train_together(back))
    assert distance(alone[0].adapter, alone[5].adapter) > 0.01  # they are not all one


def test_sets_of_targets_of_ones_own_end_as_each_does_alone(mixed: list[Trial]):
    own: OwnSets = {"upper": ("up_proj", "v_proj"), "last": r"layers\.1\.", "qvo": "[qvo]_proj"}
    sets = ["upper", "all", "last", "upper", "qv", "qvo"]
    trials = [
        replace(trial, hyperparameters=trial.hyperparameters.model_copy(update={"targets": name}))
        for trial, name in zip(mixed, sets, strict=False)
    ]
    assert len(trials) == 6
    base = load_base(ModelSpec(path=str(mixed[0].folder)), CPU)
    model = PackedModel(base, CPU, own)
    expected = [train(trial, model=model) for trial in trials]
    assert_same(trials, expected, train_together(trials, model=model))
    counts = [len(outcome.adapter) for outcome in expected]
    assert counts == [2 * 2 * n for n in (2, 7, 3.5, 2, 2, 3)]


def test_the_plain_loop_ends_the_same(mixed: list[Trial], alone: list[Outcome]):
    for trial, one, other in zip(mixed, alone, train_together(mixed, one_by_one=True), strict=True):
        assert equal(one.adapter, other.adapter), trial.name
        assert equal(one.moments, other.moments)
        assert one.losses == other.losses


def test_equal_shares_of_the_rows_end_the_same_up_to_rounding(
    mixed: list[Trial], alone: list[Outcome]
):
    for trial, one, other in zip(mixed, alone, train_together(mixed, level=True), strict=True):
        assert near(one, other, trial.spec.optimizer), trial.name


def test_on_a_bf16_base_packed_trials_end_close_to_each_alone(
    mixed: list[Trial],
):
    half = [replace(trial, dtype="bf16") for trial in mixed]
    for trial, other in zip(half, train_together(half), strict=True):
        one = train(trial)
        assert one.losses == pytest.approx(other.losses, rel=1e-3), trial.name
        assert distance(one.adapter, other.adapter) < 0.05, trial.name


settings_of_a_trial = st.fixed_dictionaries(
    {
        "lr": st.sampled_from([1e-4, 1e-3, 1e-2]),
        "rank": st.sampled_from([1, 3, 8, 9, 16, 20]),
        "targets": st.sampled_from((*TARGET_SETS, UNGATED)),
        "alpha": st.sampled_from(["2r", "1r", 16.0, "rslora:8"]),
        "dropout": st.sampled_from([0.0, 0.0, 0.1, 0.5]),
        "weight_decay": st.sampled_from([0.0, 0.1]),
        "warmup": st.sampled_from([0.0, 0.5]),
        "batch_size": st.sampled_from([2, 4, 8]),
    }
)
specs = st.builds(
    TrainSpec,
    micro_batch=st.sampled_from([1, 2]),
    optimizer=st.sampled_from(["adamw", "lion"]),
    schedule=st.sampled_from(["cosine", "constant", "trapezoidal"]),
    clip=st.sampled_from([None, 0.1, 1.0]),
)


@settings(max_examples=15)
@given(
    st.lists(
        st.tuples(settings_of_a_trial, specs, st.integers(0, 3), st.integers(1, 3)),
        min_size=2,
        max_size=5,
    ),
    st.sampled_from([None, 48, 96]),
)
def test_any_mix_of_trials_ends_as_each_does_alone(tiny_model: Path, mix, width):
    tokens = examples(tiny_model)
    trials = [
        Trial(
            tiny_model,
            tokens,
            spec,
            LoraHyperparameters(**fields),
            steps=steps,
            seed=seed,
            width=width,
            name=str(number),
        )
        for number, (fields, spec, seed, steps) in enumerate(mix)
    ]
    assert_same(trials, [train(trial) for trial in trials], train_together(trials))


@pytest.mark.parametrize("rank", [500, 600])
def test_a_neighbour_with_dropout_changes_nothing_at_ranks_that_kernels_sum_in_blocks(
    trial: Trial, rank: int
):
    trial = replace(trial, steps=2, hyperparameters=lora(rank=rank, alpha=8))
    dropping = lora(rank=rank, alpha=8, dropout=0.5)
    trials = [
        replace(trial, name="before", hyperparameters=dropping),
        replace(trial, name="between"),
        replace(trial, name="after", hyperparameters=dropping, seed=1),
    ]
    assert_same(trials, [train(trial) for trial in trials], train_together(trials))


def test_full_rows_train_the_same_beside_padded_rows(trial: Trial):
    """Rows with one example each may take another path through attention."""
    documents = pack([(list(range(3 + i, 35 + i)), 0) for i in range(20)])
    full = replace(trial, name="full", tokens=documents, width=32, steps=3)
    assert int(next(full.batches.for_worker(0, Shard())).positions_BT.diff(dim=1).min()) == 1
    short = pack([(list(range(50 + i, 60 + i)), 3) for i in range(20)])
    trials = [full, replace(trial, name="short", tokens=short, width=32, steps=3)]
    assert_same(trials, [train(trial) for trial in trials], train_together(trials))


def test_very_short_texts_train_the_same_packed(trial: Trial):
    few = pack([([5 + i, 9 + i, 30 + i][: 2 + i % 2], 1) for i in range(20)])
    trial = replace(
        trial, tokens=few, spec=TrainSpec(micro_batch=1), hyperparameters=lora(batch_size=1)
    )
    assert next(trial.batches.for_worker(0, Shard())).ids_BT.numel() >= MIN_ROWS
    trials = [replace(trial, name=str(seed), seed=seed, steps=3) for seed in range(4)]
    assert_same(trials, [train(trial) for trial in trials], train_together(trials))


@pytest.mark.parametrize("what", ["gradient", "weights"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_trial_that_is_not_finite_ends_alone(
    mixed: list[Trial], alone: list[Outcome], what: str, value: float
):
    engine = engine_for(*mixed)
    lost = engine.slots["twin"]
    steps = []
    while lost.position.step < 2:
        steps += engine.step()
    engine.step()  # the third step's first micro-batch
    before = copied(lost.adapter.named())
    if what == "gradient":
        lost.adapter.gradients_P[3] = value
    else:
        lost.adapter.weights_P[3] = value
    steps += run(engine)
    assert lost.diverged is not None
    assert lost.position.step == 2
    own = [progress for progress in steps if progress.trial == "twin"]
    assert [progress.diverged is None for progress in own] == [True, True, False]
    if what == "gradient":
        assert lost.diverged == "the gradient is not finite"
        assert equal(before, copied(lost.adapter.named()))
    found = outcomes(engine, mixed, steps)
    assert_same(mixed[:-1], alone[:-1], found[:-1])


def test_a_diverged_trial_waits_in_its_slot_and_can_be_retired(
    mixed: list[Trial], alone: list[Outcome]
):
    engine = engine_for(*mixed)
    engine.slots["plain"].adapter.weights_P.fill_(math.nan)
    steps = []
    while engine.slots["plain"].diverged is None:
        steps += engine.step()
    for _ in range(3):
        steps += engine.step()
    engine.retire("plain")
    steps += run(engine)
    assert_same(mixed[1:], alone[1:], outcomes(engine, mixed[1:], steps))


def still(slot: LoraSlot) -> list[Tensor]:
    """Copy everything of a slot that training changes."""
    state = slot.optimizer.state.get(slot.adapter.weights_P, {})
    return [
        slot.adapter.weights_P.clone(),
        slot.adapter.gradients_P.clone(),
        *(torch.as_tensor(value).clone() for value in state.values()),
        torch.tensor([slot.position.step, slot.micro_batches_done, slot.position.tokens]),
    ]


def test_a_resting_trial_does_not_move_and_continues_where_it_was(
    mixed: list[Trial], alone: list[Outcome]
):
    engine = engine_for(*mixed)
    steps = []
    resting = ["plain", "lion", "hasty"]
    for _ in range(5):  # into the middle of steps, with momentum and decay at work
        steps += engine.step()
    before = [still(engine.slots[name]) for name in resting]
    assert engine.slots["plain"].micro_batches_done == 1
    for _ in range(4):
        steps += engine.step(resting)
    for name, kept in zip(resting, before, strict=True):
        for one, other in zip(kept, still(engine.slots[name]), strict=True):
            assert torch.equal(one, other), name
    steps += run(engine)
    assert_same(mixed, alone, outcomes(engine, mixed, steps))


@pytest.mark.parametrize("rests", range(3))
@pytest.mark.parametrize("level", [False, True])
def test_trials_of_a_stack_keep_their_own_weights_while_one_rests(
    trial: Trial, rests: int, *, level: bool
):
    trial = replace(trial, steps=3, shared=False)  # so that all have equally many rows
    trials = [replace(trial, name=str(seed), seed=seed) for seed in range(3)]
    engine = engine_for(*trials, level=level)
    steps = []
    for _ in range(6):
        steps += engine.step([str(rests)])
    steps += run(engine)
    assert_same(trials, [train(trial) for trial in trials], outcomes(engine, trials, steps))


def test_a_step_in_which_all_rest_does_nothing(mixed: list[Trial]):
    engine = engine_for(*mixed)
    before = [still(slot) for slot in engine.slots.values()]
    assert engine.step(list(engine.slots)) == []
    assert (engine.tokens, engine.seconds) == (0, 0.0)
    for kept, slot in zip(before, engine.slots.values(), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(kept, still(slot), strict=True))


def test_a_trial_that_has_ended_does_not_move(mixed: list[Trial], alone: list[Outcome]):
    engine = engine_for(*mixed)
    slot = engine.slots["lion"]
    while slot.position.step < slot.trial.steps:
        engine.step()
    before = still(slot)
    list(run(engine))
    assert all(torch.equal(a, b) for a, b in zip(before, still(slot), strict=True))
    assert equal(copied(slot.adapter.named()), alone[3].adapter)


def test_trials_come_and_go_between_any_two_steps_of_the_others(
    mixed: list[Trial], alone: list[Outcome]
):
    first, *others = mixed
    engine = engine_for(first)
    steps = []
    for trial in others:
        steps += engine.step()
        engine.admit(engine.prepare(trial.engine_trial))
    for name in ("lion", "twin", "plain"):
        steps += engine.step()
        slot = engine.retire(name)  # a pause in the middle of a step
        assert name not in engine.slots
        before = still(slot)
        steps += engine.step()
        assert all(torch.equal(a, b) for a, b in zip(before, still(slot), strict=True))
        engine.admit(slot)
    steps += run(engine)
    assert_same(mixed, alone, outcomes(engine, mixed, steps))


@pytest.mark.parametrize("at", range(5))
def test_a_retired_trial_does_not_change_the_others(trial: Trial, at: int):
    trial = replace(trial, steps=2)
    stays = replace(trial, name="stays", hyperparameters=lora(dropout=0.2))
    leaves = replace(trial, name="leaves", seed=1)
    engine = engine_for(leaves, stays)
    steps = []
    for _ in range(at):
        steps += engine.step()
    engine.retire("leaves")
    steps += run(engine)
    assert_same([stays], [train(stays)], outcomes(engine, [stays], steps))


def test_a_reused_slot_starts_fresh(mixed: list[Trial], alone: list[Outcome]):
    engine = engine_for(mixed[0], mixed[5])
    for _ in range(6):
        engine.step()
    engine.retire("plain")  # in the middle of a step, with moments and half a gradient
    again = replace(mixed[1], name="plain")  # of the same shape, under the same name
    engine.admit(engine.prepare(again.engine_trial))
    steps = [
        replace(progress, trial="dropping" if progress.trial == "plain" else progress.trial)
        for progress in run(engine)
    ]
    slot = engine.slots["plain"]
    state = slot.optimizer.state[slot.adapter.weights_P]
    assert float(state["step"]) == slot.position.step == again.steps
    found = Outcome(
        [progress for progress in steps if progress.trial == "dropping"],
        copied(slot.adapter.named()),
        {name: torch.as_tensor(value).clone() for name, value in state.items()},
    )
    assert_same([mixed[1]], [alone[1]], [found])


def test_a_saved_trial_resumes_beside_any_others(
    mixed: list[Trial], alone: list[Outcome], tmp_path: Path
):
    engine = engine_for(*mixed[:4])
    steps = []
    for _ in range(5):  # in the middle of steps: what is accumulated is done again
        steps += engine.step()
    for trial in mixed[:4]:
        engine.slots[trial.name].save_state(tmp_path / trial.name, TrialNotes(evaluate_s=1.0))
    engine = engine_for(*mixed[4:], model=fresh_model(mixed[0].folder))
    steps += engine.step()
    for trial in mixed[:4]:
        slot = engine.prepare(trial.engine_trial, tmp_path / trial.name)
        assert slot.notes == TrialNotes(evaluate_s=1.0)
        engine.admit(slot)
        steps += engine.step()
    steps += run(engine)
    assert_same(mixed, alone, outcomes(engine, mixed, steps))


def test_a_saved_state_contains_nothing_of_the_neighbours(mixed: list[Trial], tmp_path: Path):
    sizes: list[int] = []
    for company in ([mixed[0]], [mixed[0], mixed[1], mixed[5]]):
        engine = engine_for(*company)
        for _ in range(5):
            engine.step()
        engine.slots["plain"].save_state(tmp_path / str(len(sizes)), TrialNotes())
        sizes.append((tmp_path / str(len(sizes)) / "state.pt").stat().st_size)
    assert sizes[0] == pytest.approx(sizes[1], abs=200)


def padding(slot: LoraSlot, flat_P: Tensor) -> Tensor:
    """Collect the padding between an adapter's rank and its bucket, of weights or gradients."""
    parts = []
    rank = slot.adapter.hyperparameters.rank
    for _, (a_RI, b_OR) in layer_tensors(flat_P, slot.adapter.layers, slot.adapter.padded):
        parts += [a_RI[rank:].flatten(), b_OR[:, rank:].flatten()]
    return torch.cat(parts)


@pytest.mark.parametrize("optimizer", ["adamw", "lion"])
def test_padding_stays_zero_in_weights_gradients_and_moments(trial: Trial, optimizer):
    spec = TrainSpec(micro_batch=4, optimizer=optimizer, clip=0.1)
    trials = [
        replace(
            trial,
            name=str(rank),
            steps=4,
            spec=spec,
            hyperparameters=lora(rank=rank, weight_decay=0.5, dropout=dropout),
        )
        for rank, dropout in ((1, 0.0), (5, 0.3), (8, 0.0), (11, 0.2))
    ]
    engine = engine_for(*trials)
    while going_on(engine):
        engine.step()
        for slot in engine.slots.values():
            state = slot.optimizer.state.get(slot.adapter.weights_P, {})
            moments = [value for value in state.values() if value.ndim]
            assert len(moments) == (slot.position.step > 0) * {"adamw": 2, "lion": 1}[optimizer]
            for flat_P in (slot.adapter.weights_P, slot.adapter.gradients_P, *moments):
                assert not padding(slot, flat_P).any()
    for slot in engine.slots.values():
        assert (len(padding(slot, slot.adapter.weights_P)) == 0) == (
            slot.adapter.hyperparameters.rank == 8
        )


def test_every_matrix_of_every_slot_moves(mixed: list[Trial]):
    engine = engine_for(*mixed)
    begun = {name: copied(slot.adapter.named()) for name, slot in engine.slots.items()}
    list(run(engine))
    for name, slot in engine.slots.items():
        assert len(begun[name]) == 2 * len(slot.adapter.layers)
        for matrix, value in slot.adapter.named().items():
            assert not torch.equal(begun[name][matrix], value), (name, matrix)
            moved = (begun[name][matrix] - value).abs()
            assert moved.amax(dim=0).gt(0).all(), (name, matrix)


def test_every_slot_counts_its_own_steps(mixed: list[Trial]):
    engine = engine_for(*mixed)
    while going_on(engine):
        engine.step()
        for slot in engine.slots.values():
            state = slot.optimizer.state.get(slot.adapter.weights_P, {})
            if "step" in state:
                assert float(state["step"]) == slot.position.step
    assert {slot.position.step for slot in engine.slots.values()} == {3, 4, 5, 6, 9}


def test_every_slot_is_clipped_by_its_own_norm(trial: Trial):
    calm = replace(trial, name="calm", steps=3, spec=TrainSpec(micro_batch=8, clip=1e9))
    wild = replace(calm, name="wild", hyperparameters=lora(alpha=1e4), spec=calm.spec)
    strict = replace(calm, name="strict", spec=TrainSpec(micro_batch=8, clip=1e-3))
    trials = [wild, calm, strict]
    found = train_together(trials)
    assert_same(trials, [train(trial) for trial in trials], found)
    norms = [outcome.steps[0].grad_norm for outcome in found]
    assert norms[0] > 100 * norms[1]
    assert norms[1] == norms[2] > 1e-3  # told as it was before clipping


def test_each_trial_is_charged_its_share_of_the_seconds_of_a_step(mixed: list[Trial]):
    engine = engine_for(*mixed)
    seconds, tokens = 0.0, 0
    while going_on(engine):
        engine.step()
        seconds += engine.seconds
        tokens += engine.tokens
    total = sum(slot.position.train_s for slot in engine.slots.values())
    assert tokens == sum(slot.position.tokens for slot in engine.slots.values())
    assert 0.8 * seconds < total <= seconds


class _Failing:
    """A function that runs out of memory at some of its calls."""

    def __init__(self, function: Any, error: Exception, *calls: int) -> None:
        self.function, self.error, self.calls, self.count = function, error, calls, 0

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.count += 1
        if self.count in self.calls:
            raise self.error
        return self.function(*arguments, **named)


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_running_out_of_memory_moves_no_trial(
    mixed: list[Trial], alone: list[Outcome], error: Exception, *, one_by_one: bool
):
    model = fresh_model(mixed[0].folder)
    assert model.shares_rows
    engine = engine_for(*mixed, model=model, one_by_one=one_by_one)
    model.base.forward = _Failing(model.base.forward, error, 3, 9)
    steps: list[Any] = []
    refused = 0
    while going_on(engine):
        before = {
            name: (still(slot)[0], slot.position)
            for name, slot in engine.slots.items()
            if slot.position.step < slot.trial.steps
        }
        refusal = None
        try:
            steps += engine.step()
        except OutOfMemoryError as caught:
            refusal = str(caught)
        if refusal is None:
            continue
        refused += 1
        assert "trials at a time do not fit into the memory of cpu" in refusal
        assert "\n" not in refusal
        for name, (weights_P, position) in before.items():
            slot = engine.slots[name]
            assert torch.equal(slot.adapter.weights_P, weights_P)
            assert slot.position == position
            assert (slot.micro_batches_done, slot.tokens, float(slot.loss)) == (0, 0, 0.0)
            assert not slot.adapter.gradients_P.any()
    assert refused == 2
    assert_same(mixed, alone, outcomes(engine, mixed, steps))


def test_running_out_of_memory_in_the_backward_pass_moves_no_trial(
    mixed: list[Trial], alone: list[Outcome], monkeypatch: pytest.MonkeyPatch
):
    backward = packed_layers._AddAdapters.backward
    failing = _Failing(backward, torch.OutOfMemoryError("CUDA out of memory"), 20)
    monkeypatch.setattr(packed_layers._AddAdapters, "backward", staticmethod(failing))
    engine = engine_for(*mixed)
    steps = engine.step()
    with pytest.raises(OutOfMemoryError):
        engine.step()
    assert not any(slot.adapter.gradients_P.any() for slot in engine.slots.values())
    steps += run(engine)
    assert_same(mixed, alone, outcomes(engine, mixed, steps))


def test_fewer_trials_at_a_time_train_on_after_running_out_of_memory(
    mixed: list[Trial], alone: list[Outcome]
):
    model = fresh_model(mixed[0].folder)
    assert model.shares_rows
    engine = engine_for(*mixed, model=model)
    model.base.forward = _Failing(
        model.base.forward, torch.OutOfMemoryError("CUDA out of memory"), 2
    )
    steps = engine.step()
    with pytest.raises(OutOfMemoryError, match="6 trials at a time"):
        engine.step()
    waiting = [engine.retire(trial.name) for trial in mixed[3:]]
    steps += run(engine)
    for slot in waiting:
        engine.admit(slot)
    steps += run(engine)
    assert_same(mixed, alone, outcomes(engine, mixed, steps))


def test_an_adapter_that_does_not_fit_into_memory_does_not_change_the_others(
    mixed: list[Trial], alone: list[Outcome], monkeypatch: pytest.MonkeyPatch
):
    engine = engine_for(*mixed)
    late = engine.retire(mixed[-1].name)
    steps = engine.step()
    failing = _Failing(Stack, torch.OutOfMemoryError("CUDA out of memory"), 2)
    monkeypatch.setattr(packed_layers, "Stack", failing)
    with pytest.raises(OutOfMemoryError, match="6 adapters do not fit"):
        engine.admit(late)
    steps += run(engine)
    engine.admit(late)
    steps += run(engine)
    assert_same(mixed, alone, outcomes(engine, mixed, steps))


def test_errors_other_than_out_of_memory_pass_unchanged(trial: Trial):
    model = fresh_model(trial.folder)
    engine = engine_for(trial, model=model)
    model.base.forward = _Failing(model.base.forward, RuntimeError("a mistake"), 1)
    with pytest.raises(RuntimeError, match="a mistake"):
        engine.step()
