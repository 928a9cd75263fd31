"""How many programs a worker may run at a time without taking the cores of its neighbours."""

from __future__ import annotations

import os
from pathlib import Path

import torch

DEVICES = Path("/dev")
QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container


def max_parallel_programs(device: torch.device) -> int:
    """Give a worker its share of the node's cores.

    What programs come to does not depend on it, as long as none has to wait for a core until its
    time is over.
    """
    if device.type != "cuda":
        return torch.get_num_threads()  # it computes with the cores that it was given
    # Ray gives a worker with a GPU one core, whatever the node has. Beside it may be the other
    # workers of its trial, which Ray Train counts, and on each other GPU one of another trial.
    workers = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    gpus = len(list(DEVICES.glob("nvidia[0-9]*")))
    return max(1, _cores() // max(workers, gpus))


def _cores() -> int:
    """Count the cores that this process may use at a time."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = QUOTA.read_text(encoding="ascii").split()
    except OSError:
        return cores
    return cores if quota == "max" else min(cores, int(quota) // int(period))
