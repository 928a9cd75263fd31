"""Deterministic batches: which examples a step trains on depends on the seed and the step alone.

So a batch needs no state to resume, and its rows can be dealt to any number of workers.

Shape legend: B rows of a micro-batch, T tokens of its longest row, N examples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lorasweep.data.shard import Shard
from lorasweep.data.tokens import Tokens

IGNORED = -100  # the label that cross-entropy leaves out


@dataclass(frozen=True)
class MicroBatch:
    """Hold the rows of one forward pass, padded on the right to the longest of them.

    index: position of the micro-batch in its step, the same however many workers share the step.
    tokens: in all rows, padding left out.
    """

    index: int
    ids_BT: Tensor
    labels_BT: Tensor
    tokens: int


def collate(tokens: Tokens, rows: NDArray[np.int64], index: int, pad: int) -> MicroBatch:
    """Pad rows to one length and mark what carries loss.

    Padding stands on the right, where causal attention never looks, so no attention mask is needed.
    The first token of a row has nothing before it, so the shift inside the loss drops its label.
    """
    examples = [tokens.example(int(row)) for row in rows]
    longest = max(len(ids) for ids, _ in examples)
    ids_BT = np.full((len(rows), longest), pad, dtype=np.int64)
    labels_BT = np.full((len(rows), longest), IGNORED, dtype=np.int64)
    for i, (ids, prompt) in enumerate(examples):
        ids_BT[i, : len(ids)] = ids
        labels_BT[i, prompt : len(ids)] = ids[prompt:]
    count = sum(len(ids) for ids, _ in examples)
    return MicroBatch(index, torch.from_numpy(ids_BT), torch.from_numpy(labels_BT), count)


@dataclass(frozen=True)
class Batches:
    """Deal the global batch of every step.

    batch_size: rows of one step over all workers.
    micro_batch: rows of one forward pass; divides batch_size.
    seed: of the trial; decides the order of the examples.
    pad: token id that fills up rows.
    """

    tokens: Tokens
    batch_size: int
    micro_batch: int
    seed: int
    pad: int

    def rows(self, step: int) -> NDArray[np.int64]:
        """Give the examples of a step, the longest first, so that neighbours need little padding.

        Epochs follow one another without a gap, each in an order of its own.
        """
        count = len(self.tokens)
        first = step * self.batch_size
        positions = np.arange(first, first + self.batch_size)
        epochs = positions // count
        orders = {epoch: self._order(int(epoch)) for epoch in np.unique(epochs)}
        rows = np.asarray(
            [
                orders[epoch][position % count]
                for epoch, position in zip(epochs, positions, strict=True)
            ]
        )
        lengths = np.diff(self.tokens.starts_N1)[rows]
        return rows[np.argsort(-lengths, kind="stable")]

    def _order(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.tokens))

    def targets(self, step: int) -> int:
        """Count the tokens of a step that carry loss, over all workers."""
        return int(self.tokens.targets_N[self.rows(step)].sum())

    def micro_batches(self, step: int, shard: Shard) -> Iterator[MicroBatch]:
        """Give one worker its share of a step: every so-manieth micro-batch."""
        rows = self.rows(step)
        for index in range(shard.worker, self.batch_size // self.micro_batch, shard.workers):
            first = index * self.micro_batch
            yield collate(self.tokens, rows[first : first + self.micro_batch], index, self.pad)


def steps_of(examples: int, batch_size: int, epochs: float) -> int:
    """Count the steps of a number of epochs; the next epoch fills up the last batch."""
    return max(1, math.ceil(examples * epochs / batch_size - 1e-9))
