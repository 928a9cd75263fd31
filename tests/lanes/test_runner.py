"""What a runner does with trials at their rungs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from lorasweep.data.shard import Shard
from lorasweep.data.tokens import TrainingData
from lorasweep.lanes.messages import TrialEnded, TrialReport, rung_of
from lorasweep.lanes.runner import Runner
from lorasweep.spec.sweep import SweepSpec
from tests.lanes.conftest import MakeRunner
from tests.workers import two_workers

__all__ = ["two_workers"]

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
    reports: list[TrialReport] = []
    for step in range(1, steps + 1):
        reports += runner.step()
        if runner.paths.trial(trial.id).state.exists() and not saved:
            saved.append(step)
    rungs = [math.ceil(steps * percent / 100) for percent in runner.spec.search.rungs]
    assert saved == rungs[:1]
    *progress, end = reports
    assert isinstance(end, TrialEnded)
    passed = [rung for report in progress if (rung := rung_of(report)) is not None]
    assert [rung.step for rung in passed] == (rungs if scheduler == "asha" else [])


def finish(spec: SweepSpec, root: Path, data: TrainingData, shard: Shard) -> tuple[TrialEnded, int]:
    """Train a trial; give its end, and how many matrices of the base this worker has met."""
    runner = Runner(spec, root, data, shard, torch.device("cpu"))
    trial = spec.trial({"lr": 1e-2})
    runner.admit(runner.prepare(trial))
    reports: list[TrialReport] = []
    while trial.id in runner.engine.slots:
        reports += runner.step()
    assert isinstance(reports[-1], TrialEnded)
    return reports[-1], len(runner._spectra._known)


def test_workers_measure_a_trials_spectra_together(make_runner: MakeRunner, two_workers: Any):
    runner = make_runner()
    evaluate = runner.spec.evaluate.model_copy(update={"spectrum": True, "source": []})
    train = runner.spec.train.model_copy(update={"steps": 2, "micro_batch": 4})
    spec = runner.spec.model_copy(update={"evaluate": evaluate, "train": train})
    (one, met), (other, met_by_other) = two_workers(finish, spec, runner.paths.root, runner.data)
    assert one.status == "COMPLETE"
    matrices = one.spectrum.matrices
    assert other.spectrum.matrices == matrices
    assert len({matrix.name for matrix in matrices}) == len(matrices) == 2 * 7
    assert met == met_by_other == 7


def test_workers_wait_for_one_another_for_hours():
    from ray.train import RunConfig

    from lorasweep.lanes.capacity import JobResources
    from lorasweep.lanes.job import COLLECTIVE_TIMEOUT_S, train_job

    resources = JobResources(workers=2, cpus=1.0, gpus=0.0, jobs=1)
    job = train_job(print, resources, RunConfig(), cleanup=True)
    assert job.backend_config.timeout_s == COLLECTIVE_TIMEOUT_S > 4 * 3600


def test_steps_are_timed_until_the_number_of_slots_is_chosen(make_runner: MakeRunner):
    from lorasweep.lanes.messages import LaneConfig
    from lorasweep.lanes.planner import StepPlanner
    from lorasweep.train.probe import SlotChoice

    runner = make_runner()
    StepPlanner(LaneConfig(0, None, 4, probed=False, judged=False), runner, died=False)
    assert not runner.engine.timed
    planner = StepPlanner(LaneConfig(0, None, 4, probed=True, judged=False), runner, died=False)
    assert runner.engine.timed
    planner._settle(SlotChoice(2, {}, "chosen"))
    assert not runner.engine.timed
