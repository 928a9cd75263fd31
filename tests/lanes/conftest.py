from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lorasweep.data.shard import Shard
from lorasweep.lanes.runner import Runner
from lorasweep.spec.sweep import dump_sweep, parse_sweep
from lorasweep.store.paths import SweepPaths
from lorasweep.tune.prepare import prepare

MakeRunner = Callable[..., Runner]


@pytest.fixture(scope="module")
def make_runner(
    tiny_model: Path, pairs_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> MakeRunner:
    """Give a maker of runners, each with a results folder of its own."""

    def make(scheduler: str = "none") -> Runner:
        content: dict[str, Any] = {
            "model": {"path": str(tiny_model)},
            "data": {"path": str(pairs_file), "heldout_examples": 12},
            "space": {"lr": True},
            "hyperparameters": {"batch_size": 8, "rank": 4},
            "train": {"steps": 12},
            "search": {"scheduler": scheduler},
            "evaluate": {"source": ["base_agreement"]},
        }
        spec = parse_sweep(content)
        root = tmp_path_factory.mktemp("runner")
        SweepPaths(root).sweep.write_text(dump_sweep(spec), encoding="utf-8")
        prepared = prepare(spec)
        return Runner(prepared.spec, root, prepared.data, Shard(), torch.device("cpu"))

    return make
