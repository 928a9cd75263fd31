"""Slots that `lorasweep plan --measure` measures on this machine."""

import pytest

from lorasweep.service.display import show_slots
from lorasweep.service.slots import measure_slots
from lorasweep.spec.sweep import parse_sweep


@pytest.fixture
def sweep(tiny_model, pairs_file):
    return {
        "model": {"path": str(tiny_model)},
        "data": {"path": str(pairs_file)},
        "space": {"lr": [1e-3, 1e-2], "rank": [2, 4]},
        "hyperparameters": {"batch_size": 4},
        "train": {"steps": 8},
        "search": {"algorithm": "grid", "scheduler": "none", "confirm": 1},
        "evaluate": {"source": ["base_agreement"]},
    }


def test_slots_are_measured_where_trials_share_a_base(sweep, capsys):
    both = parse_sweep({**sweep, "methods": {"lora": {}, "full": {}}})
    (measured,) = measure_slots(both)
    assert (measured.study, measured.trials, measured.confirmations) == ("lora", 4, 1)
    assert measured.trainable > 0
    assert measured.slots >= 1
    show_slots((measured,))
    assert "lora, measured on this machine" in capsys.readouterr().out


def test_trials_that_are_jobs_of_their_own_share_nothing(sweep, capsys):
    assert measure_slots(parse_sweep({**sweep, "slots": 1})) == ()
    show_slots(())
    assert "no study's trials share a base" in " ".join(capsys.readouterr().out.split())
