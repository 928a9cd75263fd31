"""What a base is loaded with where no trial is named."""

from unittest.mock import Mock

import pytest
import torch

from lorasweep.data.shard import Shard
from lorasweep.lanes.engines import open_engine
from lorasweep.spec.sweep import parse_sweep
from lorasweep.spec.trial import LoraHyperparameters
from lorasweep.train.packed import PackedEngine


def test_a_lane_knows_the_sets_of_targets_that_its_sweep_defines():
    spec = parse_sweep({"space": {"targets": ["upper"]}, "targets": {"upper": ["up_proj"]}})
    engine = open_engine(spec, Shard(), torch.device("cpu"), None)
    assert isinstance(engine, PackedEngine)
    trial = spec.trial({"targets": "upper"})
    assert isinstance(trial.hyperparameters, LoraHyperparameters)
    layers = engine.model.adapter(trial.hyperparameters, 0).layers
    assert {layer.name.rpartition(".")[2] for layer in layers} == {"up_proj"}


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_base_is_loaded_as_some_trial_would_load_it(monkeypatch, method):
    engine = Mock()
    monkeypatch.setattr("lorasweep.train.deepspeed.DeepSpeedEngine", lambda *_: engine)
    spec = parse_sweep(
        {
            "hyperparameters": {"method": method, "batch_size": 16},
            "space": {"lr": True, "batch_size": [64, 128]},
            "train": {"micro_batch": 4},
            "resources": {"workers": 8},
            "deepspeed": {},
        }
    )
    open_engine(spec, Shard(), torch.device("cpu"), None)
    assert engine.load.call_args.args[0].batch_size == 64
    trial = spec.trial({"lr": 1e-4, "batch_size": 128})
    open_engine(spec, Shard(), torch.device("cpu"), trial)
    assert engine.load.call_args.args[0].batch_size == 128
