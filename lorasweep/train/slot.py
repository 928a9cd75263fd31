"""One LoRA trial in training, beside others on one frozen base.

Shape legend: P numbers of an adapter.
"""

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
from lorasweep.train.checkpoint import Position, save_state
from lorasweep.train.optim import build_optimizer, learning_rate
from lorasweep.train.progress import Trial


@dataclass(frozen=True)
class LoraTrial(Trial):
    """Hold all that training one LoRA trial takes."""

    hyperparameters: LoraHyperparameters


class Slot:
    """Hold a trial in training: adapter, optimizer, position, and the step it is in."""

    def __init__(self, trial: LoraTrial, adapter: Adapter, shard: Shard, base: str = "") -> None:
        """Put a trial at its beginning.

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
        self.notes: dict[str, Any] = {}
        self.diverged: str | None = None
        self.begin_step()

    def begin_step(self) -> None:
        """Forget what has been accumulated, and stand before the step's first micro-batch."""
        self.adapter.gradients_P.zero_()
        self.done = 0
        self.tokens = 0
        self.train_s = 0.0
        self.loss = torch.zeros((), device=self.adapter.gradients_P.device)
        self.targets = self.trial.batches.targets(self.position.step)
        self._coming = self.trial.batches.dealt(self.position.step, self._shard)

    @property
    def lr(self) -> float:
        """Give the learning rate of the step that the trial is in."""
        trial = self.trial
        return learning_rate(trial.hyperparameters, trial.train, trial.steps, self.position.step)

    def next_batch(self) -> MicroBatch:
        """Give this worker's next micro-batch of the step."""
        return next(self._coming)

    @property
    def trainable(self) -> int:
        """Count the parameters that are trained."""
        return self.adapter.trainable

    def save(self, folder: Path, notes: dict[str, Any]) -> None:
        """Write the state; what a step has accumulated is left out, since it can be redone.

        All workers hold the same, and the first one writes it.
        """
        if self._shard.worker == 0:
            save_state(folder, self.adapter.named(), self.optimizer, self.position, notes)

    def keep(self, paths: TrialPaths, tokenizer: Any) -> Path:  # noqa: ARG002 - as other engines
        """Write the adapter as a PEFT folder, and give the folder."""
        if self._shard.worker == 0:
            hyperparameters = self.trial.hyperparameters
            named, layers = self.adapter.named(), self.adapter.layers
            save_adapter(paths.adapter, named, layers, hyperparameters, self._base)
        return paths.adapter
