"""Early stopping with Tune's own schedulers, in a way that repeats exactly.

ASHA and median stopping compare a trial with whatever has been reported so far, which depends on
timing. Here a fresh scheduler makes each decision: it is shown the trials that are visible to the
trial, in their order, and then the trial itself (see `sequence.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    TrialScheduler,
)

from lorasweep.lanes.messages import from_config, from_tune, rung_of
from lorasweep.spec.sweep import SearchSpec
from lorasweep.tune.sequence import Entry, TrialSequence

PROXY = "response_loss"
TIME = "percent"  # of a trial's own steps, never wall time: a trial that waited is not punished


def scheduler_factory(search: SearchSpec) -> Callable[[], TrialScheduler]:
    """Choose the factory of the scheduler that a study configures."""
    if search.scheduler == "asha":
        return lambda: ASHAScheduler(
            time_attr=TIME,
            metric=PROXY,
            mode="min",
            max_t=100,
            grace_period=search.rungs[0],
            reduction_factor=search.reduction,
        )
    if search.scheduler == "median":
        return lambda: MedianStoppingRule(
            time_attr=TIME,
            metric=PROXY,
            mode="min",
            grace_period=search.rungs[0],
            min_samples_required=3,
        )
    return lambda: FIFOScheduler()  # noqa: PLW0108 - a factory, like the others


@dataclass(frozen=True)
class _ReplayedTrial:
    """Stand-in for a Tune trial in a replay; the schedulers read nothing but its id."""

    trial_id: str


class _NoController:
    """Stand-in for Tune's controller in a replay."""

    def get_live_trials(self) -> list[Any]:
        """No trials, so that a scheduler never pauses one in favour of another."""
        return []


class OrderedScheduler(FIFOScheduler):  # type: ignore[misc]
    """Scheduler that decides on a trial from the trials visible to it alone."""

    def __init__(self, factory: Callable[[], TrialScheduler], sequence: TrialSequence) -> None:
        """Wrap a scheduler.

        Args:
            sequence: of the study's trials, shared with the search.
        """
        super().__init__()
        self._factory, self._sequence = factory, sequence

    def on_trial_result(
        self,
        tune_controller: Any,
        trial: Any,
        result: dict[str, Any],
    ) -> str:
        """Stop or continue a trial at a rung; a confirmation always continues."""
        report, suggestion = from_tune(result), from_config(trial.config)
        rung = None if report is None else rung_of(report)
        if rung is None or suggestion.trial.stage != "search":
            return str(TrialScheduler.CONTINUE)
        entry = self._sequence.entries[suggestion.number].latest
        if rung not in entry.rungs:  # a resumed trial passes its rungs again
            entry.rungs.append(rung)
        return self.decide(suggestion.number)

    def decide(self, number: int) -> str:
        """Replay the visible trials, then this one; its last decision counts."""
        scheduler = self._factory()
        # By id, since a configuration suggested twice is one trial, whose losses count once.
        visible = {entry.trial.id: entry for entry in self._sequence.visible(number)}
        for entry in visible.values():
            self._replay(scheduler, entry)
        return self._replay(scheduler, self._sequence.entries[number].latest)

    @staticmethod
    def _replay(scheduler: TrialScheduler, entry: Entry) -> str:
        stand_in = _ReplayedTrial(entry.trial.id)
        scheduler.on_trial_add(_NoController(), stand_in)
        action = str(TrialScheduler.CONTINUE)
        for rung in entry.rungs:
            if rung.response_loss is not None:
                result = {TIME: rung.percent, PROXY: rung.response_loss}
                action = str(scheduler.on_trial_result(_NoController(), stand_in, result))
        return action
