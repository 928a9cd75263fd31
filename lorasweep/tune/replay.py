"""What the journal says of trials that ran before, replayed into a fresh search."""

from __future__ import annotations

from collections.abc import Sequence

from ray.tune.search import Searcher

from lorasweep.spec.space import Level
from lorasweep.spec.sweep import SweepSpec
from lorasweep.store.records import Record, SessionChanged, StudyStarted, TrialFinished
from lorasweep.store.results import last_states
from lorasweep.tune.search import OrderedSearch, build_search
from lorasweep.tune.sequence import TrialSequence


def final_records(records: Sequence[Record]) -> dict[str, list[TrialFinished]]:
    """Give what the journal says of trials that ended, by trial, the oldest first."""
    finals: dict[str, list[TrialFinished]] = {}
    for record in records:
        if isinstance(record, TrialFinished):
            finals.setdefault(record.trial, []).append(record)
    return finals


def known_trials(records: Sequence[Record]) -> list[str]:
    """Name the trials that need not run again; a failed one is tried again."""
    return [
        trial
        for trial, record in last_states(records).items()
        if isinstance(record, TrialFinished) and record.status != "FAILED"
    ]


def window_of(study: SweepSpec, records: Sequence[Record], otherwise: int) -> int:
    """Give how far back a trial sees: as in the study's first session, so that a sweep repeats."""
    windows = [
        record.window
        for record in records
        if isinstance(record, SessionChanged)
        or (
            isinstance(record, StudyStarted)
            and (record.method, record.domain) == (study.method, study.domain)
        )
    ]
    return next((window for window in windows if window), otherwise)


def ordered_search(
    study: SweepSpec, points: list[dict[str, Level]], records: Sequence[Record], window: int
) -> tuple[OrderedSearch, TrialSequence]:
    """Make the search of a study, which replays what the journal knows, and the order it keeps."""
    order = TrialSequence(window)
    return OrderedSearch(build_search(study, points), study, order, final_records(records)), order


def nothing_left(
    study: SweepSpec, points: list[dict[str, Level]], records: Sequence[Record]
) -> bool:
    """Replay a journal and tell whether every trial of a study has ended."""
    if not known_trials(records):
        return False
    search, _ = ordered_search(study, points, records, window_of(study, records, 1))
    return bool(search.suggest("replay") == Searcher.FINISHED)
