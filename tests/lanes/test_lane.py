"""A lane on real Ray, without Tune: its trials are asked directly."""

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from lorasweep.lanes.messages import Suggestion, TrialEnded, TrialProgress, from_tune, to_config
from lorasweep.spec.sweep import SweepSpec
from lorasweep.spec.trial import TrialSpec
from lorasweep.store.paths import SweepPaths
from tests.lanes.conftest import open_folder

# What Ray and transformers warn of in this process is theirs; a sweep's driver hides it, too.
pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("default")]

STEPS = 200


@dataclass
class LaneAtWork:
    """A lane of two slots, and what makes trials that ask for them."""

    spec: SweepSpec
    paths: SweepPaths
    pool: Any
    trainable: Any

    def trial(self, lr: float = 1e-2, targets: str = "all", seed: int = 0) -> TrialSpec:
        return self.spec.trial({"lr": lr, "targets": targets}, seed=seed)

    def begin(self, trial: TrialSpec) -> Any:
        """Start a trial as Tune would."""
        return self.trainable(to_config(Suggestion(trial, 0)))

    @staticmethod
    def finish(client: Any) -> TrialEnded:
        """Read all reports of a trial; the last is its end."""
        result: dict[str, Any] = client.train()
        while not result["done"]:
            result = client.train()
        report = from_tune(result)
        assert isinstance(report, TrialEnded)
        return report


@pytest.fixture(scope="module")
def lane(make_sweep, ray_address, tmp_path_factory) -> Iterator[LaneAtWork]:
    import ray
    from ray import tune

    from lorasweep.lanes.capacity import Capacity, JobResources
    from lorasweep.lanes.client import SlotClient
    from lorasweep.lanes.cluster import Cluster
    from lorasweep.lanes.messages import SweepJob
    from lorasweep.lanes.pool import LanePool

    spec = make_sweep(
        name="lane",
        space={"lr": True, "targets": True},
        hyperparameters={"batch_size": 8, "rank": 4, "dropout": 0.1},
        train={"steps": STEPS},
    )
    root = tmp_path_factory.mktemp("lane")
    prepared = open_folder(spec, root)
    ray.init(address=ray_address, log_to_driver=False, logging_level="ERROR")
    resources = JobResources(workers=1, cpus=1.0, gpus=0.0, jobs=1)
    cluster = Cluster(cpus=4.0, gpus=0.0, dashboard=None, own=False)
    pool = LanePool("lane", root, cluster, resources, Capacity(1, 2, 3), probed=False, judged=False)
    pool.start(SweepJob(prepared.spec, str(root), ray.put(prepared.data), None, 1.0), None)
    yield LaneAtWork(
        prepared.spec,
        SweepPaths(root),
        pool,
        tune.with_parameters(SlotClient, broker=pool.broker, root=str(root)),
    )
    (ended,) = pool.close(keep=False)
    assert ended.notes == ("lane 0 died and restarted; it has had at most 2 slots since",)
    assert ended.slots == 2
    assert ended.tokens > 0
    ray.shutdown()


@pytest.fixture(scope="module")
def undisturbed(lane: LaneAtWork) -> TrialEnded:
    return lane.finish(lane.begin(lane.trial()))


def comparable(end: TrialEnded) -> dict[str, Any]:
    return end.model_dump(include={"scores", "train_loss", "step", "tokens"})


def test_a_trial_reports_its_scores_once_the_base_is_measured(
    lane: LaneAtWork, undisturbed: TrialEnded
):
    assert undisturbed.status == "COMPLETE"
    assert undisturbed.step == STEPS
    assert undisturbed.scores.response_loss is not None
    measured = lane.pool.base()
    assert measured.scores.source_accuracy == 1.0
    assert measured.wall_s is None  # it was done between the steps of trials


def test_beside_other_trials_it_ends_as_alone(lane: LaneAtWork, undisturbed: TrialEnded):
    shutil.rmtree(lane.paths.trial(lane.trial().id).root)
    neighbours = [lane.begin(lane.trial(lr, "mlp", 1)) for lr in (1e-3, 3.0)]
    again = lane.begin(lane.trial())
    assert comparable(lane.finish(again)) == comparable(undisturbed)
    for neighbour in neighbours:
        assert lane.finish(neighbour).status in {"COMPLETE", "DIVERGED"}


def test_a_saved_trial_goes_on_in_another_slot_to_the_same_end(
    lane: LaneAtWork, undisturbed: TrialEnded, tmp_path: Path
):
    first = lane.begin(lane.trial())
    saved = from_tune(first.train())
    assert isinstance(saved, TrialProgress)
    assert saved.step < STEPS
    checkpoint = first.save(str(tmp_path))
    first.stop()
    shutil.rmtree(lane.paths.trial(lane.trial().id).root)

    neighbour = lane.begin(lane.trial(2e-3, "attention", 2))
    second = lane.begin(lane.trial(5e-3))  # a reused actor becomes another trial first
    assert second.reset(to_config(Suggestion(lane.trial(), 1)))
    second.restore(checkpoint)
    assert comparable(lane.finish(second)) == comparable(undisturbed)
    neighbour.stop()


def test_a_trial_that_cannot_be_admitted_fails_alone(lane: LaneAtWork, undisturbed: TrialEnded):
    broken = lane.trial(4e-3)
    state = lane.paths.trial(broken.id).state
    state.mkdir(parents=True)
    shutil.copytree(lane.paths.trial(lane.trial().id).adapter, state, dirs_exist_ok=True)
    _write_state_of_another_adapter(state)
    good, bad = lane.begin(lane.trial()), lane.begin(broken)
    with pytest.raises(Exception, match="must hold this trial's adapter"):
        lane.finish(bad)
    assert comparable(lane.finish(good)) == comparable(undisturbed)


def _write_state_of_another_adapter(folder: Path) -> None:
    import torch

    weight = torch.nn.Parameter(torch.zeros(2))
    content = {"parameters": {"other": weight}, "optimizer": {}, "position": {}, "notes": {}}
    torch.save(content, folder / "state.pt")


def test_a_stopped_trial_gives_its_slot_to_the_next(lane: LaneAtWork):
    first, second, third = (lane.begin(lane.trial(seed=10 + i)) for i in range(3))
    first.train()
    first.stop()
    assert lane.finish(third).status == "COMPLETE"
    assert lane.finish(second).status == "COMPLETE"


def _lane_processes() -> list[psutil.Process]:
    """Workers of the Ray that this process has started; another sweep may run beside the tests."""
    children = psutil.Process().children(recursive=True)
    return [p for p in children if p.is_running() and "RayTrainWorker" in " ".join(p.cmdline())]


def test_a_lane_that_is_killed_begins_again_and_its_trials_end_as_ever(
    lane: LaneAtWork, undisturbed: TrialEnded
):
    shutil.rmtree(lane.paths.trial(lane.trial().id).root)
    trial, other = lane.begin(lane.trial()), lane.begin(lane.trial(seed=20))
    trial.train()
    other.train()
    (worker,) = _lane_processes()
    os.kill(worker.pid, signal.SIGKILL)
    began = time.monotonic()
    assert comparable(lane.finish(trial)) == comparable(undisturbed)
    assert lane.finish(other).status == "COMPLETE"
    assert time.monotonic() - began < 120
    lines = (lane.paths.trial(lane.trial().id).progress).read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[-1])["step"] == STEPS
