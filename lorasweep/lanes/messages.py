"""Every message between trials, lanes, the slot broker and the driver, declared once.

    Runner (in a lane or job) --TrialReport--> broker --> SlotClient --to_tune--> Ray Tune
    Ray Tune --from_tune--> callbacks and scheduler of the driver
    lane --LaneNews--> broker --LaneCommands--> lane
    driver --SweepJob--> broker --LaneStart--> lane

Ray Tune and Ray Train pass dictionaries only, to which Tune adds entries of its own. `to_tune`,
`from_tune`, `to_config` and `from_config` are the one place that wraps messages and unwraps them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lorasweep.spec.trial import Frozen, TrialSpec
from lorasweep.store.records import Rung, SpectrumMeasured
from lorasweep.store.scores import Scores

if TYPE_CHECKING:  # a Tune trial's process needs none of the sweep's models
    from lorasweep.spec.sweep import SweepSpec

# From a trial, through Ray Tune, to the driver.


class Training(Frozen):
    """How far a trial has trained, and what that took.

    percent: of the trial's steps.
    train_loss: mean of the last steps, in nats per token.
    tokens: trained on, padding left out; tokens_per_s: since the trial got its slot.
    train_s, evaluate_s: seconds spent in optimizer steps and in evaluation.
    """

    trial: str
    step: int
    percent: int
    train_loss: float
    tokens: int
    tokens_per_s: float
    train_s: float
    evaluate_s: float


class TrialProgress(Training):
    """State of a running trial after a step.

    time: when, in seconds since the epoch.
    lr, grad_norm: learning rate of the step, and gradient norm before clipping.
    rung: what the scheduler judges, where this step reached a rung.
    """

    time: float
    lr: float
    grad_norm: float
    rung: Rung | None = None


class RungPassed(Frozen):
    """Rung that a trial passed before it moved to this lane or job.

    It is reported again because a scheduler that was restarted has not seen it.
    """

    trial: str
    rung: Rung


class TrialEnded(Training):
    """Final measurements of a trial that trained to its end or diverged.

    error: why it diverged.
    spectrum: of its update, where the sweep measures spectra.
    wall_s: seconds since the trial got its slot.
    trainable: parameters trained.
    """

    status: Literal["COMPLETE", "DIVERGED"]
    error: str | None
    scores: Scores
    spectrum: SpectrumMeasured | None
    wall_s: float
    trainable: int
    peak_memory_bytes: int | None


class TrialFailed(Frozen):
    """Failure of one trial; its lane continues.

    error: a sentence with the cause.
    """

    trial: str
    error: str


class SessionCutOff(Frozen):
    """End of the session before the end of the trial; the next session resumes it."""

    trial: str


TrialReport = TrialProgress | RungPassed | TrialEnded | TrialFailed
TuneReport = TrialReport | SessionCutOff


def is_final(report: TuneReport) -> bool:
    """Whether no report of the trial follows this one."""
    return isinstance(report, TrialEnded | TrialFailed)


def rung_of(report: TuneReport) -> Rung | None:
    """Get the rung that a report brings, if any."""
    return report.rung if isinstance(report, TrialProgress | RungPassed) else None


def to_tune(report: TuneReport) -> dict[str, TuneReport]:
    """Wrap a report for Ray Tune or Ray Train.

    The report is one opaque value: Tune shows its schedulers results whose nested dictionaries are
    flattened.
    """
    return {"report": report}


def from_tune(result: Mapping[str, Any]) -> TuneReport | None:
    """Unwrap the report of a Tune result; None if no trial has reported yet."""
    report: TuneReport | None = result.get("report")
    return report


@dataclass(frozen=True)
class Suggestion:
    """Trial that the search suggests; the config of a Tune trial holds it.

    number: position in the study, from 0.
    """

    trial: TrialSpec
    number: int


def to_config(suggestion: Suggestion) -> dict[str, Suggestion]:
    """Wrap a suggestion as the config of a Tune trial."""
    return {"suggestion": suggestion}


def from_config(config: Mapping[str, Any]) -> Suggestion:
    """Unwrap the suggestion of a Tune trial's config."""
    suggestion: Suggestion = config["suggestion"]
    return suggestion


# From whichever worker measured the base, to the driver.


@dataclass(frozen=True)
class MeasuredBase:
    """Scores of the base.

    wall_s: seconds that measuring took; None if it was done between the steps of trials.
    """

    scores: Scores
    wall_s: float | None = None


# From the broker to a trial's client.


@dataclass(frozen=True)
class LeaseLost:
    """The client's lease has ended; it has to request a slot again."""


# From the driver to the workers of lanes and jobs.


@dataclass(frozen=True)
class SweepJob:
    """What all trials of a study share.

    spec: the study, its suites resolved.
    root: the results folder, which every node must see.
    data: reference to the TrainingData in Ray's object store.
    samples: reference to the base's own samples (BaseSamples); None if no suite needs them, or
        if the workers draw them.
    cpus: per worker, and so torch's threads.
    """

    spec: SweepSpec
    root: str
    data: Any  # ray.ObjectRef, which would make this module import ray
    samples: Any
    cpus: float


@dataclass(frozen=True)
class LaneConfig:
    """Settings of a lane, fixed before the job of its study is prepared.

    broker: handle of the SlotBroker actor.
    max_slots: most slots it may have.
    probed: whether the lane measures how many slots pay; otherwise it opens max_slots.
    judged: whether a scheduler may stop trials at their rungs.
    """

    number: int
    broker: Any  # ray.actor.ActorHandle
    max_slots: int
    probed: bool
    judged: bool


@dataclass(frozen=True)
class LaneStart:
    """Answer to a lane that joins.

    job: None if the session ended before it was prepared.
    max_slots: fewer than configured, after the lane has died; None in its first life.
    """

    job: SweepJob | None
    max_slots: int | None


# Between a lane and the broker.


@dataclass(frozen=True)
class TrialSaved:
    """Confirmation that a trial's state is on disk."""

    trial: str


@dataclass(frozen=True)
class TrialRequeued:
    """Return of a trial for which the lane has no memory.

    reason: a sentence.
    """

    trial: str
    reason: str


LaneMessage = TrialReport | TrialSaved | TrialRequeued


@dataclass(frozen=True)
class LaneFacts:
    """Measurements of a lane.

    slots, reason: how many slots it has, and why.
    tokens_per_s: measured by the probe, by the number of slots as text.
    first_step, last_step: when they ended, in seconds since the epoch.
    waited_s: between these two, for commands.
    steps: training steps; filled: slots that trained, summed over steps; offered: slots that were
        open, summed over steps.
    refills: for each slot that was freed and filled again, the steps for which it stood empty.
    tokens, train_s: trained on by all trials together, and the seconds that took.
    notes: what went wrong, in sentences.
    """

    slots: int
    reason: str
    tokens_per_s: Mapping[str, float]
    first_step: float | None = None
    last_step: float | None = None
    waited_s: float = 0.0
    steps: int = 0
    filled: int = 0
    offered: int = 0
    refills: tuple[int, ...] = ()
    tokens: int = 0
    train_s: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LaneNews:
    """What a lane reports in one exchange.

    wanted: trials that it could take.
    base: the base's scores, once this lane has measured it.
    idle: whether the lane has nothing to do, and so may be kept waiting for an answer.
    """

    lane: int
    wanted: int
    facts: LaneFacts
    messages: tuple[LaneMessage, ...] = ()
    base: MeasuredBase | None = None
    idle: bool = False


@dataclass(frozen=True)
class LaneCommands:
    """What a lane does before its next step.

    start: trials to make ready; release: trials whose slots are given back; save: trials to save.
    undecided: trials whose last report Tune has not answered.
    measure_base: whether this lane measures the base.
    stop: whether the lane ends; keep: whether its trials are saved first.
    """

    start: tuple[TrialSpec, ...] = ()
    release: tuple[str, ...] = ()
    save: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()
    measure_base: bool = False
    stop: bool = False
    keep: bool = False


# From a worker that loads kept weights to the driver.


@dataclass(frozen=True)
class KeptLoss:
    """What plain transformers and PEFT made of a folder of kept weights.

    loss: on the held-out tokens, in nats per token; None if it is not finite or was not measured.
    dtype: of the base, `fp32` or `bf16`.
    reason: why it was not measured, or which tensors did not arrive.
    """

    status: Literal["loaded", "unloadable", "unchecked"]
    loss: float | None = None
    dtype: str | None = None
    reason: str | None = None
