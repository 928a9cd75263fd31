"""Connect to Ray: an existing cluster, or one started on this machine."""

from __future__ import annotations

import logging
import os
import socket
from dataclasses import dataclass
from pathlib import Path

import ray

from lorasweep.errors import ResourceError, in_a_line
from lorasweep.store.scratch import use_own_token

# A Tune trial only waits for its lane or job. If it reserved a CPU, a small cluster would have none
# left for what it waits for; Tune refuses zero resources. Every head node has this resource, and
# the head is not preempted, so trials take a sliver of it.
TUNE_TRIAL = {"cpu": 0, "node:__internal_head__": 0.0001}


@dataclass(frozen=True)
class Cluster:
    """Resources of the Ray cluster that a sweep runs on.

    cpus, gpus: totals, including nodes that an autoscaler may still add.
    nodes: CPUs and GPUs of each node; empty if an autoscaler may add others.
    dashboard: its address, or None.
    own: started by this process, and so stopped by it.
    """

    cpus: float
    gpus: float
    dashboard: str | None
    own: bool
    nodes: tuple[tuple[float, float], ...] = ()


def cluster_address(given: str | None) -> str | None:
    """Choose between an address that was given and RAY_ADDRESS; None and `local` are this machine.

    Raises:
        ResourceError: it is a Ray Client address, under which Tune would not run in this process.
    """
    address = given or os.environ.get("RAY_ADDRESS") or None
    if address == "local":
        return None
    if address is not None and address.startswith("ray://"):
        raise ResourceError(
            f"--address: must be auto, HOST:PORT or http://HOST:PORT, got {address!r}; Ray Client "
            "would run the sweep out of this process's reach; hand it in at the dashboard's "
            "http:// address, or start it on a node of the cluster"
        )
    return address


def connect(address: str | None, name: str, folder: Path | None = None) -> Cluster:
    """Join the cluster at an address or in RAY_ADDRESS, or start Ray on this machine.

    Args:
        address: `auto` or HOST:PORT; None reads RAY_ADDRESS.
        name: of the sweep, shown as the job's name in the dashboard.
        folder: for the sockets and logs of a Ray that is started; None leaves the choice to Ray.

    Raises:
        ResourceError: nothing answers at the address, it requires a token, it is a Ray Client
            address, or Ray cannot be started on this machine.
    """
    address = cluster_address(address)
    job = ray.job_config.JobConfig(metadata={"job_name": f"lorasweep {name}"})
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False, "configure_logging": True}
    if address is None:
        # Nothing preempts this machine, and the watcher is a process more to start for each trial.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        use_own_token()
        try:
            context = ray.init(
                address="local",
                job_config=job,
                _temp_dir=None if folder is None else str(folder),
                **quiet,
            )
        except (OSError, RuntimeError, ValueError, TimeoutError) as error:
            raise ResourceError(
                f"Ray cannot be started on this machine ({type(error).__name__}: "
                f"{in_a_line(error)}); its logs are in {folder or '/tmp/ray'}/session_latest/logs"
            ) from error
    else:
        _check_listening(address)
        try:
            context = ray.init(address=address, job_config=job, **quiet)
        except ray.exceptions.AuthenticationError as error:
            raise ResourceError(token_sentence(address)) from error
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            # Only the text of the cause tells that a token was missing or wrong.
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


# What every HTTP/2 connection begins with, and so every one of gRPC, which clusters speak.
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_SETTINGS = 4  # the type of the frame that answers it


def speaks_grpc(host: str, port: int) -> bool:
    """Whether a gRPC server, such as the head of a cluster, listens at an address.

    Raises:
        OSError: nothing listens there.
    """
    with socket.create_connection((host, port), timeout=10) as connection:
        connection.sendall(_GREETING)
        try:
            answer = connection.recv(64)
        except OSError:
            return False
    return len(answer) > 3 and answer[3] == _SETTINGS


def _check_listening(address: str) -> None:
    """Check that a cluster listens at an address, since Ray would retry for fifteen minutes.

    Raises:
        ResourceError: nothing listens there, or something else does.
    """
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        return
    try:
        is_cluster = speaks_grpc(host.strip("[]"), int(port))
    except (OSError, OverflowError, UnicodeError) as error:
        raise _no_answer(address, error) from error
    if not is_cluster and os.environ.get("RAY_USE_TLS", "0") != "1":
        raise ResourceError(
            f"--address: must be the address of a Ray cluster, and what listens at {address!r} is "
            "none; that of a dashboard begins with http://, and `ray status` on the head shows the "
            "cluster's own, whose port is mostly 6379"
        )


def _no_answer(address: str, error: Exception) -> ResourceError:
    return ResourceError(
        f"--address: no Ray cluster answers at {address!r} ({in_a_line(error)}); start one with "
        "`ray up cluster.yaml`, or leave the address out to run on this machine"
    )


def token_sentence(address: str) -> str:
    """Explain how to pass the token that a cluster requires."""
    return (
        f"--address: the cluster at {address!r} wants a token; set RAY_AUTH_MODE=token and give it "
        "in RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token (`ray get-auth-token` shows "
        "it on the machine that has it)"
    )
