"""The trials of a sweep that have ended, with what only the records of their ends say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lorasweep.errors import UsageError
from lorasweep.store.records import TrialFinished
from lorasweep.store.results import SweepResults, TrialResult, last_states, load_history


@dataclass(frozen=True)
class Ended:
    """Hold a trial that has ended, with the record of its end: rungs, and when that was."""

    result: TrialResult
    record: TrialFinished


@dataclass(frozen=True)
class EndedSweep:
    """Hold a sweep with what its journal says of each trial's end."""

    results: SweepResults
    ended: tuple[Ended, ...]

    @property
    def left_out(self) -> str:
        """Say how many trials have not ended, of which only tables know anything."""
        count = len(self.results.trials) - len(self.ended)
        return f", without {count} that have not ended" if count else ""


def load_ended(folder: Path) -> EndedSweep:
    """Read a results folder, the records of its trials' ends included.

    Raises:
        UsageError: the folder holds no sweep, or cannot be read.
        JournalError: its journal is damaged.
    """
    try:
        results, records = load_history(folder)
    except OSError as error:
        raise UsageError(f"{folder}: the results cannot be read ({error.strerror})") from None
    states = last_states(records)
    ended = [
        Ended(result, record)
        for result in results.trials
        if isinstance(record := states[result.trial], TrialFinished)
    ]
    return EndedSweep(results, tuple(ended))
