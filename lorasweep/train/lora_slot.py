"""The slot of one LoRA trial in a packed engine: adapter, optimizer, and gradient accumulation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lorasweep.data.batches import MicroBatch
from lorasweep.data.shard import Shard
from lorasweep.model.adapter import Adapter
from lorasweep.model.lora import save_adapter
from lorasweep.spec.trial import LoraHyperparameters
from lorasweep.store.paths import TrialPaths
from lorasweep.train.checkpoint import save_state
from lorasweep.train.optim import build_optimizer, learning_rate
from lorasweep.train.progress import Position, Trial, TrialNotes


@dataclass(frozen=True)
class LoraTrial(Trial):
    """One LoRA trial as an engine trains it."""

    hyperparameters: LoraHyperparameters


class LoraSlot:
    """One LoRA trial in training, and what its current optimizer step has accumulated.

    micro_batches_done, tokens, train_s, loss: accumulated on this worker in the current step.
    loss_tokens: tokens of the current step that carry loss, over all workers.
    """

    def __init__(self, trial: LoraTrial, adapter: Adapter, shard: Shard, base: str = "") -> None:
        """Start a trial at its first step.

        Args:
            base: path or hub name of the base, which the saved adapter names.
        """
        self.trial, self.adapter, self._shard, self._base = trial, adapter, shard, base
        self.optimizer = build_optimizer(
            trial.train,
            [adapter.weights_P],
            trial.hyperparameters.lr,
            trial.hyperparameters.weight_decay,
        )
        self.position = Position()
        self.notes = TrialNotes()
        self.diverged: str | None = None
        self.begin_step()

    def begin_step(self) -> None:
        """Reset what has been accumulated, and rewind to the step's first micro-batch."""
        self.adapter.gradients_P.zero_()
        self.micro_batches_done = 0
        self.tokens = 0
        self.train_s = 0.0
        self.loss = torch.zeros((), device=self.adapter.gradients_P.device)
        # Known before the first micro-batch. Each divides by it, so that their sum is the mean over
        # the step's tokens, however many of them a micro-batch has.
        self.loss_tokens = self.trial.batches.loss_tokens(self.position.step)
        self._micro_batches = self.trial.batches.for_worker(self.position.step, self._shard)

    @property
    def lr(self) -> float:
        """Learning rate of the current step."""
        trial = self.trial
        return learning_rate(trial.hyperparameters, trial.train, trial.steps, self.position.step)

    def next_batch(self) -> MicroBatch:
        """Draw this worker's next micro-batch of the step."""
        return next(self._micro_batches)

    @property
    def step_complete(self) -> bool:
        """Whether all micro-batches of the step are done, on all workers."""
        done = self.micro_batches_done * self._shard.workers
        return done >= self.trial.batches.micro_batches

    @property
    def trainable(self) -> int:
        """Number of trained parameters."""
        return self.adapter.trainable

    def save_state(self, folder: Path, notes: TrialNotes) -> None:
        """Write a checkpoint, from the first worker, since all hold the same.

        What the current step has accumulated is left out: resuming begins that step again.
        """
        if self._shard.worker == 0:
            save_state(folder, self.adapter.named(), self.optimizer, self.position, notes)

    def save_trained(self, paths: TrialPaths, tokenizer: Any) -> Path:  # noqa: ARG002 - of `Slot`
        """Write the adapter as a PEFT folder."""
        if self._shard.worker == 0:
            hyperparameters = self.trial.hyperparameters
            named, layers = self.adapter.named(), self.adapter.layers
            save_adapter(paths.adapter, named, layers, hyperparameters, self._base)
        return paths.adapter
