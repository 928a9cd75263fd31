"""Broadcast of one worker's Python value to all workers of a trial."""

from __future__ import annotations

from typing import TypeVar

import torch

from lorasweep.data.shard import Shard

T = TypeVar("T")


def broadcast(value: T, shard: Shard) -> T:
    """Broadcast the first worker's value; every worker must call it, in its main thread."""
    if shard.workers == 1:
        return value
    box = [value]
    torch.distributed.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]
