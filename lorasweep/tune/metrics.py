"""Gauges for the Ray dashboard and Prometheus, exported by Ray with the prefix `ray_`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from ray.util.metrics import Gauge

from lorasweep.lanes.messages import Training, TrialEnded, TuneReport, rung_of
from lorasweep.store.scores import MEASURES, SCORES

_TRIAL = ("sweep", "trial")
_DESCRIPTIONS = {name: f"{MEASURES[name].help} Unit: {MEASURES[name].unit}." for name in SCORES}
_DESCRIPTIONS["tokens_per_s"] = "Trained tokens per second."


class Gauges:
    """Numbers of a sweep, published under the names that the journal uses."""

    def __init__(self, sweep: str) -> None:
        """Declare the gauges; one without a value is not exported."""
        self._sweep = sweep
        self._trials = Gauge("lorasweep_trials", "Trials by status.", ("sweep", "status"))
        self._best = Gauge("lorasweep_best_learning", "Best learning so far.", ("sweep",))
        self._of_trial = {
            name: Gauge(f"lorasweep_{name}", text, _TRIAL) for name, text in _DESCRIPTIONS.items()
        }

    def report(self, report: TuneReport) -> None:
        """Publish the numbers of a trial's report."""
        values: dict[str, float | None] = {}
        if isinstance(report, Training):
            values |= {"train_loss": report.train_loss, "tokens_per_s": report.tokens_per_s}
        if (rung := rung_of(report)) is not None:
            values["response_loss"] = rung.response_loss
        if isinstance(report, TrialEnded):
            values |= report.scores.model_dump(include={*SCORES})
        self.trial(report.trial, values)

    def trial(self, trial: str, values: Mapping[str, float | None]) -> None:
        """Publish numbers of one trial; those that are None keep their last value."""
        for name, value in values.items():
            if value is not None:
                self._of_trial[name].set(value, {"sweep": self._sweep, "trial": trial})

    def sweep(self, statuses: Counter[str], best: float | None) -> None:
        """Publish the number of trials by status, and the best score."""
        for status in ("RUNNING", "COMPLETE", "PRUNED", "DIVERGED", "FAILED"):
            tags = {"sweep": self._sweep, "status": status}
            self._trials.set(statuses.get(status, 0), tags)
        if best is not None:
            self._best.set(best, {"sweep": self._sweep})
