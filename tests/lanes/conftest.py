from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lorasweep.data.shard import Shard
from lorasweep.lanes.runner import Runner
from lorasweep.spec.sweep import SweepSpec, dump_sweep, parse_sweep
from lorasweep.store.paths import SweepPaths
from lorasweep.tune.prepare import Prepared, prepare

MakeSweep = Callable[..., SweepSpec]
MakeRunner = Callable[..., Runner]


@pytest.fixture(scope="session")
def make_sweep(tiny_model: Path, pairs_file: Path) -> MakeSweep:
    """Factory of small sweeps, from the sections in which they differ."""

    def make(**sections: Any) -> SweepSpec:
        content: dict[str, Any] = {
            "model": {"path": str(tiny_model)},
            "data": {"path": str(pairs_file), "heldout_examples": 12},
            "space": {"lr": True},
            "hyperparameters": {"batch_size": 8, "rank": 4},
            "evaluate": {"source": ["base_agreement"]},
        }
        return parse_sweep(content | sections)

    return make


def open_folder(spec: SweepSpec, root: Path) -> Prepared:
    """Begin a results folder, as a driver does, and prepare the sweep."""
    root.mkdir(exist_ok=True)
    SweepPaths(root).sweep.write_text(dump_sweep(spec), encoding="utf-8")
    return prepare(spec)


def run_here(spec: SweepSpec, root: Path) -> Runner:
    """Open a runner in this process, on its CPU."""
    prepared = open_folder(spec, root)
    return Runner(prepared.spec, root, prepared.data, Shard(), torch.device("cpu"))


@pytest.fixture(scope="module")
def make_runner(make_sweep: MakeSweep, tmp_path_factory: pytest.TempPathFactory) -> MakeRunner:
    """Factory of runners, each with a results folder of its own."""

    def make(scheduler: str = "none") -> Runner:
        spec = make_sweep(train={"steps": 12}, search={"scheduler": scheduler})
        return run_here(spec, tmp_path_factory.mktemp("runner"))

    return make
