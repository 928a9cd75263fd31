from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lorasweep.data.shard import Shard
from lorasweep.data.tokens import Tokens
from lorasweep.errors import LorasweepError
from lorasweep.spec.sweep import TrainSpec
from lorasweep.train.checkpoint import Position, drop_state, load_state, save_state
from tests.train.trial import LION, LORA, Trial, copied, equal, go_on, start

NOTES = {"rungs": [{"percent": 25, "step": 3, "response_loss": 1.5}], "evaluate_s": 0.25}


@pytest.fixture
def trial(tiny_model: Path, tokens: Tokens) -> Trial:
    return Trial(tiny_model, tokens, steps=2)


def _trained(trial: Trial):
    model, parameters, optimizer = start(trial)
    position = Position()
    for progress in go_on(trial, model, parameters, optimizer, Position(), Shard()):
        position = progress.position
    return parameters, optimizer, position


@pytest.mark.parametrize("optimizer", ["adamw", "lion"])
def test_what_is_saved_is_what_is_loaded(trial: Trial, tmp_path: Path, optimizer):
    trial = replace(
        trial,
        spec=TrainSpec(optimizer=optimizer),
        hyperparameters=LORA if optimizer == "adamw" else LION,
    )
    parameters, trained, position = _trained(trial)
    save_state(tmp_path, parameters, trained, position, NOTES)
    _, fresh, optimizer = start(trial)
    assert not equal(copied(parameters), copied(fresh))

    loaded, notes = load_state(tmp_path, fresh, optimizer)

    assert loaded == position
    assert loaded.train_loss == position.train_loss
    assert notes == NOTES
    assert equal(copied(parameters), copied(fresh))
    for one, other in zip(parameters.values(), fresh.values(), strict=True):
        assert trained.state[one].keys() == optimizer.state[other].keys()
        for name, value in trained.state[one].items():
            assert torch.equal(value, optimizer.state[other][name])


def test_where_nothing_is_saved_a_trial_begins(trial: Trial, tmp_path: Path):
    _, parameters, optimizer = start(trial)
    before = copied(parameters)
    assert load_state(tmp_path / "nowhere", parameters, optimizer) == (Position(), {})
    assert equal(before, copied(parameters))


def test_a_later_state_replaces_an_earlier_one(trial: Trial, tmp_path: Path):
    _, parameters, optimizer = start(trial)
    for step in (1, 2):
        save_state(tmp_path, parameters, optimizer, Position(step=step), {})
    assert load_state(tmp_path, parameters, optimizer)[0].step == 2
    assert [file.name for file in tmp_path.iterdir()] == ["state.pt"]


def test_a_half_written_state_is_ignored(trial: Trial, tmp_path: Path):
    _, parameters, optimizer = start(trial)
    (tmp_path / ".state.pt").write_bytes(b"PK\x03\x04 cut off")
    assert load_state(tmp_path, parameters, optimizer) == (Position(), {})
    save_state(tmp_path, parameters, optimizer, Position(step=1), {})
    (tmp_path / ".state.pt").write_bytes(b"PK\x03\x04 cut off")
    assert load_state(tmp_path, parameters, optimizer)[0].step == 1


@pytest.mark.parametrize("change", [{"targets": "mlp"}, {"rank": 8}, {"rank": 1}])
def test_the_state_of_another_adapter_is_refused(trial: Trial, tmp_path: Path, change):
    _, parameters, optimizer = start(replace(trial, hyperparameters=LORA.model_copy(update=change)))
    save_state(tmp_path, parameters, optimizer, Position(step=1), {})
    _, parameters, optimizer = start(trial)
    before = copied(parameters)
    with pytest.raises(LorasweepError, match=r"must hold this trial's adapter.*delete the folder"):
        load_state(tmp_path, parameters, optimizer)
    assert equal(before, copied(parameters))


def test_a_state_holds_no_code(trial: Trial, tmp_path: Path):
    parameters, optimizer, position = _trained(trial)
    save_state(tmp_path, parameters, optimizer, position, NOTES)
    content = torch.load(tmp_path / "state.pt", weights_only=True)
    assert content.keys() == {"parameters", "optimizer", "position", "notes"}


def test_dropping_a_state_is_for_good_and_may_be_repeated(trial: Trial, tmp_path: Path):
    _, parameters, optimizer = start(trial)
    folder = tmp_path / "state"
    save_state(folder, parameters, optimizer, Position(step=1), {})
    drop_state(folder)
    drop_state(folder)
    assert not folder.exists()
    assert load_state(folder, parameters, optimizer) == (Position(), {})
