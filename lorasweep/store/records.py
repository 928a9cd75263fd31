"""What the journal may say: one record a line, in the words of docs/journal.md."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, TypeAdapter

from lorasweep.spec.trial import Frozen, LoraHyperparameters

FORMAT = 1

FinalStatus = Literal["COMPLETE", "PRUNED", "DIVERGED", "FAILED"]
Status = Literal["PENDING", "RUNNING"] | FinalStatus


def _finite(value: Any) -> Any:
    """Turn NaN and infinity into None, since JSON has neither."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _finite_scores(value: Any) -> Any:
    """Leave out the tasks whose score is not finite, as if they had not been measured."""
    if not isinstance(value, dict):
        return value
    return {name: score for name, score in value.items() if _finite(score) is not None}


Measured = Annotated[float | None, BeforeValidator(_finite)]
TaskScores = Annotated[dict[str, float], BeforeValidator(_finite_scores)]


class Scores(Frozen):
    """Hold what was measured on one model.

    learning: mean score over the learning suite, in [0, 1].
    source_accuracy: mean accuracy over the source suite, in [0, 1]; None where it is not measured.
    response_loss: mean cross-entropy per held-out response token, in nats.
    tasks: every task's own score.
    """

    learning: Measured = None
    source_accuracy: Measured = None
    response_loss: Measured = None
    tasks: TaskScores = {}


class Rung(Frozen):
    """Hold what the scheduler saw of a trial at one rung.

    percent: share of the trial's steps done, in percent.
    response_loss: on held-out examples, in nats per token.
    """

    percent: int
    step: int
    response_loss: Measured


class SweepStarted(Frozen):
    """Open the journal; `identity` is the search's content hash, `data` the tokens'."""

    record: Literal["sweep"] = "sweep"
    name: str
    identity: str
    data: str
    time: float


class SessionChanged(Frozen):
    """Mark where a driver began or ended; `interrupted` leaves a sweep that can go on.

    max_concurrent: how far back a trial could see, at least how many ran at a time.
    note: what a reader of the results must know about the data or the tasks.
    reason: why a session failed.
    """

    record: Literal["session"] = "session"
    state: Literal["started", "complete", "interrupted", "failed"]
    time: float
    trials_planned: int | None = None
    max_concurrent: int | None = None
    note: str | None = None
    reason: str | None = None


class LaneEnded(Frozen):
    """Tell what a lane was in one session.

    slots: trials that shared its base, and `reason` why so many.
    tokens_per_s: measured by the number of slots, as text; empty where the number was given.
    first_step, last_step: when its first and its last training step had ended; None if there was
        none.
    waited_s: between these two, for Tune and the desk instead of computing.
    occupancy: share of its slots that trained, over all steps.
    refill_steps: median of the steps that a freed slot stood empty until the next trial.
    tokens, train_s: trained on by all its trials, and in which time.
    notes: what went wrong, in sentences.
    """

    record: Literal["lane"] = "lane"
    lane: int
    slots: int
    reason: str
    tokens_per_s: dict[str, float] = {}
    first_step: float | None = None
    last_step: float | None = None
    waited_s: float | None = None
    occupancy: float | None = None
    refill_steps: float | None = None
    tokens: int = 0
    train_s: float = 0.0
    notes: tuple[str, ...] = ()
    time: float


class BaseMeasured(Frozen):
    """Hold the base model's scores, against which forgetting is counted.

    wall_s: seconds that measuring took; None where it was done between the steps of trials.
    """

    record: Literal["base"] = "base"
    scores: Scores
    wall_s: float | None = None


class TrialStarted(Frozen):
    """Mark a trial as running; a trial restarted after a crash starts twice."""

    record: Literal["trial_started"] = "trial_started"
    trial: str
    number: int
    stage: Literal["search", "confirm"]
    seed: int
    configuration: LoraHyperparameters
    time: float


class TrialFinished(Frozen):
    """Hold a trial's one final state and everything measured on it.

    number: position in the search, from 0.
    forgetting: the base's source accuracy minus the trial's; positive is worse.
    train_loss: last finite training loss, in nats per token.
    tokens: trained tokens, padding left out.
    wall_s: seconds from the start of the trial's process to its last report.
    train_s, evaluate_s: seconds of wall_s spent in optimizer steps and in evaluation.
    trainable: parameters trained.
    """

    record: Literal["trial"] = "trial"
    trial: str
    status: FinalStatus
    number: int
    stage: Literal["search", "confirm"]
    seed: int
    configuration: LoraHyperparameters
    learning: Measured = None
    source_accuracy: Measured = None
    forgetting: Measured = None
    response_loss: Measured = None
    train_loss: Measured = None
    tasks: TaskScores = {}
    rungs: tuple[Rung, ...] = ()
    steps: int = 0
    tokens: int = 0
    wall_s: float = 0.0
    train_s: float = 0.0
    evaluate_s: float = 0.0
    trainable: int = 0
    peak_memory_bytes: int | None = None
    error: str | None = None
    time: float


Record = Annotated[
    SweepStarted | SessionChanged | LaneEnded | BaseMeasured | TrialStarted | TrialFinished,
    Field(discriminator="record"),
]
RECORD: TypeAdapter[Record] = TypeAdapter(Record)
