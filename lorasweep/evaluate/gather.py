"""What all workers have, of things that are no tensors."""

from __future__ import annotations

from typing import Any, TypeVar

from lorasweep.data.shard import Shard

T = TypeVar("T")


def of_all_workers(own: T, shard: Shard) -> list[T]:
    """Give what each worker has, in their order; every worker must call it.

    Args:
        own: this worker's, which must be picklable.
    """
    if shard.workers == 1:
        return [own]
    import torch.distributed

    everyone: list[Any] = [None] * shard.workers
    torch.distributed.all_gather_object(everyone, own)
    return everyone
