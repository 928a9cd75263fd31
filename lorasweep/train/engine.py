"""The interface of a training engine, whether it packs LoRA trials or runs one under DeepSpeed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import torch

from lorasweep.model.served import Served
from lorasweep.store.paths import TrialPaths
from lorasweep.train.progress import Position, Progress, Trial, TrialNotes


class Slot(Protocol):
    """One trial in training: its parameters, optimizer state and position.

    notes: stored with the state that the trial was resumed from.
    diverged: why the trial ended early, or None.
    """

    position: Position
    notes: TrialNotes
    diverged: str | None

    @property
    def trial(self) -> Trial:
        """The trial being trained."""

    @property
    def trainable(self) -> int:
        """Number of trained parameters."""

    def save_state(self, folder: Path, notes: TrialNotes) -> None:
        """Write a checkpoint to resume from; every worker must call it."""

    def save_trained(self, paths: TrialPaths, tokenizer: Any) -> Path:
        """Write the adapter or model for others to load; every worker must call it.

        Returns:
            The folder, a PEFT or transformers one.
        """


class Engine(Protocol):
    """Trains the trials in its slots.

    tokens, seconds: trained on by this worker in the last step, and how long that took.
    timed: whether a step waits for the device before it reads the clock.
    """

    tokens: int
    seconds: float
    timed: bool

    @property
    def slots(self) -> Mapping[str, Slot]:
        """Occupied slots, by trial id."""

    @property
    def device(self) -> torch.device:
        """The device that computes."""

    @property
    def base_bytes(self) -> int:
        """Memory of the base on this worker that trials share."""

    @property
    def shares_rows(self) -> bool:
        """Whether attention keeps apart several examples in one row."""

    @property
    def attention_cost(self) -> float:
        """Cost of attending to one more token, relative to all other work for a token."""

    @property
    def lockstep(self) -> bool:
        """Whether all workers must evaluate the same problems, instead of a share each."""

    def prepare(self, trial: Trial, state: Path | None = None) -> Slot:
        """Build a trial's slot, from its first step or from a saved state."""

    def admit(self, slot: Any) -> None:
        """Train a prepared trial from the next step on."""

    def retire(self, trial: str) -> Slot:
        """Remove a trial from the engine."""

    def step(self, resting: Collection[str] = ()) -> list[Progress]:
        """Train all but the resting trials; report those that completed an optimizer step."""

    def serving(self, trials: Collection[str]) -> AbstractContextManager[tuple[Served, list[str]]]:
        """Serve trained models for evaluation, with the trials in the order of the models."""

    def serving_base(self) -> AbstractContextManager[Served]:
        """Serve the untrained base for evaluation, before any trial has changed it."""
