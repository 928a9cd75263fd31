"""What a runner does with trials at their rungs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lorasweep.data.shard import Shard
from lorasweep.spec.sweep import dump_sweep, parse_sweep
from lorasweep.store.paths import SweepPaths
from lorasweep.tune.prepare import prepare
from lorasweep.tune.runner import Runner

pytestmark = pytest.mark.filterwarnings("default")


@pytest.mark.parametrize("scheduler", ["asha", "none"])
def test_a_trial_is_saved_at_a_rung_and_measured_only_for_a_scheduler(
    tiny_model: Path, pairs_file: Path, tmp_path: Path, scheduler: str
):
    spec = parse_sweep(
        {
            "model": {"path": str(tiny_model)},
            "data": {"path": str(pairs_file), "heldout_examples": 12},
            "space": {"lr": True},
            "hyperparameters": {"batch_size": 8, "rank": 4},
            "train": {"steps": 10},
            "search": {"scheduler": scheduler},
            "evaluate": {"source": ["base_agreement"]},
        }
    )
    paths = SweepPaths(tmp_path)
    paths.sweep.write_text(dump_sweep(spec), encoding="utf-8")
    prepared = prepare(spec)
    runner = Runner(prepared.spec, tmp_path, prepared.data, Shard(), torch.device("cpu"))
    trial = spec.trial({"lr": 1e-3})
    runner.admit(runner.prepare(trial))
    saved: list[int] = []
    reports: list[dict[str, Any]] = []
    for step in range(1, 11):
        reports += runner.step()
        if paths.trial(trial.id).state.exists() and not saved:
            saved.append(step)
    first_rung = -(-10 * spec.search.rungs[0] // 100)
    assert saved == [first_rung]
    *progress, end = reports
    assert end["status"] == "COMPLETE"
    measured = [report["step"] for report in progress if "response_loss" in report]
    expected = {-(-10 * percent // 100) for percent in spec.search.rungs} - {10}
    assert set(measured) == (expected if scheduler == "asha" else set())
