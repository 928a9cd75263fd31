"""Trials and their reports, as short as tests need them."""

from __future__ import annotations

from typing import Any, Literal

from lorasweep.lanes.messages import TrialEnded, TrialProgress
from lorasweep.spec.trial import LoraHyperparameters, TrialSpec
from lorasweep.store.records import Rung
from lorasweep.store.scores import Scores


def trial_of(name: str, stage: Literal["search", "confirm"] = "search") -> TrialSpec:
    return TrialSpec(id=name, hyperparameters=LoraHyperparameters(), seed=0, stage=stage)


def training(trial: str, step: int, percent: int) -> dict[str, Any]:
    return {
        "trial": trial,
        "step": step,
        "percent": percent,
        "train_loss": 1.5,
        "tokens": 10 * step,
        "tokens_per_s": 100.0,
        "train_s": 2.0,
        "evaluate_s": 1.0,
    }


def progress(
    trial: str = "a", step: int = 5, percent: int = 50, rung: Rung | None = None
) -> TrialProgress:
    return TrialProgress(
        **training(trial, step, percent), time=0.0, lr=1e-3, grad_norm=0.5, rung=rung
    )


def ended(trial: str = "a", step: int = 10, **fields: Any) -> TrialEnded:
    content: dict[str, Any] = {
        "status": "COMPLETE",
        "error": None,
        "scores": Scores(learning=0.5, source_accuracy=0.6, response_loss=1.0),
        "spectrum": None,
        "wall_s": 4.0,
        "trainable": 128,
        "peak_memory_bytes": None,
    }
    return TrialEnded(**training(trial, step, 100), **content | fields)
