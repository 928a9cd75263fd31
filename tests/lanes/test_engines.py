"""What a base is loaded with where no trial is named."""

from unittest.mock import Mock

import pytest
import torch

from lorasweep.data.shard import Shard
from lorasweep.lanes.engines import open_engine
from lorasweep.spec.sweep import parse_sweep


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
