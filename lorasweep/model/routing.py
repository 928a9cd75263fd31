"""Routing of batch rows to adapters: which tokens belong to which trial, and who shares a product.

Shape legend: N tokens of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from torch import Tensor

from lorasweep.model.adapter import Adapter, Stack

# Makes the factors on a layer's inputs, 0 or 1 / (1 - p), from the layer's number and width.
Dropout = Callable[[int, int], Tensor]


@dataclass(frozen=True)
class TrialRows:
    """The rows of one trial in a batch; they follow those of the trial before it.

    tokens: in its rows, padding included; None for equal shares.
    """

    adapter: Adapter
    tokens: int | None = None
    dropout: Dropout | None = None


@dataclass(frozen=True)
class Group:
    """Trials that share one batched product: neighbours in batch and stack with equal shapes.

    first, last: their tokens, in rows laid end to end.
    members: their adapters in the stack.
    dropouts: one for each of them, or none.
    """

    first: int
    last: int
    stack: Stack
    members: slice
    dropouts: tuple[Dropout, ...]

    def rows(self, flat: Tensor) -> Tensor:
        """View the group's tokens among the N of the batch, trial by trial."""
        count = self.members.stop - self.members.start
        return flat[self.first : self.last].view(count, -1, flat.shape[-1])


@dataclass
class Routing:
    """The trials of the current batch, which all adapted layers look up here.

    stacked: the stack of each adapter and its index in it, by the adapter's id().
    stacks_of: the stacks that have a layer, by the layer's name.
    groups: found so far for this batch, by the stacks that a layer is in and number of tokens.
    """

    trials: tuple[TrialRows, ...] = ()
    stacked: dict[int, tuple[Stack, int]] = field(default_factory=dict)
    stacks_of: dict[str, tuple[int, ...]] = field(default_factory=dict)
    groups: dict[tuple[tuple[int, ...], int], tuple[Group, ...]] = field(default_factory=dict)

    def restack(self, stacked: dict[int, tuple[Stack, int]]) -> None:
        """Route to these stacks from now on."""
        self.stacked, self.trials, self.groups = stacked, (), {}
        stacks = list({id(stack): stack for stack, _ in stacked.values()}.values())
        layers = dict.fromkeys(layer for stack in stacks for layer in stack.weights)
        self.stacks_of = {
            layer: tuple(n for n, stack in enumerate(stacks) if layer in stack.weights)
            for layer in layers
        }

    def groups_of(self, layer: str, tokens: int) -> tuple[Group, ...]:
        """Look up the groups of a layer; layers of the same stacks have the same."""
        if layer not in self.stacks_of:
            return ()
        # By tokens too: generating calls a layer with whole prompts and then with single tokens.
        key = (self.stacks_of[layer], tokens)
        if key not in self.groups:
            self.groups[key] = tuple(self._find(layer, tokens))
        return self.groups[key]

    def _find(self, layer: str, tokens: int) -> Iterator[Group]:
        # In evaluation every copy has the same rows, so shares are equal and nobody counts tokens.
        shares = [trial.tokens or tokens // max(1, len(self.trials)) for trial in self.trials]
        if self.trials and sum(shares) != tokens:
            raise ValueError(f"the trials' rows must add up to the batch, got {shares} of {tokens}")
        ends = [0]
        for share in shares:
            ends.append(ends[-1] + share)
        pending: list[_Span] = []
        for trial, (first, last) in zip(self.trials, pairwise(ends), strict=True):
            stack, index = self.stacked[id(trial.adapter)]
            if layer not in stack.weights:  # not among the trial's targets
                continue
            span = _Span(first, last, stack, index, trial.dropout)
            if pending and not _can_share(pending[-1], span):
                yield _group(pending)
                pending = []
            pending.append(span)
        if pending:
            yield _group(pending)


@dataclass(frozen=True)
class _Span:
    """Tokens of one trial, from first to last, and the index of its adapter in a stack."""

    first: int
    last: int
    stack: Stack
    index: int
    dropout: Dropout | None


def _can_share(one: _Span, other: _Span) -> bool:
    """Check whether two neighbours can share a product: equally many tokens, adjacent adapters.

    Dropout applies its mask before the product, so a trial with it does not share with one without.
    """
    return (
        one.last == other.first
        and one.stack is other.stack
        and one.index + 1 == other.index
        and one.last - one.first == other.last - other.first
        and (one.dropout is None) == (other.dropout is None)
    )


def _group(spans: list[_Span]) -> Group:
    dropouts = tuple(span.dropout for span in spans if span.dropout is not None)
    first, last = spans[0], spans[-1]
    return Group(first.first, last.last, first.stack, slice(first.index, last.index + 1), dropouts)
