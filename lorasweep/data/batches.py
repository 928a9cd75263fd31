"""Deterministic batches: which examples a step trains on depends on the seed and the step alone.

So a batch needs no state to resume, and its rows can be dealt to any number of workers. Short
examples share a row, end to end; each has positions of its own, from which attention sees where
the next one begins. A row is always `width` tokens long, whatever else is in the batch, so that
what one trial computes does not depend on the trials beside it.

Shape legend: B rows of a micro-batch, T tokens of a row (its width), N examples, K tokens that are
predicted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lorasweep.data.shard import Shard
from lorasweep.data.tokens import StoredTokens, Tokens

IGNORED = -100  # the label that cross-entropy leaves out
# Matrix kernels treat a handful of rows in another way than many, and round otherwise; up to five
# rows did in MKL. A trial's tokens and its predictions are filled up to this many, so that neither
# is ever a handful.
FEWEST_PREDICTIONS = 16
# Vectorised loops compute the last few numbers of a tensor one by one, and round otherwise. Rows of
# a multiple of this keep the end of a trial's share where a vector ends.
EVEN = 16
WIDEST = 4  # a row is at most so many times the longest example
SAMPLED_STEPS = 32


@dataclass(frozen=True)
class MicroBatch:
    """Hold the rows of one forward pass.

    index: position of the micro-batch in its step, the same however many workers share the step.
    positions_BT: of each token in its own example, from 0.
    places_K: where the tokens before the predicted ones stand, in rows laid end to end.
    labels_K: the predicted tokens.
    filled_S: where tokens of examples stand, in rows laid end to end, example by example.
    """

    index: int
    ids_BT: Tensor
    positions_BT: Tensor
    places_K: Tensor
    labels_K: Tensor
    filled_S: Tensor

    @property
    def tokens(self) -> int:
        """Count the tokens, padding left out."""
        return len(self.filled_S)


def first_fit(lengths: NDArray[np.int64], width: int) -> list[tuple[int, int]]:
    """Place sequences into rows, each in the first that has room.

    Returns:
        For each sequence its row and the place in it where it begins.
    """
    free: list[int] = []
    places = []
    for length in lengths:
        row = next((row for row, room in enumerate(free) if room >= length), len(free))
        if row == len(free):
            free.append(width)
        places.append((row, width - free[row]))
        free[row] -= int(length)
    return places


def collate(
    tokens: Tokens | StoredTokens,
    rows: NDArray[np.int64],
    index: int,
    pad: int,
    width: int,
    *,
    shared: bool,
) -> MicroBatch:
    """Lay examples into rows of one width and mark what is predicted.

    What is left of a row is padding, each token of it at position 0 and so by itself. It stands on
    the right, where causal attention never looks.

    Args:
        shared: whether examples may share a row.
    """
    examples = [tokens.example(int(row)) for row in rows]
    lengths = np.asarray([len(ids) for ids, _ in examples])
    places = first_fit(lengths, width) if shared else [(row, 0) for row in range(len(rows))]
    count = max(1 + max(row for row, _ in places), -(-FEWEST_PREDICTIONS // width))
    ids_BT = np.full((count, width), pad, dtype=np.int64)
    positions_BT = np.zeros((count, width), dtype=np.int64)
    before, filled = [], []
    for (ids, prompt), (row, first) in zip(examples, places, strict=True):
        ids_BT[row, first : first + len(ids)] = ids
        positions_BT[row, first : first + len(ids)] = np.arange(len(ids))
        start = row * width + first
        before.append(np.arange(start + max(prompt, 1) - 1, start + len(ids) - 1))
        filled.append(np.arange(start, start + len(ids)))
    places_K = np.concatenate(before)
    labels_K = ids_BT.ravel()[np.minimum(places_K + 1, ids_BT.size - 1)]
    missing = max(0, FEWEST_PREDICTIONS - len(places_K))
    return MicroBatch(
        index,
        torch.from_numpy(ids_BT),
        torch.from_numpy(positions_BT),
        torch.from_numpy(np.pad(places_K, (0, missing))),
        torch.from_numpy(np.pad(labels_K, (0, missing), constant_values=IGNORED)),
        torch.from_numpy(np.concatenate(filled)),
    )


@dataclass(frozen=True)
class Batches:
    """Deal the global batch of every step.

    batch_size: sequences of one step over all workers.
    micro_batch: sequences of one forward pass; divides batch_size.
    seed: of the trial; decides the order of the examples.
    pad: token id that fills up rows.
    width: tokens of a row; None is the longest example's, rounded up.
    shared: whether examples may share a row, which the model must understand.
    """

    tokens: Tokens | StoredTokens
    batch_size: int
    micro_batch: int
    seed: int
    pad: int
    width: int | None = None
    shared: bool = False

    def rows(self, step: int) -> NDArray[np.int64]:
        """Give the examples of a step, the longest first, which fills rows best.

        Epochs follow one another without a gap, each in an order of its own.
        """
        count = len(self.tokens)
        first = step * self.batch_size
        positions = np.arange(first, first + self.batch_size)
        epochs = positions // count
        orders = {int(epoch): self._order(int(epoch)) for epoch in np.unique(epochs)}
        rows = np.asarray(
            [
                orders[int(epoch)][position % count]
                for epoch, position in zip(epochs, positions, strict=True)
            ]
        )
        return rows[np.argsort(-self.tokens.lengths_N[rows], kind="stable")]

    @cached_property
    def _orders(self) -> dict[int, NDArray[np.int64]]:
        return {}

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if epoch not in self._orders:
            self._orders.clear()  # a step reaches into two epochs at most, unless data are few
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.tokens))
            self._orders[epoch] = order
        return self._orders[epoch]

    def targets(self, step: int) -> int:
        """Count the tokens of a step that carry loss, over all workers."""
        return int(self.tokens.targets_N[self.rows(step)].sum())

    @property
    def micro_batches(self) -> int:
        """Count the micro-batches of a step, over all workers."""
        return self.batch_size // self.micro_batch

    def dealt(self, step: int, shard: Shard) -> Iterator[MicroBatch]:
        """Give one worker its share of a step: every so-manieth micro-batch."""
        rows = self.rows(step)
        width = self.width or self._longest
        for index in range(shard.worker, self.micro_batches, shard.workers):
            first = index * self.micro_batch
            mine = rows[first : first + self.micro_batch]
            yield collate(self.tokens, mine, index, self.pad, width, shared=self.shared)

    @cached_property
    def _longest(self) -> int:
        return even(int(self.tokens.lengths_N.max()))


def steps_for(
    tokens: int | None, epochs: float, *, batch_size: int, seq_len: int, examples: int
) -> int:
    """Count the steps of a duration, given in tokens of full sequences or else in epochs."""
    if tokens is not None:
        return max(1, round(tokens / (batch_size * seq_len)))
    return steps_of(examples, batch_size, epochs)


def steps_of(examples: int, batch_size: int, epochs: float) -> int:
    """Count the steps of a number of epochs; the next epoch fills up the last batch."""
    return max(1, math.ceil(examples * epochs / batch_size - 1e-9))


def row_width(tokens: Tokens | StoredTokens, micro_batch: int, attention: float) -> int:
    """Choose the width of shared rows that costs least: narrow ones waste room, wide ones attend.

    Args:
        attention: cost of attending to one more token, over that of all else done for a token.
    """
    lengths_N = tokens.lengths_N
    longest = even(int(lengths_N.max()))
    rng = np.random.default_rng(0)
    samples = [
        np.sort(rng.choice(lengths_N, micro_batch))[::-1].astype(np.int64)
        for _ in range(SAMPLED_STEPS)
    ]

    def cost(width: int) -> float:
        rows = sum(max(row for row, _ in first_fit(sample, width)) + 1 for sample in samples)
        return float(rows * width * (1 + attention * width))

    apart = even(longest // 8)
    return min(range(longest, WIDEST * longest + 1, apart), key=cost)


def even(length: int) -> int:
    """Round a number of tokens up to a whole number of vectors."""
    return -(-length // EVEN) * EVEN
