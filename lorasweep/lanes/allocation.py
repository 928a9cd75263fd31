"""Resources that a study gets on the cluster: what its jobs reserve, its capacity and its lanes."""

from __future__ import annotations

import os
from dataclasses import dataclass

from lorasweep.errors import ResourceError
from lorasweep.lanes.capacity import JobResources, capacity, fit
from lorasweep.lanes.cluster import Cluster
from lorasweep.lanes.pool import LanePool
from lorasweep.spec.sweep import SweepSpec
from lorasweep.store.paths import SweepPaths


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
    resources = fit(spec.resources, cluster)
    judged = spec.search.scheduler != "none"
    if spec.slots == 1 or spec.sharding is not None:
        if cluster.dashboard is None and judged:
            raise ResourceError(
                "search.scheduler: must be none if every trial is a job of its own and the cluster "
                "has no dashboard, which Ray needs to free the resources of stopped trials, got "
                f"{spec.search.scheduler}; or start the head with --include-dashboard=true"
            )
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
