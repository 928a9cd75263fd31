"""A Ray Train job that loses a worker begins again; one that is at fault itself does not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from ray.exceptions import ActorDiedError
from ray.train.v2._internal.exceptions import (
    UserExceptionWithTraceback,
    WorkerHealthCheckFailedError,
)
from ray.train.v2.api.exceptions import WorkerGroupError

from lorasweep.errors import LorasweepError, OutOfMemoryError
from lorasweep.lanes.capacity import JobResources
from lorasweep.lanes.job import RESTARTS, run_job
from lorasweep.lanes.messages import SweepJob
from lorasweep.spec.sweep import SweepSpec
from lorasweep.spec.trial import TrialSpec
from lorasweep.store.paths import SweepPaths
from tests.lanes.conftest import MakeSweep, open_folder

TWO_WORKERS = JobResources(workers=2, cpus=1.0, gpus=0.0, jobs=1)
LOST = WorkerHealthCheckFailedError("A worker health check failed.", ActorDiedError())
GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:538] Connection closed by peer"


def raised(error: Exception) -> Exception:
    """Wrap an exception of a worker as Ray Train does."""
    told: Exception = UserExceptionWithTraceback(error, f"{type(error).__name__}: {error}")
    return told


@pytest.fixture
def train_job(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Mock of every Ray Train job."""
    stand_in = Mock()
    monkeypatch.setattr("lorasweep.lanes.job.train_job", stand_in)
    return stand_in


def run(train_job: Mock, *failing: dict[int, Exception]) -> None:
    """Run a job whose first attempts fail so."""
    errors = [WorkerGroupError("text", failures) for failures in failing]
    train_job.return_value.fit.side_effect = [*errors, None]
    run_job(print, TWO_WORKERS, "trial", Path("results"), cleanup=True)


@pytest.mark.parametrize(
    "failures", [{1: LOST}, {0: raised(RuntimeError(GLOO))}, {0: raised(ValueError("x")), 1: LOST}]
)
def test_a_job_that_loses_a_worker_begins_again(train_job, failures):
    run(train_job, failures, failures)
    assert train_job.call_count == 3
    # Ray Train would take up what an earlier run of the same name wrote.
    assert len({call.args[2].name for call in train_job.call_args_list}) == 3


def test_a_job_that_loses_a_worker_each_time_ends_in_one_sentence(train_job):
    with pytest.raises(LorasweepError, match=f"trial: a worker was lost {RESTARTS + 1} times"):
        run(train_job, *[{1: LOST}] * (RESTARTS + 1))
    assert train_job.call_count == RESTARTS + 1


@pytest.mark.parametrize("error", [OutOfMemoryError("lower it"), LorasweepError("restore it")])
def test_what_a_worker_finds_wrong_is_said_at_once(train_job, error):
    with pytest.raises(type(error), match=str(error)):
        run(train_job, {0: raised(error), 1: LOST})
    assert train_job.call_count == 1


def test_what_is_a_mistake_is_not_tried_again(train_job):
    with pytest.raises(WorkerGroupError):
        run(train_job, {0: raised(KeyError("x"))})
    assert train_job.call_count == 1


@pytest.fixture(scope="module")
def spec(make_sweep: MakeSweep) -> SweepSpec:
    return make_sweep(
        name="lost",
        space={"lr": [1e-3]},
        hyperparameters={"method": "full", "batch_size": 8},
        train={"steps": 60},
        search={"algorithm": "grid", "scheduler": "none"},
        resources={"workers": 2},
    )


@pytest.fixture(scope="module")
def ray_here(ray_address: str) -> Iterator[None]:
    import ray

    from lorasweep.lanes.job import configure_ray_train

    ray.init(address=ray_address, log_to_driver=False, logging_level="ERROR")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", ray_address)  # is put back, whatever `configure_ray_train` sets
        configure_ray_train()
        yield
    ray.shutdown()


def keeper(file: Path) -> Any:
    """Callback that keeps a trial's last report; its class is local, and so pickled by value."""
    from ray.train import UserCallback

    class Keeper(UserCallback):  # type: ignore[misc]
        def after_report(self, run_context: Any, metrics: Any, checkpoint: Any) -> None:
            del run_context, checkpoint
            file.write_text(metrics[0]["report"].model_dump_json(), encoding="utf-8")

    return Keeper()


def mortal(state: Path, death: Path) -> Callable[[SweepJob, TrialSpec], None]:
    """Work of a trial whose second worker is killed once its state has been saved."""

    def work(job: SweepJob, trial: TrialSpec) -> None:
        import os
        import signal
        import threading
        import time

        import ray.train

        from lorasweep.lanes.worker import train_and_measure

        def die() -> None:
            while not (state / "state.json").exists():
                time.sleep(0.005)
            death.touch()
            os.kill(os.getpid(), signal.SIGKILL)

        if ray.train.get_context().get_world_rank() == 1 and not death.exists():
            threading.Thread(target=die, daemon=True).start()
        train_and_measure(job, trial)

    return work


@pytest.mark.ray
@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("ray_here")
def test_a_trial_under_deepspeed_outlives_a_lost_worker_and_ends_as_ever(spec, tmp_path):
    import ray

    from lorasweep.lanes.worker import train_and_measure
    from lorasweep.tune.prepare import prepare

    prepared = prepare(spec)
    data, trial = ray.put(prepared.data), prepared.spec.trial({"lr": 1e-3})
    ends, weights = [], []
    for name in ("undisturbed", "disturbed"):
        paths = SweepPaths(tmp_path / name)
        open_folder(spec, paths.root)
        killed = mortal(paths.trial(trial.id).state, tmp_path / "death")
        work = killed if name == "disturbed" else train_and_measure
        job = SweepJob(prepared.spec, str(paths.root), data, None, 1.0)
        report = tmp_path / f"{name}.json"
        callbacks = [keeper(report)]
        run_job(
            partial(work, job, trial),
            TWO_WORKERS,
            name,
            paths.root,
            cleanup=False,
            callbacks=callbacks,
        )
        ends.append(json.loads(report.read_text(encoding="utf-8")))
        weights.append((paths.trial(trial.id).model / "model.safetensors").read_bytes())
    assert (tmp_path / "death").exists()
    assert [end["status"] for end in ends] == ["COMPLETE", "COMPLETE"]
    for measured in ("scores", "train_loss", "tokens"):
        assert ends[0][measured] == ends[1][measured]
    assert weights[0] == weights[1]
