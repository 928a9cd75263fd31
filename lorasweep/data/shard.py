"""The data-parallel workers of a trial: the rank of one of them, and collectives over all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Rank and world size of the workers that share a trial; a worker alone has rank 0 of 1.

    All workers must call a collective, in the same order and in their main threads.

    worker: rank, from 0.
    workers: world size.
    """

    worker: int = 0
    workers: int = 1

    def total(self, values: Tensor) -> Tensor:
        """Sum a tensor in place over all workers."""
        if self.workers > 1:
            import torch.distributed

            torch.distributed.all_reduce(values)
        return values

    def gather(self, own: T) -> list[T]:
        """Collect a picklable object of each worker, in order."""
        if self.workers == 1:
            return [own]
        import torch.distributed

        everyone: list[Any] = [None] * self.workers
        torch.distributed.all_gather_object(everyone, own)
        return everyone

    def broadcast(self, own: T) -> T:
        """Share the first worker's picklable object with all of them."""
        if self.workers == 1:
            return own
        import torch

        box = [own]
        torch.distributed.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]
