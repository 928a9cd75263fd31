"""Start the lanes of a sweep, watch over them, and end them."""

from __future__ import annotations

import os
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from lorasweep.errors import in_a_line
from lorasweep.lanes.broker import LaneConfig, SlotBroker
from lorasweep.lanes.cluster import DRIVER, Capacity, Cluster, Shape
from lorasweep.lanes.job import train_job
from lorasweep.lanes.worker import RESTARTS, SweepJob, run_lane, settle_train
from lorasweep.store.paths import SweepPaths
from lorasweep.store.records import LaneEnded, Scores

START_CPUS = 2  # that a lane keeps busy until it asks for trials
ENDING_S = 60.0  # that lanes have to save and leave


class LanePool:
    """Hold the lanes, each a Ray Train job that a thread of the driver waits for.

    broker: where Tune's trials ask for slots.
    """

    def __init__(
        self,
        name: str,
        root: Path,
        cluster: Cluster,
        shape: Shape,
        capacity: Capacity,
        *,
        probed: bool,
        judged: bool,
    ) -> None:
        """Open the broker and start the lanes; they load what they need while others prepare.

        Where cores are few, not all at once: the sooner does the first of them train.

        Args:
            name: of the sweep.
            root: its results folder.
            cluster: that they run on.
            probed: whether a lane finds out how many of its slots pay.
            judged: whether a scheduler may stop trials at their rungs.
        """
        self._address = os.environ.get("RAY_ADDRESS")
        settle_train()
        self.broker = (
            ray.remote(SlotBroker)
            .options(num_cpus=0, resources=_resources(), name=f"lorasweep broker {name}")
            .remote()
        )
        self._name, self._root, self._cluster, self._shape = name, root, cluster, shape
        self._alive = capacity.lanes
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(
                target=self._run,
                args=[LaneConfig(number, self.broker, capacity.most, probed, judged)],
                daemon=True,
            )
            for number in range(capacity.lanes)
        ]
        for thread in self._threads:
            thread.start()

    def begin(self, job: SweepJob, base: Scores | None) -> None:
        """Give the lanes their work."""
        known = None if base is None else base.model_dump()
        ray.get(self.broker.begin.remote(job, known))

    def _run(self, lane: LaneConfig) -> None:
        """Run one lane to its end; if it cannot go on, its trials go to the others or fail."""
        before = lane.number + 1 - max(1, int(self._cluster.cpus / START_CPUS))
        try:
            if before > 0 and not ray.get(self.broker.asked.remote(before)):
                return
            self._trainer(lane).fit()
        except Exception as error:  # a thread has nobody above it to tell
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
        cleaned = not self._cluster.own
        return train_job(run_lane, {"lane": lane}, self._shape, run, cleaned=cleaned)

    def drop(self, trial: str) -> None:
        """Free the slot of a trial that was stopped early."""
        ray.get(self.broker.drop.remote(trial))

    def cut_off(self) -> None:
        """End all lanes and wake their trials, since the session is being interrupted."""
        ray.get(self.broker.close.remote(True))

    def close(self, *, keep: bool) -> list[LaneEnded]:
        """End all lanes; `keep` saves the trials that are in them.

        Returns:
            What each of them was.
        """
        # What was set for Ray Train must not lead this process's next sweep here.
        os.environ.pop("RAY_ADDRESS", None)
        if self._address is not None:
            os.environ["RAY_ADDRESS"] = self._address
        ray.get(self.broker.close.remote(keep))
        deadline = time.monotonic() + ENDING_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        facts = ray.get(self.broker.facts.remote())
        return [_ended(lane, said) for lane, said in sorted(facts.items())]


def _resources() -> dict[str, float]:
    return {name: share for name, share in DRIVER.items() if name != "cpu"}


def _ended(lane: int, said: dict[str, Any]) -> LaneEnded:
    """Phrase a lane's facts as the journal does."""
    refills, offered = said["refills"], said["offered"]
    return LaneEnded(
        lane=lane,
        **{name: said[name] for name in LaneEnded.model_fields.keys() & said.keys()},
        occupancy=said["filled"] / offered if offered else None,
        refill_steps=statistics.median(refills) if refills else None,
        time=time.time(),
    )
