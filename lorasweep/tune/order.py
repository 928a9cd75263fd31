"""Which trials a trial may know of: the reason why a sweep repeats itself exactly.

Trials run side by side and end in an order that timing decides. If a suggestion or an early stop
looked at whatever happened to have ended, no sweep could be repeated or resumed faithfully. So
trial n knows trials 0 to n - window, all of them ended, and nothing of the others, although some
may have ended too. With a window as wide as the number of trials that run at a time this costs
little: only when a trial outlasts all of its window does a place stand empty.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lorasweep.spec.trial import TrialSpec
from lorasweep.store.records import FinalStatus, Rung


@dataclass(frozen=True)
class Outcome:
    """Hold how a trial ended, as far as the search cares."""

    status: FinalStatus
    learning: float | None


@dataclass
class Entry:
    """Hold one trial of the search: what it is, what was seen of it, how it ended."""

    trial: TrialSpec
    rungs: list[Rung] = field(default_factory=list)
    outcome: Outcome | None = None


class Order:
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

    def add(self, trial: TrialSpec) -> Entry:
        """Append a trial; one suggested before shares its entry, since it is trained only once."""
        twin = next((entry for entry in self.entries if entry.trial.id == trial.id), None)
        self.entries.append(twin or Entry(trial))
        return self.entries[-1]

    def number(self, trial: str) -> int:
        """Give the position at which a trial was first suggested."""
        return next(n for n, entry in enumerate(self.entries) if entry.trial.id == trial)

    @property
    def ended(self) -> bool:
        """Tell whether every trial so far has ended."""
        return all(entry.outcome is not None for entry in self.entries)
