"""Read the trials of a sweep that have ended, with what the journal recorded at their end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lorasweep.errors import UsageError
from lorasweep.report.wording import plural
from lorasweep.store.records import TrialFinished
from lorasweep.store.results import SweepResults, TrialResult, last_states, load_history


@dataclass(frozen=True)
class FinishedTrial:
    """A trial that has ended, with the record of its end."""

    result: TrialResult
    record: TrialFinished

    @property
    def started(self) -> float:
        """When its training began, in seconds since the epoch."""
        return self.record.time - self.result.wall_s

    @property
    def rung_losses(self) -> list[tuple[int, int, float]]:
        """Percent, step and held-out response loss of each rung that was measured."""
        return [
            (rung.percent, rung.step, rung.response_loss)
            for rung in self.record.rungs
            if rung.response_loss is not None
        ]


@dataclass(frozen=True)
class FinishedSweep:
    """A sweep's results, and those of its trials that have ended."""

    results: SweepResults
    trials: tuple[FinishedTrial, ...]

    @property
    def left_out(self) -> str:
        """Half a sentence on the trials that have not ended, empty if there are none."""
        count = len(self.results.trials) - len(self.trials)
        return f", without {plural(count, 'unfinished trial')}" if count else ""


def load_finished(folder: Path) -> FinishedSweep:
    """Read a results folder, including the records of its trials' ends.

    Results and records come from one reading, or a trial could end in between.

    Raises:
        UsageError: the folder holds no sweep, or cannot be read.
        JournalError: its journal is damaged.
    """
    try:
        results, records = load_history(folder)
    except OSError as error:
        raise UsageError(f"{folder}: the results cannot be read ({error.strerror})") from None
    states = last_states(records)
    trials = [
        FinishedTrial(result, record)
        for result in results.trials
        if isinstance(record := states[result.trial], TrialFinished)
    ]
    return FinishedSweep(results, tuple(trials))
