"""Ray Train jobs that start no more processes than they need, and start again after a loss.

On a small machine start-up is bound by the CPU seconds of the processes: over a second for each
that imports Ray's libraries, and another for torch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayActorError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2._internal.constants import ENV_VARS_TO_PROPAGATE
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.train.v2.api.exceptions import WorkerGroupError

from lorasweep.errors import LorasweepError, in_a_line
from lorasweep.lanes.capacity import JobResources
from lorasweep.lanes.messages import MeasuredBase, Suggestion, SweepJob, from_config
from lorasweep.lanes.worker import load_base, measure_and_save_base, train_and_measure
from lorasweep.store.paths import SweepPaths

if TYPE_CHECKING:
    from lorasweep.evaluate.agreement import BaseSamples

# While one worker computes spectra or runs generated programs, the others wait for it, possibly for
# hours. Ray notices a worker that died, so the wait itself needs no tight limit.
COLLECTIVE_TIMEOUT_S = 24 * 3600
# Ray Train's controller polls the workers for reports, by default every two seconds: twelve reports
# idled away 24 s of a trial whose training took less than one.
POLL_S = 0.2
RESTARTS = 3  # of a job that lost workers


def configure_ray_train() -> None:
    """Set the environment variables that Ray Train reads before it starts a job."""
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", str(POLL_S))
    # The resources of a stopped job are freed by an actor of Ray Train that looks for its cluster
    # among the processes of the machine, and gives up if it finds several; so name the cluster.
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    ENV_VARS_TO_PROPAGATE.add("RAY_ADDRESS")


def train_job(
    work: Callable[[], None],
    resources: JobResources,
    run_config: RunConfig,
    *,
    cleanup: bool,
) -> DataParallelTrainer:
    """Put together a job whose workers all call `work`; its `fit` runs it.

    Args:
        work: what every worker calls; pickled, and so best a partial of a function in `worker.py`.
        cleanup: whether an actor frees the job's resources after its controller was killed;
            unnecessary if the cluster ends with the job.
    """
    scaling = ScalingConfig(
        num_workers=resources.workers,
        use_gpu=resources.gpus > 0,
        resources_per_worker=resources.per_worker,
    )
    backend = None  # a single worker joins no process group, and its controller need not load torch
    if resources.workers > 1:
        from ray.train.torch import TorchConfig

        # Decisions of rank 0 are broadcast over gloo, whatever backend the gradients use.
        backend = TorchConfig(
            backend="cpu:gloo,cuda:nccl" if resources.gpus else "gloo",
            timeout_s=COLLECTIVE_TIMEOUT_S,
        )
    # Each of these callbacks starts an actor: one serves Ray Datasets, which we do not use; the
    # other waits for the death of the controller.
    omitted = {"DatasetsCallback"} | (set() if cleanup else {"PlacementGroupCleanerCallback"})

    class _LeanTrainer(DataParallelTrainer):  # type: ignore[misc]
        """Ray Train's trainer without the callbacks that only start unused actors."""

        def _create_default_callbacks(self) -> list[Any]:
            callbacks: list[Any] = super()._create_default_callbacks()
            return [c for c in callbacks if type(c).__name__ not in omitted]

    return _LeanTrainer(
        work,
        backend_config=backend,
        scaling_config=scaling,
        run_config=run_config,
    )


def run_job(
    work: Callable[[], None],
    resources: JobResources,
    name: str,
    root: Path,
    *,
    cleanup: bool,
    callbacks: Sequence[Any] = (),
) -> None:
    """Run a Ray Train job to its end, and again if it loses workers.

    Ray Train's own restarts would also repeat a job whose code is at fault.

    Args:
        work: what every worker calls; it continues from its saved state, if any.
        name: of the job, in Ray's dashboard and folders.
        cleanup: see `train_job`.

    Raises:
        LorasweepError: the error of a worker, if it is one of ours; or workers were lost too often.
    """
    for _ in range(RESTARTS + 1):
        run = RunConfig(
            name=f"{name}-{time.time_ns()}",  # Ray Train would resume an earlier run of this name
            storage_path=str(SweepPaths(root).ray / "train"),
            callbacks=list(callbacks),
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=1),
        )
        try:
            train_job(work, resources, run, cleanup=cleanup).fit()
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
        f"{name}: a worker was lost {RESTARTS + 1} times, most recently with: "
        f"{in_a_line(losses[0])}"
    )


def _is_loss(failure: Exception) -> bool:
    """Whether a worker's process ended, or could not reach one that had."""
    if isinstance(getattr(failure, "health_check_failure", None), RayActorError):
        return True
    # The workers that wait for a lost one may fail before Ray notices the loss. Gloo raises only a
    # RuntimeError, so its text has to do.
    raised = getattr(failure, "_base_exc", None)
    return type(raised).__name__ == "DistBackendError" or "gloo" in str(raised)


def run_trial(config: Mapping[str, Suggestion], job: SweepJob, resources: JobResources) -> None:
    """Run one Tune trial as a Ray Train job of its own."""
    from ray.tune.integration.ray_train import TuneReportCallback

    configure_ray_train()
    trial = from_config(config).trial
    run_job(
        partial(train_and_measure, job, trial),
        resources,
        f"{job.spec.name}-{trial.id}",
        Path(job.root),
        cleanup=True,  # Tune kills the controller of a trial that it stops early
        callbacks=[TuneReportCallback()],
    )


def measure_base(job: SweepJob, resources: JobResources) -> tuple[MeasuredBase, BaseSamples | None]:
    """Measure the base as a trial would be, in a Ray Train job.

    Returns:
        Its scores, and its own samples if a suite asks for agreement with the base.

    Raises:
        LorasweepError: it cannot be measured, with the worker's sentence.
    """
    configure_ray_train()
    began, root = time.perf_counter(), Path(job.root)
    name = f"{job.spec.name}-base"
    run_job(partial(measure_and_save_base, job), resources, name, root, cleanup=False)
    scores, samples = load_base(SweepPaths(root).base_measured)
    return MeasuredBase(scores, round(time.perf_counter() - began, 3)), samples
