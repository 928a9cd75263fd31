"""What runs inside the workers of a trial: load, train, measure, report."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorasweep.errors import LorasweepError, in_a_line
from lorasweep.lanes.quiet import quiet_loggers
from lorasweep.spec.sweep import SweepSpec
from lorasweep.spec.trial import TrialSpec
from lorasweep.store.paths import SweepPaths
from lorasweep.store.records import Scores

if TYPE_CHECKING:
    from lorasweep.evaluate.agreement import BaseSamples
    from lorasweep.lanes.cluster import Shape
    from lorasweep.lanes.runner import Runner

# A report waits until Ray Train's controller asks for it, which by default is every two seconds:
# with twelve reports that idled away 24 s of a trial whose training took less than one.
POLL_S = 0.2
RESTARTS = 3  # of a job whose workers are lost, with their node or without


@dataclass(frozen=True)
class SweepJob:
    """Hold what all trials of a sweep share.

    spec: the sweep, its suites resolved.
    root: the results folder, which every node must see.
    data: reference to the tokenised data in Ray's object store.
    samples: reference to the base's own samples, None where the source suite needs none.
    cpus: per worker; so many threads a worker computes with.
    """

    spec: SweepSpec
    root: str
    data: Any
    samples: Any
    cpus: float


def set_up_process(cpus: float) -> None:
    """Keep libraries quiet and give torch its share of the cores."""
    quiet_loggers()
    import torch

    if not torch.cuda.is_available():
        # DeepSpeed, which other libraries import too, would say aloud that it found no GPU.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    torch.set_num_threads(max(1, int(cpus)))


def open_runner(job: SweepJob, trial: TrialSpec | None = None) -> Runner:
    """Load base, data and tasks in a Ray Train worker, as one of its group.

    Args:
        trial: the only one to come, where DeepSpeed spreads it over the group.
    """
    set_up_process(job.cpus)
    import ray
    import ray.train.torch

    from lorasweep.data.shard import Shard
    from lorasweep.lanes.runner import Runner

    context = ray.train.get_context()
    shard = Shard(context.get_world_rank(), context.get_world_size())
    device = ray.train.torch.get_device()
    samples = None if job.samples is None else ray.get(job.samples)
    return Runner(job.spec, Path(job.root), ray.get(job.data), shard, device, samples, trial)


def measure_base(job: SweepJob, shape: Shape) -> tuple[Scores, BaseSamples | None, float]:
    """Measure the base model as a trial would, in a Ray Train job.

    Returns:
        Its scores, its own samples where a suite asks for agreement, and the seconds taken.

    Raises:
        LorasweepError: it cannot be measured, with the worker's sentence.
    """
    settle_train()
    began = time.perf_counter()
    paths = SweepPaths(Path(job.root))
    run_job(_measure_base, {"job": job}, shape, f"{job.spec.name}-base", cleaned=False)
    scores, samples = _read_base(paths.base_measured)
    return scores, samples, time.perf_counter() - began


def _measure_base(config: dict[str, Any]) -> None:
    """Measure the base in a Ray Train worker, and leave what came out in the results folder."""
    import numpy as np

    from lorasweep.evaluate.tasks import BASE_AGREEMENT

    job: SweepJob = config["job"]
    runner = open_runner(job)
    scores = runner.measure_base()
    if runner.shard.worker == 0:
        samples = runner.measurement.samples if BASE_AGREEMENT in scores.tasks else None
        arrays = {} if samples is None else dataclasses.asdict(samples)
        target = SweepPaths(Path(job.root)).base_measured
        target.parent.mkdir(parents=True, exist_ok=True)
        np.savez(target, scores=scores.model_dump_json(), **arrays)


def _read_base(file: Path) -> tuple[Scores, BaseSamples | None]:
    import numpy as np

    from lorasweep.evaluate.agreement import BaseSamples

    with np.load(file, allow_pickle=False) as content:
        arrays = {name: content[name] for name in content.files if name != "scores"}
        scores = Scores.model_validate_json(str(content["scores"]))
    return scores, BaseSamples(**arrays) if arrays else None


def run_lane(config: dict[str, Any]) -> None:
    """Serve as a worker of a lane; what that takes is imported in no other process.

    Args:
        config: `lane` (LaneConfig).
    """
    from lorasweep.lanes.lane import serve

    serve(config["lane"])


def train_and_measure(config: dict[str, Any]) -> None:
    """Run one trial in a Ray Train worker; every worker of the trial calls this.

    Args:
        config: `job` (SweepJob) and `trial` (TrialSpec).
    """
    trial: TrialSpec = config["trial"]
    runner = open_runner(config["job"], trial)
    import ray.train

    for report in runner.admit(runner.prepare(trial)):
        ray.train.report(report)
    while trial.id in runner.engine.slots:
        for report in runner.step():
            ray.train.report(report)


def settle_train() -> None:
    """Set what Ray Train reads from the environment, before it starts a job."""
    import ray
    from ray.train.v2._internal.constants import ENV_VARS_TO_PROPAGATE

    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", str(POLL_S))
    # What a stopped job held is freed by an actor of Ray Train that looks for its cluster among
    # the processes of the machine, and gives up where it finds several; so it is told which it is.
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    ENV_VARS_TO_PROPAGATE.add("RAY_ADDRESS")


def run_job(
    work: Callable[[dict[str, Any]], None],
    config: dict[str, Any],
    shape: Shape,
    name: str,
    *,
    cleaned: bool,
    callbacks: Sequence[Any] = (),
) -> None:
    """Run a Ray Train job to its end, anew when it loses a worker.

    Ray Train could begin again by itself, but would also where what the job does is at fault.

    Args:
        work: what every worker calls with `config`; it goes on from where it was, if it can.
        config: its `job` (SweepJob) says where the results are.
        name: of the job, for what Ray shows and writes.
        cleaned: see `train_job`.
        callbacks: of Ray Train.

    Raises:
        LorasweepError: what a worker found wrong, in its sentence; or workers were lost too often.
    """
    from ray.train import FailureConfig, RunConfig
    from ray.train.v2.api.exceptions import WorkerGroupError

    from lorasweep.lanes.job import train_job

    storage = SweepPaths(Path(config["job"].root)).ray / "train"
    for _ in range(RESTARTS + 1):
        run = RunConfig(
            name=f"{name}-{time.time_ns()}",
            storage_path=str(storage),
            callbacks=list(callbacks),
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=1),
        )
        try:
            train_job(work, config, shape, run, cleaned=cleaned).fit()
        except WorkerGroupError as error:
            failures = error.worker_failures.values()
            for failure in failures:
                raised = getattr(failure, "_base_exc", None)
                if isinstance(raised, LorasweepError):  # the sentence, without Ray's traceback
                    raise raised from None
            losses = [failure for failure in failures if _is_loss(failure)]
            if not losses:
                raise
        else:
            return
    raise LorasweepError(
        f"{name}: a worker was lost {RESTARTS + 1} times, the last time so: {in_a_line(losses[0])}"
    )


def _is_loss(failure: Exception) -> bool:
    """Tell whether a worker's process ended, or could not reach one that had."""
    from ray.exceptions import RayActorError

    if isinstance(getattr(failure, "health_check_failure", None), RayActorError):
        return True
    # Ray may hear of those that wait for a lost worker before it hears of the loss. Gloo raises
    # nothing more telling than RuntimeError.
    raised = getattr(failure, "_base_exc", None)
    return type(raised).__name__ == "DistBackendError" or "gloo" in str(raised)


def run_trial(config: dict[str, Any], job: SweepJob, shape: Shape) -> None:
    """Run one Tune trial as a Ray Train job of its own.

    Args:
        config: `trial`, as plain values, and `number`.
        job: what all trials share.
    """
    from ray.tune.integration.ray_train import TuneReportCallback

    settle_train()
    trial = TrialSpec.model_validate(config["trial"])
    run_job(
        train_and_measure,
        {"job": job, "trial": trial},
        shape,
        f"{job.spec.name}-{trial.id}",
        cleaned=True,  # Tune kills what it stops early
        callbacks=[TuneReportCallback()],
    )
