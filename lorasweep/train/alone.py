"""One trial under DeepSpeed, in the form of an engine with one place."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lorasweep.model.served import Served
from lorasweep.store.paths import TrialPaths
from lorasweep.train.checkpoint import Position
from lorasweep.train.full import DeepSpeedEngine
from lorasweep.train.progress import Progress, Trial


class OnlyPlace:
    """Hold the one trial of an engine."""

    def __init__(self, engine: DeepSpeedEngine) -> None:
        """Take an engine that has begun the trial."""
        self._engine = engine
        self.notes = engine.notes

    @property
    def trial(self) -> Trial:
        """Give what is trained."""
        return self._engine.trial

    @property
    def position(self) -> Position:
        """Tell where the trial stands."""
        return self._engine.position

    @position.setter
    def position(self, position: Position) -> None:
        self._engine.position = position

    @property
    def diverged(self) -> str | None:
        """Say why the trial has ended, or None."""
        return self._engine.diverged

    @diverged.setter
    def diverged(self, reason: str | None) -> None:
        self._engine.diverged = reason

    @property
    def trainable(self) -> int:
        """Count the parameters that are trained."""
        return self._engine.trainable

    def save(self, folder: Path, notes: dict[str, Any]) -> None:
        """Write a state to go on from; every worker must call it."""
        self._engine.save(folder, notes)

    def keep(self, paths: TrialPaths, tokenizer: Any) -> Path:
        """Write the model or the adapter, and give its folder; every worker must call it."""
        lora = self.trial.hyperparameters.method == "lora"
        folder = paths.adapter if lora else paths.model
        self._engine.save_model(folder, tokenizer)
        return folder


class LoneEngine:
    """Train one trial under DeepSpeed; `engine` must have loaded its base."""

    def __init__(self, engine: DeepSpeedEngine) -> None:
        """Start without a trial."""
        self._engine = engine
        self.slots: dict[str, OnlyPlace] = {}
        self.tokens, self.seconds = 0, 0.0
        self.timed = False  # a step waits for the gradient's norm in any case

    @property
    def device(self) -> torch.device:
        """Tell where it computes."""
        return self._engine.device

    @property
    def base_bytes(self) -> int:
        """Count no memory, since no other trial shares it."""
        return 0

    @property
    def shares_rows(self) -> bool:
        """Tell whether attention keeps apart examples in one row."""
        return self._engine.shares_rows

    @property
    def attention_cost(self) -> float:
        """Give the cost of attending to one more token over that of all else done for a token."""
        return self._engine.attention_cost

    @property
    def lockstep(self) -> bool:
        """Tell whether every worker must evaluate the same problems, not a share of its own."""
        return self._engine.lockstep

    def prepare(self, trial: Trial, state: Path | None = None) -> OnlyPlace:
        """Take the trial up at its beginning, or where a saved state left it."""
        self._engine.begin(trial, state)
        return OnlyPlace(self._engine)

    def admit(self, place: OnlyPlace) -> None:
        """Let the trial train from the next step on."""
        self.slots = {place.trial.id: place}

    def retire(self, trial: str) -> OnlyPlace:
        """End the trial."""
        return self.slots.pop(trial)

    def step(self, resting: Collection[str] = ()) -> list[Progress]:
        """Take one optimizer step, unless the trial rests."""
        self.tokens, self.seconds = 0, 0.0
        if not {*self.slots} - {*resting}:
            return []
        progress = self._engine.step()
        self.tokens, self.seconds = self._engine.tokens, self._engine.seconds
        return [progress]

    @contextmanager
    def serving(self, trials: Collection[str]) -> Iterator[tuple[Served, list[str]]]:
        """Give the trial's model for evaluation; every worker must ask."""
        with self._engine.serve() as served:
            yield served, list(trials)

    @contextmanager
    def serving_base(self) -> Iterator[Served]:
        """Give the base for evaluation, before the trial has changed it."""
        with self._engine.serve() as served:
            yield served
