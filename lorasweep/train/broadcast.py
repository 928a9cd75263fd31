"""What one worker decides for all of them."""

from __future__ import annotations

from typing import TypeVar

import torch

from lorasweep.data.shard import Shard

T = TypeVar("T")


def broadcast(value: T, shard: Shard) -> T:
    """Give every worker the first one's value; every worker must call it, in its main thread."""
    if shard.workers == 1:
        return value
    box = [value]
    torch.distributed.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]
