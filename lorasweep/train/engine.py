"""What runs trials asks of an engine, be it a pack of LoRA trials or one trial under DeepSpeed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import torch

from lorasweep.model.served import Served
from lorasweep.store.paths import TrialPaths
from lorasweep.train.checkpoint import Position
from lorasweep.train.progress import Progress, Trial


class Place(Protocol):
    """Hold one trial in training.

    notes: plain values that came with the state it was taken up from.
    diverged: why it has ended, or None.
    """

    position: Position
    notes: dict[str, Any]
    diverged: str | None

    @property
    def trial(self) -> Trial:
        """Give what is trained."""

    @property
    def trainable(self) -> int:
        """Count the parameters that are trained."""

    def save(self, folder: Path, notes: dict[str, Any]) -> None:
        """Write a state to go on from; every worker must call it."""

    def keep(self, paths: TrialPaths, tokenizer: Any) -> Path:
        """Write what was trained where others load it, and give the folder; on every worker."""


class Engine(Protocol):
    """Train trials, each in a place of its own.

    tokens, seconds: that the last step trained on, on this worker, and took.
    timed: whether a step waits for the device before it takes the time.
    """

    tokens: int
    seconds: float
    timed: bool

    @property
    def slots(self) -> Mapping[str, Place]:
        """Give the places by trial."""

    @property
    def device(self) -> torch.device:
        """Tell where it computes."""

    @property
    def base_bytes(self) -> int:
        """Count the memory that the base takes on this worker."""

    @property
    def shares_rows(self) -> bool:
        """Tell whether attention keeps apart examples in one row."""

    @property
    def attention_cost(self) -> float:
        """Give the cost of attending to one more token over that of all else done for a token."""

    @property
    def lockstep(self) -> bool:
        """Tell whether every worker must evaluate the same problems, not a share of its own."""

    def prepare(self, trial: Trial, state: Path | None = None) -> Place:
        """Make a trial ready, at its beginning or where a saved state left it."""

    def admit(self, place: Any) -> None:
        """Let a trial train from the next step on."""

    def retire(self, trial: str) -> Place:
        """Free a trial's place."""

    def step(self, resting: Collection[str] = ()) -> list[Progress]:
        """Train; give what the trials did whose optimizer step this completed."""

    def serving(self, trials: Collection[str]) -> AbstractContextManager[tuple[Served, list[str]]]:
        """Give the models of some trials for evaluation, and the trials in the models' order."""

    def serving_base(self) -> AbstractContextManager[Served]:
        """Give the base for evaluation, before any trial has changed it."""
