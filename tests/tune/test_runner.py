"""What a runner does with trials at their rungs."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.tune.conftest import MakeRunner

pytestmark = pytest.mark.filterwarnings("default")


@pytest.mark.parametrize("scheduler", ["asha", "none"])
def test_a_trial_is_saved_at_a_rung_and_measured_only_for_a_scheduler(
    make_runner: MakeRunner, scheduler: str
):
    runner = make_runner(scheduler)
    steps = runner.spec.train.steps
    assert steps is not None
    trial = runner.spec.trial({"lr": 1e-3})
    runner.admit(runner.prepare(trial))
    saved: list[int] = []
    reports: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        reports += runner.step()
        if runner.paths.trial(trial.id).state.exists() and not saved:
            saved.append(step)
    rungs = [math.ceil(steps * percent / 100) for percent in runner.spec.search.rungs]
    assert saved == rungs[:1]
    *progress, end = reports
    assert end["status"] == "COMPLETE"
    measured = [report["step"] for report in progress if "response_loss" in report]
    assert measured == (rungs if scheduler == "asha" else [])
