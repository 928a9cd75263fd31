"""Submit a sweep to a cluster's dashboard as a Ray job, and follow its log."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lorasweep.errors import LorasweepError, ResourceError, in_a_line
from lorasweep.service.merged import check_merge
from lorasweep.spec.sweep import SweepSpec, dump_sweep

CLUSTER_PORT = 6379  # Ray's default
# Environment variables that Ray prefers to the address it is given.
OVERRIDES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
# Their messages about uploads and connections only matter when something fails, which raises.
NOISY_LOGGERS = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)


def submit_sweep(spec: SweepSpec, folder: Path, address: str, *, merge: bool = False) -> int:
    """Run a sweep on a cluster as a Ray job and print its log until it ends.

    Only the sweep file is sent: the cluster has lorasweep installed, and `model` and `data` are
    paths there.

    Args:
        spec: the sweep.
        folder: its results folder on the cluster; relative paths, also of model and data, start at
            the home folder there.
        address: of the cluster's dashboard, http:// or https://.
        merge: also merge the best adapter into the base.

    Returns:
        The exit code: 0, 1 if the job failed or was stopped, 130 if it was left running.

    Raises:
        SpecError: there is nothing to merge.
        ResourceError: no dashboard answers at the address, or it wants a token.
        LorasweepError: the cluster refused the job, or the connection to it was lost.
    """
    if merge:
        check_merge(spec)
    return _run_job(spec, address, _entrypoint(folder, merge=merge))


def _entrypoint(folder: Path, *, merge: bool = False) -> str:
    """Write the job's shell command, which leaves the working directory that Ray deletes."""
    return (
        'sweep="$PWD/sweep.yaml" && cd && '
        f'lorasweep tune "$sweep" --out {shlex.quote(str(folder))} --address auto'
        f"{' --merge' if merge else ''}"
    )


def _run_job(spec: SweepSpec, address: str, entrypoint: str) -> int:
    """Submit a job, follow its log, and return the exit code."""
    client = _connect(address)
    job = f"lorasweep-{spec.name}-{time.strftime('%m%d-%H%M%S', time.gmtime())}"
    follow = f"ray job logs --address {address} --follow {job}"
    stop = f"ray job stop --address {address} {job}"
    # Ray uploads the whole working directory, so it gets one that holds nothing else.
    with tempfile.TemporaryDirectory(prefix="lorasweep-job-") as folder:
        (Path(folder) / "sweep.yaml").write_text(dump_sweep(spec), encoding="utf-8")
        try:
            client.submit_job(
                entrypoint=entrypoint,
                submission_id=job,
                runtime_env={"working_dir": folder},
                metadata={"job_name": f"lorasweep {spec.name}"},
            )
        except (OSError, RuntimeError) as error:
            raise LorasweepError(
                f"--address: the cluster at {address!r} did not accept the job ({in_a_line(error)})"
            ) from error
    print(f"job {job}; follow it from elsewhere with `{follow}`", flush=True)
    try:
        status = _follow(client, job)
    except KeyboardInterrupt:
        print(
            f"\njob {job} keeps running; follow it with `{follow}`, stop it with `{stop}`",
            flush=True,
        )
        return 130
    except (OSError, RuntimeError, _http_error()) as error:
        raise LorasweepError(
            f"--address: lost the connection to {address!r} ({in_a_line(error)}); job {job} "
            f"keeps running, follow it with `{follow}`"
        ) from error
    print(f"job {job} {status.lower()}", flush=True)
    return 0 if status == "SUCCEEDED" else 1


def _connect(address: str) -> Any:
    """Connect to the dashboard.

    Raises:
        ResourceError: nothing answers, something else than a dashboard does, or a token is missing.
    """
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    from lorasweep.lanes.cluster import token_sentence

    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    overriding = {name: os.environ.pop(name) for name in OVERRIDES if name in os.environ}
    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise ResourceError(token_sentence(address)) from error
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise ResourceError(
            f"--address: no Ray dashboard answers at {address!r} ({in_a_line(error)}); "
            f"{_instead(address)}"
        ) from error
    finally:
        os.environ.update(overriding)


def _instead(address: str) -> str:
    """Phrase what to do where no dashboard answers; many clusters run without one."""
    from lorasweep.lanes.cluster import speaks_grpc

    try:
        parts = urlsplit(address)
        host, ports = parts.hostname or "HOST", dict.fromkeys((parts.port, CLUSTER_PORT))
    except ValueError:  # the port is no number
        host, ports = "HOST", {}
    for port in filter(None, ports):
        with suppress(OSError):
            if speaks_grpc(host, port):
                return (
                    f"a cluster without one seems to run at {host}:{port}; --address {host}:{port} "
                    "drives the sweep from here"
                )
    return (
        "open a tunnel to one with `ray dashboard cluster.yaml`; if the cluster runs without one, "
        f"--address {host}:{CLUSTER_PORT}, its own port, drives the sweep from here; leave out the "
        "address to run on this machine"
    )


def _follow(client: Any, job: str) -> str:
    """Print a job's log until the job has ended, and return its status."""

    async def print_log() -> None:
        async for lines in client.tail_job_logs(job):
            print(lines, end="", flush=True)

    asyncio.run(print_log())
    # The log may end a moment before the status is written.
    while not (status := client.get_job_status(job)).is_terminal():
        time.sleep(1)
    return str(status)


def _http_error() -> type[Exception]:
    """Import what the log's connection raises, only now because it takes long."""
    from aiohttp import ClientError

    return ClientError
