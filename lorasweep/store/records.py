"""Records of the journal, one a line; docs/journal.md describes them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from lorasweep.spec.trial import Frozen, Hyperparameters, Method
from lorasweep.store.scores import Measures, Score, Scores

FinalStatus = Literal["COMPLETE", "PRUNED", "DIVERGED", "FAILED"]
Status = Literal["PENDING", "RUNNING"] | FinalStatus


class MatrixSpectrum(Frozen):
    """How finetuning changed one weight matrix, as ranks of the update.

    layer: number of the block, None outside of blocks; module: the last part of the name.
    outputs, inputs: its shape.
    update, base, tuned: smallest rank that explains 90% of the squared singular values (Biderman et
        al. 2024, v2, section 6); of W_tuned - W_base, W_base and W_tuned.
    noise: the same of a Gaussian matrix with the update's shape and norm; noisy: of W_base and that
        noise, the control of Biderman et al.: its rank is that of W_base, whatever the update's.
    effective: entropy rank of the update (Roy and Vetterli 2007); of weights saved in half
        precision an upper bound, which rounding raises.
    share: norm of the update over that of W_base (Frobenius); 0 where W_base is zero.
    rounding: share of the update's squared norm that rounding of the saved weights makes, if
        rounding errors are uniform; 0 of an adapter. Rounding has full rank.
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


class Rung(Frozen):
    """What the scheduler saw of a trial at one rung.

    percent: share of the trial's steps done, in percent.
    response_loss: on held-out examples, in nats per token.
    """

    percent: int
    step: int
    response_loss: Score


class SweepStarted(Frozen):
    """First record; `identity` is the search's content hash, `data` that of the tokens."""

    record: Literal["sweep"] = "sweep"
    name: str
    identity: str
    data: str
    time: float


class SessionChanged(Frozen):
    """Start or end of a driver; an `interrupted` sweep can be continued.

    window: as in `StudyStarted`; read of early sweeps, which recorded it here, and not written.
    note: what a reader of the results must know about the data or the tasks.
    reason: why a session failed.
    """

    record: Literal["session"] = "session"
    state: Literal["started", "complete", "interrupted", "failed"]
    time: float
    trials_planned: int | None = None
    window: int | None = Field(default=None, exclude=True)
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
    """What a lane did in one session.

    slots: trials that shared its base, and `reason` why that many.
    tokens_per_s: measured by the number of slots, as text; empty where the number was given.
    first_step, last_step: when its first and its last training step had ended; None if there was
        none.
    waited_s: between these two, spent waiting for Tune and the broker.
    occupancy: share of its slots that trained, over all steps.
    refill_steps: median number of steps that a freed slot stayed empty.
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
    """Scores of the base model, against which forgetting is counted.

    domain: whose tasks it was measured on; empty where the sweep has one.
    wall_s: seconds that measuring took; None where it was done between the steps of trials.
    """

    record: Literal["base"] = "base"
    scores: Scores
    domain: str = ""
    wall_s: float | None = None


class TrialStarted(Frozen):
    """Start of a trial; a trial restarted after a crash starts twice."""

    record: Literal["trial_started"] = "trial_started"
    trial: str
    number: int
    stage: Literal["search", "confirm"]
    seed: int
    configuration: Hyperparameters
    domain: str = ""
    time: float


class SpectrumMeasured(Frozen):
    """Spectrum of a trial's update, matrix by matrix."""

    record: Literal["spectrum"] = "spectrum"
    trial: str
    matrices: tuple[MatrixSpectrum, ...]
    wall_s: float


class TrialFinished(Measures):
    """A trial's final state and everything measured on it.

    number: position in the study, from 0.
    """

    record: Literal["trial"] = "trial"
    trial: str
    status: FinalStatus
    number: int
    stage: Literal["search", "confirm"]
    seed: int
    configuration: Hyperparameters
    domain: str = ""
    rungs: tuple[Rung, ...] = ()
    peak_memory_bytes: int | None = None
    error: str | None = None
    time: float


class KeptChecked(Frozen):
    """What plain transformers and PEFT make of the weights that are kept of a study's best trial.

    status: `agrees` and `differs` are about the held-out loss; `unloadable` means that the folder
        is damaged, `unchecked` that it could not be tried, as memory did not hold the base.
    content: hash of the folder's files, by which a later session notices that they have changed.
    measured: response loss of the trial, measured when it ended; loaded: that of the kept weights,
        on the same tokens; both in nats per token.
    dtype: of the base, `fp32` or `bf16`; tolerance: what rounding explains of a difference.
    reason: why it was not loaded or not checked, or what else is wrong.
    """

    record: Literal["kept"] = "kept"
    trial: str
    method: Method
    domain: str = ""
    status: Literal["agrees", "differs", "unloadable", "unchecked"]
    content: str
    measured: Score = None
    loaded: Score = None
    dtype: str | None = None
    tolerance: float = 0.0
    reason: str | None = None
    wall_s: float
    time: float


Record = Annotated[
    SweepStarted
    | SessionChanged
    | StudyStarted
    | LaneEnded
    | BaseMeasured
    | TrialStarted
    | SpectrumMeasured
    | TrialFinished
    | KeptChecked,
    Field(discriminator="record"),
]
RECORD: TypeAdapter[Record] = TypeAdapter(Record)
