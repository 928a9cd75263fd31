"""Choose how many programs a worker runs in parallel without taking its neighbours' cores."""

from __future__ import annotations

import os
from pathlib import Path

import torch

DEVICES = Path("/dev")
QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of the container, cgroup v2


def max_parallel_programs(device: torch.device) -> int:
    """Compute a worker's share of the node's cores.

    Outcomes of programs do not depend on it, as long as none waits for a core until its wall-clock
    limit.
    """
    if device.type != "cuda":
        return torch.get_num_threads()  # the cores that it computes with
    # Ray assigns a GPU worker one core, however many the node has. The cores are shared with the
    # other workers of this trial, which Ray Train counts, or of other trials on the other GPUs.
    workers = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    gpus = len(list(DEVICES.glob("nvidia[0-9]*")))
    return max(1, _cores() // max(workers, gpus))


def _cores() -> int:
    """Count the cores that this process may use, by its affinity and its container's quota."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = QUOTA.read_text(encoding="ascii").split()
    except OSError:
        return cores
    return cores if quota == "max" else min(cores, int(quota) // int(period))
