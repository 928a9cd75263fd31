"""One worker's place among those that share a trial, and sums over all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Name a worker among `workers`; alone, a sum over all workers is the value itself."""

    worker: int = 0
    workers: int = 1

    def total(self, values: Tensor) -> Tensor:
        """Sum a tensor in place over all workers; every worker must call it."""
        if self.workers > 1:
            import torch.distributed

            torch.distributed.all_reduce(values)
        return values

    def gather(self, own: T) -> list[T]:
        """Collect a picklable object of each worker, in order; every worker must call it."""
        if self.workers == 1:
            return [own]
        import torch.distributed

        everyone: list[Any] = [None] * self.workers
        torch.distributed.all_gather_object(everyone, own)
        return everyone
