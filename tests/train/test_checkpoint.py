from __future__ import annotations

import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lorasweep.errors import LorasweepError
from lorasweep.spec.sweep import TrainSpec
from lorasweep.store.records import Rung
from lorasweep.train.checkpoint import drop_state, load_state, save_state
from lorasweep.train.lora_slot import LoraSlot
from lorasweep.train.progress import Position, TrialNotes
from tests.train.trial import LION, LORA, Trial, copied, engine_for, equal, run

NOTES = TrialNotes(rungs=(Rung(percent=25, step=3, response_loss=1.5),), evaluate_s=0.25)


@pytest.fixture
def trial(trial: Trial) -> Trial:
    return replace(trial, steps=2)


def begun(trial: Trial) -> LoraSlot:
    return engine_for(trial).slots[trial.name]


def start(trial: Trial) -> tuple[dict[str, Tensor], torch.optim.Optimizer]:
    """Build a fresh trial's adapter and optimizer."""
    slot = begun(trial)
    return slot.adapter.named(), slot.optimizer


def trained(trial: Trial) -> LoraSlot:
    engine = engine_for(trial)
    list(run(engine))
    return engine.slots[trial.name]


@pytest.mark.parametrize("optimizer", ["adamw", "lion"])
def test_a_saved_state_is_loaded_unchanged(trial: Trial, tmp_path: Path, optimizer: Any):
    trial = replace(
        trial,
        spec=TrainSpec(optimizer=optimizer),
        hyperparameters=LORA if optimizer == "adamw" else LION,
    )
    slot, fresh = trained(trial), begun(trial)
    slot.save_state(tmp_path, NOTES)
    assert not equal(copied(slot.adapter.named()), copied(fresh.adapter.named()))

    position, notes = load_state(tmp_path, fresh.adapter.named(), fresh.optimizer)

    assert position == slot.position
    assert position.train_loss == slot.position.train_loss
    assert notes == NOTES
    assert torch.equal(fresh.adapter.weights_P, slot.adapter.weights_P)
    one = slot.optimizer.state[slot.adapter.weights_P]
    other = fresh.optimizer.state[fresh.adapter.weights_P]
    assert one.keys() == other.keys()
    assert all(
        torch.equal(torch.as_tensor(value), torch.as_tensor(other[name]))
        for name, value in one.items()
    )


def test_without_a_state_a_trial_starts_at_step_0(trial: Trial, tmp_path: Path):
    parameters, optimizer = start(trial)
    before = copied(parameters)
    assert load_state(tmp_path / "nowhere", parameters, optimizer) == (Position(), TrialNotes())
    assert equal(before, copied(parameters))


def test_a_later_state_replaces_an_earlier_one(trial: Trial, tmp_path: Path):
    parameters, optimizer = start(trial)
    for step in (1, 2):
        save_state(tmp_path, parameters, optimizer, Position(step=step), TrialNotes())
    assert load_state(tmp_path, parameters, optimizer)[0].step == 2
    assert [file.name for file in tmp_path.iterdir()] == ["state.pt"]


def test_a_half_written_state_is_ignored(trial: Trial, tmp_path: Path):
    parameters, optimizer = start(trial)
    (tmp_path / ".state.pt").write_bytes(b"PK\x03\x04 cut off")
    assert load_state(tmp_path, parameters, optimizer) == (Position(), TrialNotes())
    save_state(tmp_path, parameters, optimizer, Position(step=1), TrialNotes())
    (tmp_path / ".state.pt").write_bytes(b"PK\x03\x04 cut off")
    assert load_state(tmp_path, parameters, optimizer)[0].step == 1


# Ranks of one bucket too, whose padded vectors have the same size.
def test_a_state_without_room_names_the_room_and_leaves_the_earlier_one(
    trial: Trial, tmp_path: Path
):
    parameters, optimizer = start(trial)
    save_state(tmp_path, parameters, optimizer, Position(step=1), NOTES)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # as on a disk that is full
    try:
        with pytest.raises(LorasweepError, match=r"cannot be saved with \d+\.\d MiB free"):
            save_state(tmp_path, parameters, optimizer, Position(step=2), NOTES)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [file.name for file in tmp_path.iterdir()] == ["state.pt"]
    assert load_state(tmp_path, parameters, optimizer)[0] == Position(step=1)


@pytest.mark.parametrize("change", [{"targets": "mlp"}, {"rank": 8}, {"rank": 1}])
def test_the_state_of_another_adapter_is_refused(trial: Trial, tmp_path: Path, change):
    parameters, optimizer = start(replace(trial, hyperparameters=LORA.model_copy(update=change)))
    save_state(tmp_path, parameters, optimizer, Position(step=1), TrialNotes())
    parameters, optimizer = start(trial)
    before = copied(parameters)
    with pytest.raises(LorasweepError, match=r"must hold this trial's adapter.*delete the folder"):
        load_state(tmp_path, parameters, optimizer)
    assert equal(before, copied(parameters))


def test_a_state_can_be_read_without_running_code(trial: Trial, tmp_path: Path):
    trained(trial).save_state(tmp_path, NOTES)
    content = torch.load(tmp_path / "state.pt", weights_only=True)
    assert content.keys() == {"parameters", "optimizer", "position", "notes"}


def test_a_state_can_be_dropped_twice(trial: Trial, tmp_path: Path):
    parameters, optimizer = start(trial)
    folder = tmp_path / "state"
    save_state(folder, parameters, optimizer, Position(step=1), TrialNotes())
    drop_state(folder)
    drop_state(folder)
    assert not folder.exists()
    assert load_state(folder, parameters, optimizer) == (Position(), TrialNotes())


def test_a_state_holds_the_adapter_at_its_real_rank(trial: Trial, tmp_path: Path):
    slot = trained(trial)
    slot.save_state(tmp_path, NOTES)
    saved = torch.load(tmp_path / "state.pt", weights_only=True)["parameters"]
    assert equal(saved, copied(slot.adapter.named()))
    assert {min(value.shape) for value in saved.values()} == {trial.hyperparameters.rank}
