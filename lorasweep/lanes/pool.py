"""The lanes of a study: sized for the cluster, started, watched and ended by the driver."""

from __future__ import annotations

import os
import statistics
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import ray
from ray.train import FailureConfig, RunConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from lorasweep.errors import in_a_line
from lorasweep.lanes.broker import SlotBroker
from lorasweep.lanes.capacity import (
    Capacity,
    JobResources,
    capacity,
    check_cluster,
    is_job_each,
)
from lorasweep.lanes.cluster import TUNE_TRIAL, Cluster
from lorasweep.lanes.job import RESTARTS, configure_ray_train, train_job
from lorasweep.lanes.messages import LaneConfig, LaneFacts, MeasuredBase, SweepJob
from lorasweep.lanes.worker import run_lane
from lorasweep.spec.sweep import SweepSpec
from lorasweep.store.paths import SweepPaths
from lorasweep.store.records import LaneEnded

START_CPUS = 2  # CPUs that a lane keeps busy until it asks for trials
ENDING_S = 60.0  # time that lanes have to save their trials and end


class LanePool:
    """Lanes of a study, each a Ray Train job that a thread of the driver waits for.

    broker: handle of the SlotBroker actor, where Tune's trials lease slots.
    """

    def __init__(
        self,
        name: str,
        root: Path,
        cluster: Cluster,
        resources: JobResources,
        size: Capacity,
        *,
        probed: bool,
        judged: bool,
    ) -> None:
        """Open the broker and start the lanes, which load their libraries meanwhile.

        Args:
            probed: whether a lane measures how many of its slots pay.
            judged: whether a scheduler may stop trials at their rungs.
        """
        self._address = os.environ.get("RAY_ADDRESS")
        configure_ray_train()
        self.broker = (
            ray.remote(SlotBroker)
            .options(num_cpus=0, resources=_on_head_node(), name=f"lorasweep broker {name}")
            .remote()
        )
        self._name, self._root, self._cluster, self._resources = name, root, cluster, resources
        self._alive = size.lanes
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(
                target=self._run,
                args=[LaneConfig(number, self.broker, size.max_slots, probed, judged)],
                daemon=True,
            )
            for number in range(size.lanes)
        ]
        for thread in self._threads:
            thread.start()

    def start(self, job: SweepJob, base: MeasuredBase | None) -> None:
        """Hand the prepared job to the lanes, and the base's scores if they are known."""
        ray.get(self.broker.start.remote(job, base))

    def base(self) -> MeasuredBase | None:
        """Get the base's scores, once a lane has measured them."""
        measured: MeasuredBase | None = ray.get(self.broker.base.remote())
        return measured

    def _run(self, lane: LaneConfig) -> None:
        """Run one lane to its end; if it cannot continue, its trials move to others or fail."""
        # On few cores, lanes that start together delay the first training step of all. So each
        # lane waits until enough of the earlier ones train.
        earlier = lane.number + 1 - max(1, int(self._cluster.cpus / START_CPUS))
        try:
            if earlier > 0 and not ray.get(self.broker.lanes_started.remote(earlier)):
                return
            self._trainer(lane).fit()
        except Exception as error:  # nobody catches what a thread raises; the broker passes it on
            reason = f"lane {lane.number} ended: {in_a_line(error)}"
        else:
            reason = f"lane {lane.number} has ended"
        with self._lock:
            self._alive -= 1
            last = self._alive == 0
        ray.get(self.broker.lane_gone.remote(lane.number, reason, last))

    def _trainer(self, lane: LaneConfig) -> DataParallelTrainer:
        run = RunConfig(
            name=f"{self._name}-lane-{lane.number}-{time.time_ns()}",
            storage_path=str(SweepPaths(self._root).ray / "train"),
            failure_config=FailureConfig(max_failures=RESTARTS, controller_failure_limit=1),
        )
        cleanup = not self._cluster.own
        return train_job(partial(run_lane, lane), self._resources, run, cleanup=cleanup)

    def end_lease(self, trial: str) -> None:
        """Free the slot of a trial that was stopped early."""
        ray.get(self.broker.end_lease.remote(trial))

    def cut_off(self) -> None:
        """End all lanes and wake the clients that wait for reports, as the session is ending."""
        ray.get(self.broker.close.remote(True))

    def close(self, *, keep: bool) -> list[LaneEnded]:
        """End all lanes.

        Args:
            keep: whether the trials that are in them are saved.

        Returns:
            A journal record for each lane.
        """
        # What was set for Ray Train must not lead this process's next sweep to this cluster.
        os.environ.pop("RAY_ADDRESS", None)
        if self._address is not None:
            os.environ["RAY_ADDRESS"] = self._address
        ray.get(self.broker.close.remote(keep))
        deadline = time.monotonic() + ENDING_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        facts: dict[int, LaneFacts] = ray.get(self.broker.facts.remote())
        return [_record(lane, facts[lane]) for lane in sorted(facts)]


@dataclass(frozen=True)
class Allocation:
    """Share of the cluster that a study has.

    resources: of one job, be it a lane or a trial.
    in_flight: trials that may be under way; slots: how many of them can train at a time.
    pool: the lanes; None if every trial is a job of its own.
    """

    cluster: Cluster
    resources: JobResources
    in_flight: int
    slots: int
    pool: LanePool | None


def allocate(
    name: str, spec: SweepSpec, planned: int, paths: SweepPaths, cluster: Cluster
) -> Allocation:
    """Size a study for the cluster, and start its lanes.

    Args:
        name: of the study, in what Ray shows and writes.

    Raises:
        ResourceError: the cluster cannot hold the study.
    """
    # Tune's own result files, signal handler and terminal output would double ours.
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    resources = check_cluster(spec, cluster)
    judged = spec.search.scheduler != "none"
    if is_job_each(spec):
        return Allocation(cluster, resources, resources.jobs, resources.jobs, None)
    size = capacity(spec, resources, planned, cluster.cpus)
    pool = LanePool(
        name,
        paths.root.resolve(),
        cluster,
        resources,
        size,
        probed=spec.slots == "auto",
        judged=judged,
    )
    return Allocation(cluster, resources, size.in_flight, size.lanes * size.max_slots, pool)


def _on_head_node() -> dict[str, float]:
    return {name: share for name, share in TUNE_TRIAL.items() if name != "cpu"}


def _record(lane: int, facts: LaneFacts) -> LaneEnded:
    return LaneEnded(
        lane=lane,
        slots=facts.slots,
        reason=facts.reason,
        tokens_per_s=dict(facts.tokens_per_s),
        first_step=facts.first_step,
        last_step=facts.last_step,
        waited_s=facts.waited_s,
        occupancy=facts.filled / facts.offered if facts.offered else None,
        refill_steps=statistics.median(facts.refills) if facts.refills else None,
        tokens=facts.tokens,
        train_s=facts.train_s,
        notes=facts.notes,
        time=time.time(),
    )
