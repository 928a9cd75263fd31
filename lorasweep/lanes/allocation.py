"""What a study stands on: the cluster and its lanes, started before they are needed."""

from __future__ import annotations

import os
from dataclasses import dataclass

from lorasweep.errors import ResourceError
from lorasweep.lanes.cluster import Cluster, Shape, capacity, fit
from lorasweep.lanes.pool import LanePool
from lorasweep.spec.sweep import SweepSpec
from lorasweep.store.paths import SweepPaths


@dataclass(frozen=True)
class Allocation:
    """Hold what a study stands on: the cluster, what a job takes of it, and the lanes.

    in_flight: trials that may be under way; slots: how many of them find a place.
    pool: None where every trial is a job of its own.
    """

    cluster: Cluster
    shape: Shape
    in_flight: int
    slots: int
    pool: LanePool | None


def begin(
    name: str, spec: SweepSpec, planned: int, paths: SweepPaths, cluster: Cluster
) -> Allocation:
    """Start the lanes.

    Args:
        name: of the study, for what Ray shows and writes.
        planned: trials that its search suggests.

    Raises:
        ResourceError: the cluster cannot hold the sweep.
    """
    # Tune's own result files, signal handler and terminal output would double ours.
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    shape = fit(spec.resources, cluster)
    judged = spec.search.scheduler != "none"
    if spec.slots == 1 or spec.spread is not None:
        if cluster.dashboard is None and judged:
            raise ResourceError(
                "search.scheduler: must be none where every trial is a job of its own and the "
                "cluster has no dashboard, through which Ray frees what stopped trials held, got "
                f"{spec.search.scheduler}; or start the head with --include-dashboard=true"
            )
        return Allocation(cluster, shape, shape.max_concurrent, shape.max_concurrent, None)
    places = capacity(spec, shape, planned, cluster.cpus)
    pool = LanePool(
        name,
        paths.root.resolve(),
        cluster,
        shape,
        places,
        probed=spec.slots == "auto",
        judged=judged,
    )
    return Allocation(cluster, shape, places.in_flight, places.lanes * places.most, pool)
