"""What every engine trains and reports: trial, position, progress, and the rule of divergence."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lorasweep.data.batches import Batches
from lorasweep.spec.sweep import TrainSpec
from lorasweep.spec.trial import Frozen, FullHyperparameters, LoraHyperparameters
from lorasweep.store.records import Rung

SMOOTHED_STEPS = 10
# A model that guesses every token at even odds has loss ln(vocabulary). Twice that, averaged over
# ten steps, means that an update has wrecked the model: no useful trial passes through such losses.
EXPLODED = 2.0


@dataclass(frozen=True)
class Trial:
    """One trial as an engine trains it.

    train: its optimizer, schedule and clipping.
    steps: optimizer steps in all.
    """

    id: str
    hyperparameters: LoraHyperparameters | FullHyperparameters
    train: TrainSpec
    batches: Batches
    steps: int


class TrialNotes(Frozen):
    """What a checkpoint keeps of a trial beside its training state.

    rungs: passed so far, if a scheduler judges them.
    evaluate_s: seconds spent on measuring it.
    """

    rungs: tuple[Rung, ...] = ()
    evaluate_s: float = 0.0


@dataclass
class Position:
    """How far a trial has trained; the order of its data follows from the step alone.

    step: optimizer steps done.
    tokens: trained on so far, padding left out.
    losses: of the last SMOOTHED_STEPS steps, in nats per token.
    train_s: seconds spent in optimizer steps.
    """

    step: int = 0
    tokens: int = 0
    losses: tuple[float, ...] = ()
    train_s: float = 0.0

    @property
    def train_loss(self) -> float:
        """Mean loss of the last steps, in nats per token."""
        return sum(self.losses) / len(self.losses) if self.losses else float("nan")

    def recent_losses(self, loss: float) -> tuple[float, ...]:
        """Append the loss of one more step, and keep the last ones."""
        return (*self.losses, loss)[-SMOOTHED_STEPS:]

    def next(self, loss: float, tokens: int, seconds: float) -> Position:
        """Advance by one optimizer step."""
        return Position(
            self.step + 1,
            self.tokens + tokens,
            self.recent_losses(loss),
            self.train_s + seconds,
        )


@dataclass(frozen=True)
class Progress:
    """Outcome of one optimizer step of one trial.

    position: after the step.
    lr: learning rate of the step.
    grad_norm: norm of the gradient before clipping.
    diverged: why the trial ends here, or None; its weights then keep their last finite values.
    """

    trial: str
    position: Position
    lr: float
    grad_norm: float
    diverged: str | None = None


def divergence(losses: tuple[float, ...], grad_norm: float, vocabulary: int) -> str | None:
    """Explain why a trial has diverged; None where it has not.

    Args:
        losses: of the last steps, at most SMOOTHED_STEPS.
        grad_norm: of the last step.
        vocabulary: tokens that the model predicts among.
    """
    guessing = math.log(vocabulary)
    if not math.isfinite(losses[-1]):
        return "the training loss is not finite"
    if not math.isfinite(grad_norm):
        return "the gradient is not finite"
    if grad_norm == 0 and losses[-1] > guessing / 2:
        # Activations that overflow can end as zeros: the loss stays finite and nothing trains.
        return f"the gradient is zero at a loss of {losses[-1]:.3g}"
    smooth = sum(losses) / len(losses)
    if len(losses) == SMOOTHED_STEPS and smooth > EXPLODED * guessing:
        return f"the training loss of {smooth:.3g} is beyond twice that of guessing, {guessing:.3g}"
    return None


def micro_batch_size(train: TrainSpec, batch_size: int, workers: int) -> int:
    """Choose the sequences of one forward pass; by default a worker's whole share of a batch."""
    return train.micro_batch or batch_size // workers
