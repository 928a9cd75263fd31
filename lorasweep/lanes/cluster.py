"""Connect to Ray, on this machine or an existing cluster, and find out how many trials fit."""

from __future__ import annotations

import logging
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

import ray

from lorasweep.errors import ResourceError, in_a_line
from lorasweep.spec.sweep import ResourcesSpec, SweepSpec

if TYPE_CHECKING:
    import torch

MOST_SLOTS = 8  # that a lane measures
PER_CPU = 2  # trials under way, for CPUs that no lane computes on
OVERTAKE = 2  # trials that may begin after a slow one without waiting for it to end
# Drivers of trials need no CPU of their own. Every cluster's head node has this resource, and the
# head is not preempted, so they are placed there by a fraction of it.
DRIVER = {"cpu": 0, "node:__internal_head__": 0.0001}


@dataclass(frozen=True)
class Cluster:
    """Hold what matters of the cluster a sweep runs on.

    cpus, gpus: in all, counting nodes that an autoscaler may still add.
    nodes: CPUs and GPUs of each node; empty where an autoscaler may add others.
    dashboard: its address, None where there is none.
    own: started by this process, and so stopped by it.
    """

    cpus: float
    gpus: float
    dashboard: str | None
    own: bool
    nodes: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Shape:
    """Hold what one Ray Train job takes, be it of one trial or of a lane, and how many fit."""

    workers: int
    cpus: float
    gpus: float
    max_concurrent: int

    @property
    def per_worker(self) -> dict[str, float]:
        """Give a worker's resources in Ray's words."""
        return {"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {})}


def connect(address: str | None, name: str) -> Cluster:
    """Join the cluster at an address or in RAY_ADDRESS, or start Ray on this machine.

    Args:
        address: `auto` or HOST:PORT; None looks at RAY_ADDRESS.
        name: of the sweep, which the job bears in the dashboard.

    Raises:
        ResourceError: nothing answers at the address, it wants a token, or it is one of Ray Client,
            under which Tune would not run in this process.
    """
    address = address or os.environ.get("RAY_ADDRESS") or None
    if address is not None and address.startswith("ray://"):
        raise ResourceError(
            f"--address: must be auto, HOST:PORT or http://HOST:PORT, got {address!r}; Ray Client "
            "would run the sweep out of this process's reach; hand it in at the dashboard's "
            "http:// address, or start it on a node of the cluster"
        )
    job = ray.job_config.JobConfig(metadata={"job_name": f"lorasweep {name}"})
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False, "configure_logging": True}
    if address is None:
        # Nothing preempts this machine, and the watcher is a process more to start for each trial.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        context = ray.init(address="local", job_config=job, **quiet)
    else:
        _knock(address)
        try:
            context = ray.init(address=address, job_config=job, **quiet)
        except ray.exceptions.AuthenticationError as error:
            raise ResourceError(token_sentence(address)) from error
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            # That a token was missing or wrong stands only in the text of the cause.
            if "AuthenticationError" in f"{error} {error.__cause__}":
                raise ResourceError(token_sentence(address)) from error
            raise _no_answer(address, error) from error
    resources = ray.cluster_resources()
    # An autoscaler's configuration counts nodes that do not run yet, such as GPU workers from zero.
    possible = ray._private.state.state.get_max_resources_from_cluster_config() or {}
    return Cluster(
        cpus=max(resources.get("CPU", 0.0), float(possible.get("CPU", 0.0))),
        gpus=max(resources.get("GPU", 0.0), float(possible.get("GPU", 0.0))),
        dashboard=getattr(context, "dashboard_url", None) or None,
        own=address is None,
        nodes=() if possible else _nodes(),
    )


def _nodes() -> tuple[tuple[float, float], ...]:
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return tuple((node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in alive)


def _knock(address: str) -> None:
    """See that something listens, since Ray itself tries for a quarter of an hour.

    Raises:
        ResourceError: nothing does.
    """
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise _no_answer(address, error) from error


def _no_answer(address: str, error: Exception) -> ResourceError:
    return ResourceError(
        f"--address: no Ray cluster answers at {address!r} ({in_a_line(error)}); start one with "
        "`ray up cluster.yaml`, or leave the address out to run on this machine"
    )


def token_sentence(address: str) -> str:
    """Say how to give a cluster the token that it wants."""
    return (
        f"--address: the cluster at {address!r} wants a token; set RAY_AUTH_MODE=token and give it "
        "in RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token (`ray get-auth-token` shows "
        "it on the machine that has it)"
    )


@dataclass(frozen=True)
class Capacity:
    """Hold how many lanes there are, and how many trials are under way.

    most: slots of a lane at most.
    in_flight: trials that have been suggested and have not ended, some of them waiting for a slot.
    """

    lanes: int
    most: int
    in_flight: int


def capacity(spec: SweepSpec, shape: Shape, planned: int, cpus: float) -> Capacity:
    """Work out how many lanes there are, and how many trials may be under way in them.

    So many that a freed slot has a successor ready; but where earlier trials decide anything, not
    more than a third of the search, or it would learn too late.
    Nothing here depends on what is measured while the sweep runs, so that a sweep repeats.

    Args:
        shape: of a lane.
        planned: trials of the search.
        cpus: of the cluster. Each trial under way is a process that takes one of them for a second
            to start, so few cores have few.
    """
    lanes = shape.max_concurrent
    computing = lanes * shape.workers * shape.cpus
    limit = spec.resources.max_concurrent
    most = MOST_SLOTS if spec.slots == "auto" else spec.slots
    in_flight = lanes * most + max(1, lanes * most // 4)
    if spec.slots == "auto" and _adaptive(spec):
        in_flight = min(in_flight, max(lanes + 1, planned // 3))
    if spec.slots == "auto":
        in_flight = min(in_flight, max(int(computing) + 1, int(PER_CPU * (cpus - computing))))
    in_flight = min(in_flight, planned, planned if limit == "auto" else limit)
    lanes = min(lanes, in_flight)
    if spec.slots == "auto" or limit != "auto":
        most = min(most, max(1, in_flight * 4 // 5 // lanes))
    return Capacity(lanes, most, in_flight)


def window(spec: SweepSpec, in_flight: int, planned: int) -> int:
    """Work out how far back a trial sees: it waits for the trials before the last so many to end.

    Somewhat wider than the trials under way, or else the end of a trial that began later would
    often have no successor; a place that stands empty also costs Tune a process. Where earlier
    trials decide nothing, no trial waits.
    """
    if not _adaptive(spec):
        return max(in_flight, planned)
    if in_flight == 1:
        return 1
    return max(in_flight, min(in_flight + OVERTAKE, planned // 3))


def _adaptive(spec: SweepSpec) -> bool:
    """Tell whether earlier trials decide which come next, or which are stopped."""
    return spec.search.algorithm in {"tpe", "gp"} or spec.search.scheduler != "none"


def this_machine(resources: ResourcesSpec) -> tuple[Shape, torch.device]:
    """Work out, without Ray, what a job would take of this machine alone, and where it computes."""
    import torch

    gpus = float(torch.cuda.device_count())
    cpus = float(os.cpu_count() or 1)
    machine = Cluster(cpus, gpus, None, own=True, nodes=((cpus, gpus),))
    shape = fit(resources, machine)
    return shape, torch.device("cuda" if shape.gpus else "cpu")


def fit(resources: ResourcesSpec, cluster: Cluster) -> Shape:
    """Work out what a Ray Train job takes and how many fit.

    Raises:
        ResourceError: not even one trial fits, so the sweep would wait for ever.
    """
    gpus = (1.0 if cluster.gpus >= 1 else 0.0) if resources.gpus == "auto" else resources.gpus
    workers, cpus = resources.workers, resources.cpus
    if gpus and not cluster.gpus:
        raise ResourceError(
            f"resources.gpus: must be 0 or auto where the cluster has no GPU, got {gpus:g}; join a "
            "cluster that has GPUs with --address, or leave it at auto to train on CPUs"
        )
    room = [("CPU", cluster.cpus, workers * cpus), ("GPU", cluster.gpus, workers * gpus)]
    for kind, have, need in room:
        if need > have:
            raise ResourceError(
                f"resources.workers: one trial of {workers} workers needs {need:g} {kind}s and the "
                f"cluster has {have:g}; lower resources.workers or resources.{kind.lower()}s"
            )
    possible = min(int(have // need) for _, have, need in room if need)
    if cluster.nodes:  # a worker cannot be split over nodes
        places = sum(
            int(min(have // need for have, need in zip(node, (cpus, gpus), strict=True) if need))
            for node in cluster.nodes
        )
        possible = min(possible, places // workers)
    if not possible:
        raise ResourceError(
            f"resources.workers: one trial of {workers} workers needs {cpus:g} CPUs and {gpus:g} "
            "GPUs on one node for each, and the cluster's nodes have not so many free places; "
            "lower resources.workers, resources.cpus or resources.gpus"
        )
    wanted = resources.max_concurrent
    return Shape(workers, cpus, gpus, possible if wanted == "auto" else min(wanted, possible))
