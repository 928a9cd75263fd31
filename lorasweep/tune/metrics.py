"""Gauges for the Ray dashboard and Prometheus, exported by Ray with the prefix `ray_`."""

from __future__ import annotations

from collections import Counter

from ray.util.metrics import Gauge

_TRIAL = ("sweep", "trial")


class Gauges:
    """Publish a sweep's numbers under the names that the journal uses."""

    def __init__(self, sweep: str) -> None:
        """Declare the gauges; a gauge without a value is not exported."""
        self._sweep = sweep
        self._trials = Gauge("lorasweep_trials", "Trials by status.", ("sweep", "status"))
        self._best = Gauge("lorasweep_best_learning", "Best learning so far.", ("sweep",))
        descriptions = {
            "train_loss": "Training loss in nats per token.",
            "response_loss": "Held-out response loss in nats per token.",
            "tokens_per_s": "Trained tokens per second.",
            "learning": "Mean score over the learning suite.",
            "source_accuracy": "Mean accuracy over the source suite.",
            "forgetting": "Source accuracy of the base minus the trial's.",
        }
        self._of_trial = {
            name: Gauge(f"lorasweep_{name}", text, _TRIAL) for name, text in descriptions.items()
        }

    def trial(self, trial: str, values: dict[str, float | None]) -> None:
        """Publish what is known of one trial; names without a gauge are left out."""
        for name, value in values.items():
            if name in self._of_trial and value is not None:
                self._of_trial[name].set(value, {"sweep": self._sweep, "trial": trial})

    def sweep(self, statuses: Counter[str], best: float | None) -> None:
        """Publish the number of trials by status, and the best score."""
        for status in ("RUNNING", "COMPLETE", "PRUNED", "DIVERGED", "FAILED"):
            tags = {"sweep": self._sweep, "status": status}
            self._trials.set(statuses.get(status, 0), tags)
        if best is not None:
            self._best.set(best, {"sweep": self._sweep})
