"""Deterministic batches: the examples of a step follow from the seed and the step alone.

So a batch has no state to resume, and its micro-batches can be split over any number of workers.
Short examples share a row, end to end; each has positions of its own, starting at 0, by which
attention keeps them apart. A row is always `width` tokens long, whatever else is in the batch: what
one trial computes must not depend on the trials beside it.

Shape legend: B rows of a micro-batch, T tokens of a row (its width), N examples, K tokens that are
predicted, S tokens of examples in a micro-batch, padding left out.
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
from lorasweep.spec.sweep import TrainSpec
from lorasweep.spec.trial import FullHyperparameters, LoraHyperparameters

IGNORED = -100  # the label that cross-entropy leaves out
# The two constants below keep kernels row-invariant, so that a row gets the same bits whatever
# rows surround it, and packed training equals training alone.
# Matrix kernels compute a handful of rows in another way than many, and round differently; MKL did
# up to five rows. So a trial's tokens and predictions are padded to at least this many.
MIN_ROWS = 16
# Vectorised loops compute the last few numbers of a tensor one by one, and round differently. Rows
# of a multiple of this make each trial's share end where a vector ends.
ALIGNMENT = 16
MAX_WIDTH_FACTOR = 4  # a row is at most this many times as wide as the longest example
SAMPLED_STEPS = 32


@dataclass(frozen=True)
class MicroBatch:
    """The rows of one forward pass.

    index: of the micro-batch in its step, the same however many workers share the step.
    positions_BT: of each token in its own example, from 0.
    logit_indices_K: where logits are computed, in rows laid end to end: one before each label.
    labels_K: the predicted tokens.
    token_indices_S: where the tokens of examples are, in rows laid end to end.
    """

    index: int
    ids_BT: Tensor
    positions_BT: Tensor
    logit_indices_K: Tensor
    labels_K: Tensor
    token_indices_S: Tensor

    @property
    def tokens(self) -> int:
        """Number of tokens, padding left out."""
        return len(self.token_indices_S)


def first_fit(lengths: NDArray[np.int64], width: int) -> list[tuple[int, int]]:
    """Pack sequences into rows, each into the first with enough room.

    Returns:
        Row and first position of each sequence.
    """
    free: list[int] = []
    starts = []
    for length in lengths:
        row = next((row for row, room in enumerate(free) if room >= length), len(free))
        if row == len(free):
            free.append(width)
        starts.append((row, width - free[row]))
        free[row] -= int(length)
    return starts


def collate(
    tokens: Tokens | StoredTokens,
    rows: NDArray[np.int64],
    index: int,
    pad: int,
    width: int,
    *,
    shared: bool,
) -> MicroBatch:
    """Lay out examples in rows of one width, and mark the predicted tokens.

    The rest of a row is padding on the right, where causal attention never looks from an example.
    Every padding token has position 0 and so attends to itself alone.

    Args:
        shared: whether examples may share a row.
    """
    examples = [tokens.example(int(row)) for row in rows]
    lengths = np.asarray([len(ids) for ids, _ in examples])
    starts = first_fit(lengths, width) if shared else [(row, 0) for row in range(len(rows))]
    count = max(1 + max(row for row, _ in starts), -(-MIN_ROWS // width))
    ids_BT = np.full((count, width), pad, dtype=np.int64)
    positions_BT = np.zeros((count, width), dtype=np.int64)
    predicting, occupied = [], []
    for (ids, loss), (row, first) in zip(examples, starts, strict=True):
        ids_BT[row, first : first + len(ids)] = ids
        positions_BT[row, first : first + len(ids)] = np.arange(len(ids))
        start = row * width + first
        predicting.append(start + np.flatnonzero(loss[1:]))
        occupied.append(np.arange(start, start + len(ids)))
    logit_indices_K = np.concatenate(predicting)
    labels_K = ids_BT.ravel()[np.minimum(logit_indices_K + 1, ids_BT.size - 1)]
    missing = max(0, MIN_ROWS - len(logit_indices_K))
    return MicroBatch(
        index,
        torch.from_numpy(ids_BT),
        torch.from_numpy(positions_BT),
        torch.from_numpy(np.pad(logit_indices_K, (0, missing))),
        torch.from_numpy(np.pad(labels_K, (0, missing), constant_values=IGNORED)),
        torch.from_numpy(np.concatenate(occupied)),
    )


@dataclass(frozen=True)
class Batches:
    """The batches of one trial.

    batch_size: sequences of one step over all workers.
    micro_batch: sequences of one forward pass; divides batch_size.
    seed: of the trial; decides the order of the examples.
    pad: padding token id.
    width: tokens of a row; None for that of the longest example, rounded up.
    shared: whether examples may share a row, which the model must support.
    """

    tokens: Tokens | StoredTokens
    batch_size: int
    micro_batch: int
    seed: int
    pad: int
    width: int | None = None
    shared: bool = False

    def examples(self, step: int) -> NDArray[np.int64]:
        """Choose the examples of a step, longest first, which packs rows best.

        Epochs follow one another without a gap, each in its own random order.
        """
        count = len(self.tokens)
        first = step * self.batch_size
        positions = np.arange(first, first + self.batch_size)
        epochs = positions // count
        orders = {int(epoch): self._order(int(epoch)) for epoch in np.unique(epochs)}
        chosen = np.asarray(
            [
                orders[int(epoch)][position % count]
                for epoch, position in zip(epochs, positions, strict=True)
            ]
        )
        return chosen[np.argsort(-self.tokens.lengths_N[chosen], kind="stable")]

    @cached_property
    def _orders(self) -> dict[int, NDArray[np.int64]]:
        return {}

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if epoch not in self._orders:
            self._orders.clear()  # a step spans two epochs at most, unless data are few
            # Seeded by the epoch, so that a resumed trial need not replay the epochs before.
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.tokens))
            self._orders[epoch] = order
        return self._orders[epoch]

    def loss_tokens(self, step: int) -> int:
        """Count the tokens of a step that carry loss, over all workers."""
        return int(self.tokens.loss_tokens_N[self.examples(step)].sum())

    @property
    def micro_batches(self) -> int:
        """Number of micro-batches in a step, over all workers."""
        return self.batch_size // self.micro_batch

    def for_worker(self, step: int, shard: Shard) -> Iterator[MicroBatch]:
        """Iterate over one worker's micro-batches of a step, dealt out in turn to all workers."""
        examples = self.examples(step)
        width = self.width or self._longest
        for index in range(shard.worker, self.micro_batches, shard.workers):
            first = index * self.micro_batch
            mine = examples[first : first + self.micro_batch]
            yield collate(self.tokens, mine, index, self.pad, width, shared=self.shared)

    @cached_property
    def _longest(self) -> int:
        return round_up(int(self.tokens.lengths_N.max()))


def steps_of(
    hyperparameters: LoraHyperparameters | FullHyperparameters,
    train: TrainSpec,
    *,
    seq_len: int,
    examples: int,
) -> int:
    """Count a trial's optimizer steps: given, or from its tokens, or else from its epochs.

    Args:
        seq_len: tokens of a full sequence, in which a duration in tokens is counted.
        examples: of one epoch.
    """
    if train.steps is not None:
        return train.steps
    tokens, batch_size = hyperparameters.tokens, hyperparameters.batch_size
    if tokens is not None:
        return max(1, round(tokens / (batch_size * seq_len)))
    # Rounded up: the last batch is filled from the next epoch.
    return max(1, math.ceil(examples * hyperparameters.epochs / batch_size - 1e-9))


def row_width(tokens: Tokens | StoredTokens, micro_batch: int, attention_cost: float) -> int:
    """Choose the cheapest width of shared rows, by simulating the packing of random micro-batches.

    Narrow rows waste room at their ends; in wide ones every token attends to more others.

    Args:
        attention_cost: of attending to one more token, relative to all other work for a token.
    """
    lengths_N = tokens.lengths_N
    longest = round_up(int(lengths_N.max()))
    rng = np.random.default_rng(0)
    samples = [
        np.sort(rng.choice(lengths_N, micro_batch))[::-1].astype(np.int64)
        for _ in range(SAMPLED_STEPS)
    ]

    def cost(width: int) -> float:
        rows = sum(max(row for row, _ in first_fit(sample, width)) + 1 for sample in samples)
        return float(rows * width * (1 + attention_cost * width))

    stride = round_up(longest // 8)
    return min(range(longest, MAX_WIDTH_FACTOR * longest + 1, stride), key=cost)


def round_up(length: int) -> int:
    """Round a number of tokens up to a multiple of ALIGNMENT."""
    return -(-length // ALIGNMENT) * ALIGNMENT
