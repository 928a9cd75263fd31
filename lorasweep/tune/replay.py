"""Resume a study by replaying the journal into a fresh search.

No state of Optuna or Tune is saved. The search suggests the same trials again, since it is a
function of its seed and the outcomes, and those that the journal knows do not run.
"""

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
    """Collect the final records of each trial, oldest first; a retried trial has several."""
    finals: dict[str, list[TrialFinished]] = {}
    for record in records:
        if isinstance(record, TrialFinished):
            finals.setdefault(record.trial, []).append(record)
    return finals


def known_trials(records: Sequence[Record]) -> list[str]:
    """List the trials that need not run again; a failed one is retried."""
    return [
        trial
        for trial, record in last_states(records).items()
        if isinstance(record, TrialFinished) and record.status != "FAILED"
    ]


def window_of(study: SweepSpec, records: Sequence[Record], otherwise: int) -> int:
    """Find the window of the study's first session, which later sessions keep.

    Args:
        otherwise: the window if the study has not begun.
    """
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
    """Build the search of a study, which replays what the journal knows, and its sequence."""
    sequence = TrialSequence(window)
    inner = build_search(study, points)
    return OrderedSearch(inner, study, sequence, final_records(records)), sequence


def nothing_left(
    study: SweepSpec, points: list[dict[str, Level]], records: Sequence[Record]
) -> bool:
    """Whether every trial of a study has ended, as a replay of the journal shows."""
    if not known_trials(records):
        return False
    search, _ = ordered_search(study, points, records, window_of(study, records, 1))
    return bool(search.suggest("replay") == Searcher.FINISHED)
