"""Which trials are stopped early: Tune's own schedulers, asked in an order that repeats exactly."""

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

from lorasweep.spec.sweep import SearchSpec
from lorasweep.store.records import Rung
from lorasweep.tune.sequence import Entry, TrialSequence

PROXY = "response_loss"
TIME = "percent"  # of a trial's own steps, never wall time: a trial that waited is not punished


def build_rule(search: SearchSpec) -> Callable[[], TrialScheduler]:
    """Give a maker of the scheduler that the sweep asks for."""
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
    return lambda: FIFOScheduler()  # noqa: PLW0108 - as the others, a maker


@dataclass(frozen=True)
class _Named:
    """Stand for a trial in a replay; the schedulers ask a trial for nothing but its name."""

    trial_id: str


class _Idle:
    """Stand for Tune's controller in a replay, in which no trial waits for a place."""

    def get_live_trials(self) -> list[Any]:
        """Give no trial, so that a rule never pauses one in favour of another."""
        return []


class OrderedScheduler(FIFOScheduler):  # type: ignore[misc]
    """Decide on a trial by replaying, into a fresh scheduler, the trials it may know of."""

    def __init__(self, make: Callable[[], TrialScheduler], order: TrialSequence) -> None:
        """Take a maker of the scheduler, and the order shared with the search."""
        super().__init__()
        self._make, self._order = make, order

    def on_trial_result(
        self,
        tune_controller: Any,
        trial: Any,
        result: dict[str, Any],
    ) -> str:
        """Stop or continue; a confirmation and a trial that has just ended always continue."""
        if PROXY not in result or "status" in result or trial.config["trial"]["stage"] != "search":
            return str(TrialScheduler.CONTINUE)
        number = trial.config["number"]
        entry = self._order.entries[number].latest
        rung = Rung(percent=result[TIME], step=result["step"], response_loss=result[PROXY])
        if rung not in entry.rungs:  # a restarted trial passes its rungs again
            entry.rungs.append(rung)
        return self.decide(number)

    def decide(self, number: int) -> str:
        """Replay the known trials and then this one, and give the scheduler's last word."""
        scheduler = self._make()
        known = {entry.trial.id: entry for entry in self._order.visible(number)}
        for entry in known.values():
            self._replay(scheduler, entry)
        return self._replay(scheduler, self._order.entries[number].latest)

    @staticmethod
    def _replay(scheduler: TrialScheduler, entry: Entry) -> str:
        stand_in = _Named(entry.trial.id)
        scheduler.on_trial_add(_Idle(), stand_in)
        action = str(TrialScheduler.CONTINUE)
        for rung in entry.rungs:
            if rung.response_loss is not None:
                result = {TIME: rung.percent, PROXY: rung.response_loss}
                action = str(scheduler.on_trial_result(_Idle(), stand_in, result))
        return action
