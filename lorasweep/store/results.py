"""The journal folded into the state of a sweep: what every reader starts from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from lorasweep.errors import UsageError
from lorasweep.spec.space import Level
from lorasweep.spec.sweep import SweepSpec, parse_sweep, read_yaml
from lorasweep.store import journal
from lorasweep.store.paths import SweepPaths
from lorasweep.store.records import (
    BaseMeasured,
    LaneEnded,
    Record,
    Scores,
    SessionChanged,
    Status,
    SweepStarted,
    TrialFinished,
    TrialStarted,
)


@dataclass(frozen=True, slots=True)
class TrialResult:
    """Hold one trial as analysis and report see it, wherever it was made.

    hyperparameters: every hyperparameter by name, searched or not, `method` and seed left out.
    stage: `search`, or `confirm` for a best configuration repeated on a further seed.
    learning, source_accuracy, forgetting: in [0, 1]; response_loss: nats per token.
    """

    trial: str
    method: str
    status: Status
    seed: int
    hyperparameters: Mapping[str, Level]
    number: int = 0
    stage: str = "search"
    learning: float | None = None
    source_accuracy: float | None = None
    forgetting: float | None = None
    response_loss: float | None = None
    train_loss: float | None = None
    tasks: Mapping[str, float] = field(default_factory=dict)
    steps: int = 0
    tokens: int = 0
    wall_s: float = 0.0
    train_s: float = 0.0
    evaluate_s: float = 0.0
    trainable: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class SweepResults:
    """Hold all trials of one sweep and what is needed to read them.

    axes: the searched hyperparameters, in the order of the space.
    is_grid: the trials are a full factorial, not a search's adaptive sample.
    base: scores of the model before tuning; None for a table of trials made elsewhere.
    state: of the last session (`started`, `complete`, `interrupted`, `failed`), None if none began.
    origin: the results folder or table that the trials come from.
    lanes: of all sessions, in their order; empty where every trial was a job of its own.
    """

    name: str
    question: str
    axes: tuple[str, ...]
    trials: tuple[TrialResult, ...]
    origin: str
    is_grid: bool = False
    base: Scores | None = None
    spec: SweepSpec | None = None
    state: str | None = None
    trials_planned: int | None = None
    started: float | None = None
    notes: tuple[str, ...] = ()
    lanes: tuple[LaneEnded, ...] = ()


def fold_trials(records: Iterable[Record]) -> tuple[TrialResult, ...]:
    """Keep each trial's latest state, ordered by number and seed.

    A final state is never undone, but for FAILED: a failed trial is tried again.
    """
    latest: dict[str, TrialStarted | TrialFinished] = {}
    for record in records:
        if isinstance(record, TrialStarted | TrialFinished):
            before = latest.get(record.trial)
            if not isinstance(before, TrialFinished) or before.status == "FAILED":
                latest[record.trial] = record
    return tuple(
        sorted(
            (_result(record) for record in latest.values()),
            key=lambda r: (r.stage != "search", r.number, r.seed),
        )
    )


def _result(record: TrialStarted | TrialFinished) -> TrialResult:
    configuration = record.configuration.model_dump()
    method = configuration.pop("method")
    started = TrialResult(
        trial=record.trial,
        method=method,
        status="RUNNING",
        seed=record.seed,
        hyperparameters=configuration,
        number=record.number,
        stage=record.stage,
    )
    if isinstance(record, TrialStarted):
        return started
    return TrialResult(
        trial=record.trial,
        method=method,
        status=record.status,
        seed=record.seed,
        hyperparameters=configuration,
        number=record.number,
        stage=record.stage,
        learning=record.learning,
        source_accuracy=record.source_accuracy,
        forgetting=record.forgetting,
        response_loss=record.response_loss,
        train_loss=record.train_loss,
        tasks=record.tasks,
        steps=record.steps,
        tokens=record.tokens,
        wall_s=record.wall_s,
        train_s=record.train_s,
        evaluate_s=record.evaluate_s,
        trainable=record.trainable,
        error=record.error,
    )


def load_results(folder: Path) -> SweepResults:
    """Read a results folder, finished or not.

    Raises:
        UsageError: the folder holds no sweep.
        JournalError: its journal is damaged.
    """
    paths = SweepPaths(folder)
    if not paths.sweep.is_file():
        raise UsageError(
            f"{folder}: must be a results folder with a sweep.yaml in it, and has none; "
            "name the folder that `lorasweep tune` printed"
        )
    spec = parse_sweep(read_yaml(paths.sweep))
    records = journal.read(paths.journal)
    sessions = [r for r in records if isinstance(r, SessionChanged)]
    begun = [r for r in sessions if r.state == "started"]
    bases = [r for r in records if isinstance(r, BaseMeasured)]
    opened = [r for r in records if isinstance(r, SweepStarted)]
    lanes = [r for r in records if isinstance(r, LaneEnded)]
    state = sessions[-1].state if sessions else None
    trials = fold_trials(records)
    if not journal.is_held(paths.lock):
        # Nobody is at work: what was running was cut off, and a session that never closed killed.
        state = "interrupted" if state == "started" else state
        trials = tuple(
            replace(trial, status="PENDING") if trial.status == "RUNNING" else trial
            for trial in trials
        )
    return SweepResults(
        name=spec.name,
        question=spec.question,
        axes=tuple(spec.space.axes),
        trials=trials,
        origin=str(folder),
        is_grid=spec.is_grid,
        base=bases[-1].scores if bases else None,
        spec=spec,
        state=state,
        trials_planned=begun[-1].trials_planned if begun else None,
        started=opened[0].time if opened else None,
        notes=tuple(
            dict.fromkeys(
                [*(r.note for r in sessions if r.note), *(n for lane in lanes for n in lane.notes)]
            )
        ),
        lanes=tuple(lanes),
    )
