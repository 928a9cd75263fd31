"""Which rows of a batch go through which adapter.

Shape legend: N tokens of the batch, S trials of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from torch import Tensor

from lorasweep.model.adapter import Adapter, Stack

# Gives the factors on a layer's inputs, 0 or 1 / (1 - p), from the layer's number and width.
Dropout = Callable[[int, int], Tensor]


@dataclass(frozen=True)
class Run:
    """Name trials that stand side by side in batch and stack, and have equally many tokens.

    first, last: their tokens, in rows laid end to end.
    members: their places in the stack.
    dropouts: of each of them, or none.
    """

    first: int
    last: int
    stack: Stack
    members: slice
    dropouts: tuple[Dropout, ...]

    def rows(self, flat: Tensor) -> Tensor:
        """Cut the run's tokens out of N, trial by trial."""
        count = self.members.stop - self.members.start
        return flat[self.first : self.last].view(count, -1, flat.shape[-1])


@dataclass(frozen=True)
class Part:
    """Hold one trial's share of a batch, whose rows follow those of the part before it.

    tokens: in its rows, padding included; None for equal shares.
    """

    adapter: Adapter
    tokens: int | None = None
    dropout: Dropout | None = None


@dataclass
class Routing:
    """Hold which rows of the coming batch belong to whom; all adapted layers look here."""

    parts: tuple[Part, ...] = ()
    places: dict[int, tuple[Stack, int]] = field(default_factory=dict)
    runs: dict[tuple[str, int], tuple[Run, ...]] = field(default_factory=dict)

    def of(self, layer: str, section: str, tokens: int) -> tuple[Run, ...]:
        """Give the runs of a layer; the layers of one section of a block share them."""
        key = (section, tokens)
        if key not in self.runs:
            self.runs[key] = tuple(self._find(layer, tokens))
        return self.runs[key]

    def _find(self, layer: str, tokens: int) -> Iterator[Run]:
        shares = [part.tokens or tokens // max(1, len(self.parts)) for part in self.parts]
        if self.parts and sum(shares) != tokens:
            raise ValueError(f"the parts must add up to the batch, got {shares} of {tokens}")
        ends = [0]
        for share in shares:
            ends.append(ends[-1] + share)
        pending: list[_Share] = []
        for part, (first, last) in zip(self.parts, pairwise(ends), strict=True):
            stack, place = self.places[id(part.adapter)]
            if layer not in stack.weights:
                continue
            here = _Share(first, last, stack, place, part.dropout)
            if pending and not _beside(pending[-1], here):
                yield _run(pending)
                pending = []
            pending.append(here)
        if pending:
            yield _run(pending)


@dataclass(frozen=True)
class _Share:
    """Hold one trial's tokens, from first to last, and its place in a stack."""

    first: int
    last: int
    stack: Stack
    place: int
    dropout: Dropout | None


def _beside(one: _Share, other: _Share) -> bool:
    """Tell whether two trials can share a product: neighbours with equally many tokens.

    A trial that drops inputs computes in another order, so it does not share with one that does
    not.
    """
    return (
        one.last == other.first
        and one.stack is other.stack
        and one.place + 1 == other.place
        and one.last - one.first == other.last - other.first
        and (one.dropout is None) == (other.dropout is None)
    )


def _run(shares: list[_Share]) -> Run:
    dropouts = tuple(share.dropout for share in shares if share.dropout is not None)
    first, last = shares[0], shares[-1]
    return Run(first.first, last.last, first.stack, slice(first.place, last.place + 1), dropouts)
