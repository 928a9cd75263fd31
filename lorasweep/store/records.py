"""What the journal may say: one record a line, in the words of docs/journal.md."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, TypeAdapter

from lorasweep.spec.trial import Frozen, Hyperparameters, Method

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


class Distinct(Frozen):
    """Hold how many distinct completions a problem has among its samples, averaged over problems.

    all: among all samples; passed, failed: among those, over the problems that have any; None where
        no problem has.
    """

    all: float
    passed: float | None = None
    failed: float | None = None


class CodeScores(Frozen):
    """Hold what running a model's programs showed on one task.

    problems, samples: how many, and completions of each.
    pass_at: unbiased estimate of pass@k (Chen et al. 2021, section 2.1), by k as text.
    failed_to_run: completions that the sandbox could not judge; they count as wrong.
    timed_out: completions that ran out of time.
    exact, whitespace, syntax: distinct completions as written, with runs of blanks as one, and as
        syntax trees with names kept (Biderman et al. 2024, v2, section 5.4, has the first).
    """

    problems: int
    samples: int
    pass_at: dict[str, float]
    failed_to_run: int = 0
    timed_out: int = 0
    exact: Distinct
    whitespace: Distinct
    syntax: Distinct


class MatrixSpectrum(Frozen):
    """Hold how a weight matrix was changed, by the ranks of what was added.

    layer: number of the block, None outside of blocks; module: the last part of the name.
    outputs, inputs: its shape.
    update, base, tuned: smallest rank that explains 90% of the squared singular values (Biderman et
        al. 2024, v2, section 6); of W_tuned - W_base, W_base and W_tuned.
    noise: the same of a Gaussian matrix with the update's shape and norm; noisy: of W_base and that
        noise, the paper's control: it looks like W_base whatever the rank of what was added.
    effective: entropy rank of the update (Roy and Vetterli 2007); of weights saved in half
        precision an upper bound, which rounding raises.
    share: norm of the update over that of W_base (Frobenius); 0 where W_base is zero.
    rounding: share of the update's squared norm that rounding of the saved weights makes, as for
        rounding errors that are uniform; 0 of an adapter. Rounding has full rank.
    intruders: how many of the ten leading left singular vectors of W_tuned have a cosine below 0.5
        with every one of W_base (Shuttleworth et al. 2024, "LoRA vs Full Fine-tuning: An Illusion
        of Equivalence", section 3).
    """

    name: str
    layer: int | None
    module: str
    outputs: int
    inputs: int
    update: int
    base: int
    tuned: int
    noise: int
    noisy: int
    effective: float
    share: float
    rounding: float = 0.0
    intruders: int


class Scores(Frozen):
    """Hold what was measured on one model.

    learning: mean score over the learning suite, in [0, 1].
    source_accuracy: mean accuracy over the source suite, in [0, 1]; None where it is not measured.
    response_loss: mean cross-entropy per held-out response token, in nats.
    tasks: every task's own score; of code its pass@1.
    code: more on each task whose answers were run.
    """

    learning: Measured = None
    source_accuracy: Measured = None
    response_loss: Measured = None
    tasks: TaskScores = {}
    code: dict[str, CodeScores] = {}


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
    """Start or end of a driver; an `interrupted` sweep can be continued.

    window: as in `StudyStarted`, in sweeps that began before it was written there.
    note: what a reader of the results must know about the data or the tasks.
    reason: why a session failed.
    """

    record: Literal["session"] = "session"
    state: Literal["started", "complete", "interrupted", "failed"]
    time: float
    trials_planned: int | None = None
    window: int | None = None
    note: str | None = None
    reason: str | None = None


class StudyStarted(Frozen):
    """Start of the trials of one method in one domain.

    window: trial n may use the outcomes of trials 0 to n - window, and of no others.
    """

    record: Literal["study"] = "study"
    method: Method
    domain: str = ""
    window: int
    time: float


class LaneEnded(Frozen):
    """Tell what a lane was in one session.

    slots: trials that shared its base, and `reason` why so many.
    tokens_per_s: measured by the number of slots, as text; empty where the number was given.
    first_step, last_step: when its first and its last training step had ended; None if there was
        none.
    waited_s: between these two, for Tune and the broker instead of computing.
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

    domain: whose tasks it was measured on; empty where the sweep has one.
    wall_s: seconds that measuring took; None where it was done between the steps of trials.
    """

    record: Literal["base"] = "base"
    scores: Scores
    domain: str = ""
    wall_s: float | None = None


class TrialStarted(Frozen):
    """Mark a trial as running; a trial restarted after a crash starts twice."""

    record: Literal["trial_started"] = "trial_started"
    trial: str
    number: int
    stage: Literal["search", "confirm"]
    seed: int
    configuration: Hyperparameters
    domain: str = ""
    time: float


class SpectrumMeasured(Frozen):
    """Hold the spectrum of a trial's update, matrix by matrix."""

    record: Literal["spectrum"] = "spectrum"
    trial: str
    matrices: tuple[MatrixSpectrum, ...]
    wall_s: float


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
    configuration: Hyperparameters
    domain: str = ""
    learning: Measured = None
    source_accuracy: Measured = None
    forgetting: Measured = None
    response_loss: Measured = None
    train_loss: Measured = None
    tasks: TaskScores = {}
    code: dict[str, CodeScores] = {}
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
    SweepStarted
    | SessionChanged
    | StudyStarted
    | LaneEnded
    | BaseMeasured
    | TrialStarted
    | SpectrumMeasured
    | TrialFinished,
    Field(discriminator="record"),
]
RECORD: TypeAdapter[Record] = TypeAdapter(Record)
