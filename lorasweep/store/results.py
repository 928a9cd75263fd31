"""Results of a sweep, folded from its journal; every reader starts here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from lorasweep.errors import UsageError
from lorasweep.spec.file import read_yaml
from lorasweep.spec.space import Level
from lorasweep.spec.studies import study_name
from lorasweep.spec.sweep import SweepSpec, parse_sweep
from lorasweep.store import journal
from lorasweep.store.paths import SweepPaths
from lorasweep.store.records import (
    BaseMeasured,
    KeptChecked,
    LaneEnded,
    MatrixSpectrum,
    Record,
    SessionChanged,
    SpectrumMeasured,
    Status,
    StudyStarted,
    SweepStarted,
    TrialFinished,
    TrialStarted,
)
from lorasweep.store.scores import Measures, Scores


class TrialResult(Measures):
    """One trial as analysis and report see it, wherever it was made.

    hyperparameters: every hyperparameter by name, searched or not, `method` and seed left out.
    domain: what was learned, where a sweep has several.
    stage: `search`, or `confirm` for a best configuration repeated on a further seed.
    spectrum: of what it added to the base.
    """

    trial: str
    method: str
    status: Status
    seed: int
    hyperparameters: Mapping[str, Level]
    domain: str = ""
    number: int = 0
    stage: Literal["search", "confirm"] = "search"
    spectrum: tuple[MatrixSpectrum, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Lane:
    """One lane's record, with the name of the study whose trials it trained."""

    study: str
    ended: LaneEnded


@dataclass(frozen=True, slots=True)
class SweepResults:
    """All trials of one sweep, or of one of its domains, and what is needed to read them.

    domain: of a part, the one it holds; bases: of the whole, the base's scores by domain.
    axes: the searched hyperparameters, in the order of the space.
    is_factorial: all trials together are a full factorial, not a search's adaptive sample.
    base: scores of the model before tuning; None for a table of trials made elsewhere.
    state: of the last session (`started`, `complete`, `interrupted`, `failed`), None if none began.
    origin: the results folder or table that the trials come from.
    lanes: of all sessions, in their order; empty where every trial was a job of its own.
    kept: what plain PEFT made of the kept weights of best trials, by trial (`store/kept.py`).
    sweeps: those that were merged here (`merge.py`); empty for a single sweep.
    """

    name: str
    question: str
    axes: tuple[str, ...]
    trials: tuple[TrialResult, ...]
    origin: str
    is_factorial: bool = False
    domain: str = ""
    base: Scores | None = None
    bases: Mapping[str, Scores] = field(default_factory=dict)
    spec: SweepSpec | None = None
    state: str | None = None
    trials_planned: int | None = None
    started: float | None = None
    notes: tuple[str, ...] = ()
    lanes: tuple[Lane, ...] = ()
    kept: Mapping[str, KeptChecked] = field(default_factory=dict)
    sweeps: tuple[SweepResults, ...] = ()

    @property
    def parts(self) -> tuple[SweepResults, ...]:
        """Results domain by domain, because scores of two domains do not compare."""
        named = tuple(self.spec.domains if self.spec else ()) or tuple(
            dict.fromkeys(trial.domain for trial in self.trials if trial.domain)
        )
        return tuple(self._part(domain) for domain in named) or (self,)

    def _part(self, domain: str) -> SweepResults:
        studies = [study for study in self._studies if study.domain == domain]
        searched = {axis for study in studies for axis in study.space.axes} or {*self.axes}
        return replace(
            self,
            domain=domain,
            axes=tuple(axis for axis in self.axes if axis in searched),
            trials=tuple(trial for trial in self.trials if trial.domain == domain),
            base=self.bases.get(domain),
        )

    @property
    def _studies(self) -> tuple[SweepSpec, ...]:
        return () if self.spec is None else self.spec.studies

    def study(self, method: str) -> SweepSpec | None:
        """Find the study of a method in this domain; None for a table of trials."""
        own = (
            study
            for study in self._studies
            if (study.method, study.domain) == (method, self.domain)
        )
        return next(own, None)

    def has_factorial(self, method: str) -> bool:
        """Check whether a method's trials are a full factorial, and not a search's sample."""
        study = self.study(method)
        return self.is_factorial if study is None else study.search.is_factorial

    def has_grid(self, method: str) -> bool:
        """Check whether a method's trials were enumerated, all combinations or some points."""
        study = self.study(method)
        return self.is_factorial if study is None else study.search.is_grid


def last_states(records: Iterable[Record]) -> dict[str, TrialStarted | TrialFinished]:
    """Find the record of each trial's latest state.

    A final state stays, except FAILED: a failed trial is tried again.
    """
    latest: dict[str, TrialStarted | TrialFinished] = {}
    for record in records:
        if isinstance(record, TrialStarted | TrialFinished):
            before = latest.get(record.trial)
            if not isinstance(before, TrialFinished) or before.status == "FAILED":
                latest[record.trial] = record
    return latest


def fold_trials(records: Sequence[Record]) -> tuple[TrialResult, ...]:
    """Build the trials from the records, ordered by number and seed."""
    spectra = {r.trial: r.matrices for r in records if isinstance(r, SpectrumMeasured)}
    return tuple(
        sorted(
            (
                trial_result(record, spectra.get(record.trial, ()))
                for record in last_states(records).values()
            ),
            key=lambda r: (r.domain, r.method != "lora", r.stage != "search", r.number, r.seed),
        )
    )


# Fields that a record and a result share by name.
_SHARED = TrialResult.model_fields.keys() & TrialFinished.model_fields.keys()


def trial_result(
    record: TrialStarted | TrialFinished, spectrum: tuple[MatrixSpectrum, ...] = ()
) -> TrialResult:
    """Convert a trial's record to the form that analysis and report read."""
    fields = {name: value for name, value in vars(record).items() if name in _SHARED}
    configuration = record.configuration.model_dump(exclude_none=True)
    return TrialResult(
        method=configuration.pop("method"),
        hyperparameters=configuration,
        spectrum=spectrum,
        **{"status": "RUNNING", **fields},
    )


def load_results(folder: Path) -> SweepResults:
    """Read a results folder, finished or not.

    Raises:
        UsageError: the folder holds no sweep.
        JournalError: its journal is damaged.
    """
    return load_history(folder)[0]


def load_history(folder: Path) -> tuple[SweepResults, list[Record]]:
    """Read a results folder, and give the records of its journal besides.

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
    bases = {r.domain: r.scores for r in records if isinstance(r, BaseMeasured)}
    opened = [r for r in records if isinstance(r, SweepStarted)]
    lanes = _lanes(records)
    noted = (note for r in sessions for note in (r.note or "").splitlines())
    state = sessions[-1].state if sessions else None
    trials = fold_trials(records)
    if not journal.is_held(paths.lock):
        # No driver holds the lock, so running trials were cut off and an open session was killed.
        state = "interrupted" if state == "started" else state
        trials = tuple(
            trial.model_copy(update={"status": "PENDING"}) if trial.status == "RUNNING" else trial
            for trial in trials
        )
    results = SweepResults(
        name=spec.name,
        question=spec.question,
        axes=spec.axes,
        trials=trials,
        origin=str(folder),
        is_factorial=all(study.search.is_factorial for study in spec.studies),
        base=bases.get(""),
        bases=bases,
        spec=spec,
        state=state,
        trials_planned=begun[-1].trials_planned if begun else None,
        started=opened[0].time if opened else None,
        notes=tuple(dict.fromkeys([*noted, *(n for lane in lanes for n in lane.ended.notes)])),
        lanes=lanes,
        kept={r.trial: r for r in records if isinstance(r, KeptChecked)},
    )
    return results, records


def _lanes(records: Iterable[Record]) -> tuple[Lane, ...]:
    """Pair every lane with its study, whose record precedes it."""
    lanes, study = [], ""
    for record in records:
        if isinstance(record, StudyStarted):
            study = study_name(record.method, record.domain)
        elif isinstance(record, LaneEnded):
            lanes.append(Lane(study, record))
    return tuple(lanes)
