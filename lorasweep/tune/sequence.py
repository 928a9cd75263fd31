"""Which trials a trial may know of: the reason why a sweep repeats itself exactly.

Trials run side by side and end in an order that timing decides. If a suggestion or an early stop
looked at whatever happened to have ended, no sweep could be repeated or resumed faithfully. So
trial n knows trials 0 to n - window, all of them ended, and nothing of the others, although some
may have ended too. With a window as wide as the number of trials that run at a time this costs
little: only when a trial outlasts all of its window does a place stand empty.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from lorasweep.spec.trial import TrialSpec
from lorasweep.store.records import FinalStatus, Rung


@dataclass(frozen=True)
class Outcome:
    """Hold how a trial ended, as far as the search cares."""

    status: FinalStatus
    learning: float | None


@dataclass(eq=False)
class Entry:
    """Hold one trial: what it is, what was seen of it, how it ended.

    trunk: names the others of which one waits for another, which it goes on from; None for a trial
        that waits for none.
    again: its next attempt, where an earlier session saw it fail. Of that the other trials know
        nothing, since those after it have been chosen already.
    """

    trial: TrialSpec
    trunk: str | None = None
    rungs: list[Rung] = field(default_factory=list)
    outcome: Outcome | None = None
    again: Entry | None = None

    @property
    def latest(self) -> Entry:
        """Give the trial's latest attempt."""
        return self.again or self

    def waits(self, before: Iterable[Entry]) -> bool:
        """Tell whether one of those before it, which it is to go on from, has not ended."""
        return self.trunk is not None and any(
            other.outcome is None and other.trunk == self.trunk for other in before
        )


class TrialSequence:
    """Keep the trials of a search in the order in which they were suggested."""

    def __init__(self, window: int) -> None:
        """Start empty.

        Args:
            window: how far back a trial sees, at least how many run at a time.
        """
        self.window = window
        self.entries: list[Entry] = []

    def visible(self, number: int) -> list[Entry]:
        """Give the trials that trial `number` may know of."""
        return self.entries[: max(0, number - self.window + 1)]

    def ready(self, number: int) -> bool:
        """Tell whether trial `number` may start: all that it may know of have ended."""
        return all(entry.outcome is not None for entry in self.visible(number))

    def add(self, trial: TrialSpec, trunk: str | None = None) -> Entry:
        """Append a trial; one suggested before shares its entry, since it is trained only once."""
        twin = next((entry for entry in self.entries if entry.trial.id == trial.id), None)
        self.entries.append(twin or Entry(trial, trunk))
        return self.entries[-1]

    def number(self, trial: str) -> int:
        """Give the position at which a trial was first suggested."""
        return next(n for n, entry in enumerate(self.entries) if entry.trial.id == trial)

    @property
    def ended(self) -> bool:
        """Tell whether every trial so far has ended."""
        return all(entry.outcome is not None for entry in self.entries)
