"""How many jobs fit on a cluster, how many slots a lane has, and how many trials are under way."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lorasweep.errors import ResourceError
from lorasweep.lanes.cluster import Cluster
from lorasweep.spec.sweep import ResourcesSpec, SweepSpec

if TYPE_CHECKING:
    import torch

MAX_SLOTS = 8  # largest group that a lane's probe measures
TRIALS_PER_IDLE_CPU = 2  # trials under way for each CPU that no lane computes on
OVERTAKING = 2  # trials that may start past a slow one before the search waits for it


@dataclass(frozen=True)
class JobResources:
    """Resources of one Ray Train job, a lane or a single trial.

    cpus, gpus: of each worker.
    jobs: how many such jobs run at a time.
    """

    workers: int
    cpus: float
    gpus: float
    jobs: int

    @property
    def per_worker(self) -> dict[str, float]:
        """A worker's resources under Ray's names."""
        return {"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {})}


@dataclass(frozen=True)
class Capacity:
    """Lanes of a study, and trials under way in them.

    max_slots: most slots that a lane may have; its probe may settle on fewer.
    in_flight: trials that were suggested and have not ended; some of them wait for a slot.
    """

    lanes: int
    max_slots: int
    in_flight: int


def check_cluster(spec: SweepSpec, cluster: Cluster) -> JobResources:
    """Check that a cluster can run a study, and work out what one of its jobs reserves.

    Raises:
        ResourceError: it has too few resources, or no dashboard where that is needed.
    """
    if is_job_each(spec) and cluster.dashboard is None and spec.search.scheduler != "none":
        how = (
            "install Ray's with pip install 'ray[default]'"
            if cluster.own
            else "start the head with --include-dashboard=true"
        )
        raise ResourceError(
            "search.scheduler: must be none if every trial is a job of its own and the cluster "
            "has no dashboard, which Ray needs to free the resources of stopped trials, got "
            f"{spec.search.scheduler}; or {how}"
        )
    return fit(spec.resources, cluster)


def is_job_each(spec: SweepSpec) -> bool:
    """Whether every trial of a study is a job of its own."""
    return spec.slots == 1 or spec.sharding is not None


def fit(resources: ResourcesSpec, cluster: Cluster) -> JobResources:
    """Work out what a Ray Train job reserves and how many such jobs fit on a cluster.

    Raises:
        ResourceError: not even one job fits, so the sweep would wait forever.
    """
    gpus = (1.0 if cluster.gpus >= 1 else 0.0) if resources.gpus == "auto" else resources.gpus
    workers, cpus = resources.workers, resources.cpus
    if gpus and not cluster.gpus:
        raise ResourceError(
            f"resources.gpus: must be 0 or auto where the cluster has no GPU, got {gpus:g}; join a "
            "cluster that has GPUs with --address, or leave it at auto to train on CPUs"
        )
    totals = [("CPU", cluster.cpus, workers * cpus), ("GPU", cluster.gpus, workers * gpus)]
    for kind, have, need in totals:
        if need > have:
            raise ResourceError(
                f"resources.workers: one trial of {workers} workers needs {need:g} {kind}s and the "
                f"cluster has {have:g}; lower resources.workers or resources.{kind.lower()}s"
            )
    jobs = min(int(have // need) for _, have, need in totals if need)
    if cluster.nodes:  # a worker cannot be split over nodes, so the totals may promise too much
        workers_on_nodes = sum(
            int(min(have // need for have, need in zip(node, (cpus, gpus), strict=True) if need))
            for node in cluster.nodes
        )
        jobs = min(jobs, workers_on_nodes // workers)
    if not jobs:
        raise ResourceError(
            f"resources.workers: one trial of {workers} workers needs {cpus:g} CPUs and {gpus:g} "
            "GPUs on one node for each, and the cluster's nodes do not have room for that many; "
            "lower resources.workers, resources.cpus or resources.gpus"
        )
    limit = resources.max_concurrent
    return JobResources(workers, cpus, gpus, jobs if limit == "auto" else min(limit, jobs))


def capacity(spec: SweepSpec, resources: JobResources, planned: int, cpus: float) -> Capacity:
    """Work out the lanes of a study, their slots, and the trials under way.

    The result depends on the sweep and the cluster alone, never on what is measured while the
    sweep runs: it decides the window, and so which trials are suggested.

    Args:
        resources: of a lane; cpus: of the cluster.
    """
    lanes = resources.jobs
    computing_cpus = lanes * resources.workers * resources.cpus
    limit = spec.resources.max_concurrent
    max_slots = MAX_SLOTS if spec.slots == "auto" else spec.slots
    # All slots, and a quarter more: a freed slot finds its next trial already prepared.
    in_flight = lanes * max_slots + max(1, lanes * max_slots // 4)
    if spec.slots == "auto":
        # An adaptive search learns nothing from trials under way. With more than a third of them
        # in flight, most of the search would be chosen blindly.
        if _is_adaptive(spec):
            in_flight = min(in_flight, max(lanes + 1, planned // 3))
        # Each trial under way is a Tune process that needs about a CPU second to start. On few
        # cores these processes would take the CPUs from the lanes.
        idle_cpus = cpus - computing_cpus
        by_cpus = max(int(computing_cpus) + 1, int(TRIALS_PER_IDLE_CPU * idle_cpus))
        in_flight = min(in_flight, by_cpus)
    in_flight = min(in_flight, planned, planned if limit == "auto" else limit)
    lanes = min(lanes, in_flight)
    if spec.slots == "auto" or limit != "auto":
        # The inverse of the quarter more above: slots that nobody would fill are not opened.
        max_slots = min(max_slots, max(1, in_flight * 4 // 5 // lanes))
    return Capacity(lanes, max_slots, in_flight)


def window(spec: SweepSpec, in_flight: int, planned: int) -> int:
    """Work out how far back a trial sees: trial n starts once trials 0 to n - window have ended."""
    if not _is_adaptive(spec):
        return max(in_flight, planned)  # no trial decides anything for another, so none waits
    if in_flight == 1:
        return 1
    # As wide as the trials under way, the window would stall behind each slow trial: nothing could
    # start before it ended. A little wider, two more may start past it; but no wider than a third
    # of the search, or the search would learn too late.
    return max(in_flight, min(in_flight + OVERTAKING, planned // 3))


def _is_adaptive(spec: SweepSpec) -> bool:
    """Whether earlier trials decide which trials are suggested or stopped."""
    return spec.search.algorithm in {"tpe", "gp"} or spec.search.scheduler != "none"


def this_machine(resources: ResourcesSpec) -> tuple[JobResources, torch.device]:
    """Work out, without Ray, what a job would reserve on this machine, and its torch device."""
    import torch

    gpus = float(torch.cuda.device_count())
    cpus = float(os.cpu_count() or 1)
    machine = Cluster(cpus, gpus, None, own=True, nodes=((cpus, gpus),))
    job = fit(resources, machine)
    return job, torch.device("cuda" if job.gpus else "cpu")
