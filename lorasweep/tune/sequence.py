"""The trial sequence: which outcomes a trial may use. It is why a sweep repeats exactly.

Trials run side by side and end in an order that timing decides. If a suggestion or an early stop
used whatever happened to have ended, no sweep could be repeated or resumed faithfully. So trial n
uses the outcomes of trials 0 to n - window and waits until all of these have ended; it uses no
other outcome, even of a trial that has ended.

With a window of 3:    trial 5 sees 0 1 2, and starts once these have ended
                       trials 3 and 4 may still be running, or not

The window is at least as wide as the number of trials under way, so this costs little: a slot
stands empty only while one trial outlasts the window - 1 trials after it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from lorasweep.spec.trial import TrialSpec
from lorasweep.store.records import FinalStatus, Rung


@dataclass(frozen=True)
class Outcome:
    """How a trial ended, as far as the search cares."""

    status: FinalStatus
    learning: float | None


@dataclass(eq=False)
class Entry:
    """One suggested trial, with its rungs and its outcome.

    trunk: key of the trunk that it shares with runs of other durations, if any.
    again: the next attempt, if an earlier session saw the trial fail. Other trials do not see it:
        those after the failed one were suggested in the light of its failure.
    """

    trial: TrialSpec
    trunk: str | None = None
    rungs: list[Rung] = field(default_factory=list)
    outcome: Outcome | None = None
    again: Entry | None = None

    @property
    def latest(self) -> Entry:
        """The latest attempt at the trial."""
        return self.again or self

    def waits(self, before: Iterable[Entry]) -> bool:
        """Whether a trial before it, whose state it continues from, has not ended."""
        return self.trunk is not None and any(
            other.outcome is None and other.trunk == self.trunk for other in before
        )


class TrialSequence:
    """Trials of a study in the order of suggestion; a repeated suggestion repeats its entry."""

    def __init__(self, window: int) -> None:
        """Start empty.

        Args:
            window: see above; at least the number of trials under way.
        """
        self.window = window
        self.entries: list[Entry] = []

    def visible(self, number: int) -> list[Entry]:
        """List the trials whose outcomes trial `number` may use."""
        return self.entries[: max(0, number - self.window + 1)]

    def ready(self, number: int) -> bool:
        """Whether trial `number` may be suggested: all trials that it sees have ended."""
        return all(entry.outcome is not None for entry in self.visible(number))

    def add(self, trial: TrialSpec, trunk: str | None = None) -> Entry:
        """Append a trial; one suggested before shares its entry, since it trains only once."""
        twin = next((entry for entry in self.entries if entry.trial.id == trial.id), None)
        self.entries.append(twin or Entry(trial, trunk))
        return self.entries[-1]

    def number(self, trial: str) -> int:
        """Find the position at which a trial was first suggested."""
        return next(n for n, entry in enumerate(self.entries) if entry.trial.id == trial)

    @property
    def ended(self) -> bool:
        """Whether every trial so far has ended."""
        return all(entry.outcome is not None for entry in self.entries)
