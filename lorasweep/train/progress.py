"""What both engines train and report: a trial, what a step of it did, and when it has diverged."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lorasweep.data.batches import Batches
from lorasweep.spec.sweep import TrainSpec
from lorasweep.spec.trial import FullHyperparameters, LoraHyperparameters
from lorasweep.train.checkpoint import Position

SMOOTHED_STEPS = 10
# A model that guesses every token at even odds has loss ln(vocabulary). Twice that over ten steps
# is an update that has wrecked the model, far from any loss a useful trial passes through.
EXPLODED = 2.0


@dataclass(frozen=True)
class Trial:
    """Hold all that training one trial takes.

    train: its optimizer, schedule and clipping.
    steps: optimizer steps from beginning to end.
    """

    id: str
    hyperparameters: LoraHyperparameters | FullHyperparameters
    train: TrainSpec
    batches: Batches
    steps: int


@dataclass(frozen=True)
class Progress:
    """Hold what one optimizer step of one trial did.

    position: where the trial stands after the step.
    lr: learning rate of the step.
    grad_norm: norm of the gradient before clipping.
    diverged: why the trial ends here, or None; its weights then keep their last finite values.
    """

    trial: str
    position: Position
    lr: float
    grad_norm: float
    diverged: str | None = None


def divergence(losses: tuple[float, ...], norm: float, guessing: float) -> str | None:
    """Say why a trial has diverged, or None.

    Args:
        losses: of its last steps, at most SMOOTHED_STEPS.
        norm: of the last gradient.
        guessing: loss of a model that guesses every token at even odds.
    """
    if not math.isfinite(losses[-1]):
        return "the training loss is not finite"
    if not math.isfinite(norm):
        return "the gradient is not finite"
    if norm == 0 and losses[-1] > guessing / 2:
        # Activations that overflow can end in zeros, which a norm hides from the loss.
        return f"the gradient is zero at a loss of {losses[-1]:.3g}"
    smooth = sum(losses) / len(losses)
    if len(losses) == SMOOTHED_STEPS and smooth > EXPLODED * guessing:
        return f"the training loss of {smooth:.3g} is beyond twice that of guessing, {guessing:.3g}"
    return None
