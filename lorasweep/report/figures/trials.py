"""What several figures need: trials with their index, groups by a hyperparameter, axes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from lorasweep.analysis.scale import Scale
from lorasweep.report.picture import LOOKS, Axis, Key, Series
from lorasweep.report.wording import level
from lorasweep.store.configurations import is_scored
from lorasweep.store.results import SweepResults, TrialResult

# A trial with its index in `SweepResults.trials`, by which the page finds it.
Numbered = tuple[int, TrialResult]
RAMP = (Key(label="learning, low to high", kind="ramp"),)


def scored_trials(results: SweepResults, method: str | None = None) -> list[Numbered]:
    """Select the trials that completed with a learning score, of one method or of all."""
    return [
        (index, trial)
        for index, trial in enumerate(results.trials)
        if is_scored(trial) and method in {None, trial.method}
    ]


def learning(numbered: Numbered) -> float:
    """Look up the learning score of a trial that has one."""
    return numbered[1].learning or 0.0


def labels(scale: Scale) -> tuple[str, ...]:
    """Name the levels of a scale, or the parts of its interval."""
    return scale.labels if scale.is_interval else tuple(level(value) for value in scale.levels)


@dataclass(frozen=True, slots=True)
class Grouping:
    """How one hyperparameter divides trials into groups.

    names: of all levels of the scale; labels: of the groups that occur.
    """

    scale: Scale
    names: tuple[str, ...]
    labels: tuple[str, ...]

    def label(self, trial: TrialResult) -> str:
        """Name the group of a trial; `none` where it lacks the hyperparameter."""
        value = trial.hyperparameters.get(self.scale.name)
        return "none" if value is None else self.names[self.scale.part(value)]


def group_by(
    scales: Mapping[str, Scale], names: Iterable[str], trials: Sequence[Numbered]
) -> Grouping | None:
    """Group trials by the first of these hyperparameters that makes 2 to `LOOKS` groups."""
    for name in names:
        scale = scales.get(name)
        if scale is None or not 1 < len(named := labels(scale)) <= LOOKS:
            continue
        every = Grouping(scale, named, named)
        present = {every.label(trial) for _, trial in trials}
        if len(present) > 1:
            found = dict.fromkeys((*named, "none"))
            return replace(every, labels=tuple(label for label in found if label in present))
    return None


def points(
    look: int, trials: Sequence[Numbered], x: Sequence[float], y: Sequence[float | None]
) -> Series:
    """Make the series of trials that look alike."""
    return Series(look=look, x=tuple(x), y=tuple(y), trials=tuple(index for index, _ in trials))


def axis_over(
    label: str, values: Iterable[float | None], *, log: bool | None = False, whole: bool = False
) -> Axis:
    """Make an axis that covers these values; `log` None leaves the scale to their spread."""
    known = [value for value in values if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    if log is None:
        log = low > 0 and high >= 10 * low
    # A logarithm needs numbers above zero, and a range needs two ends.
    return Axis(label=label, low=low, high=high, log=log and high > low > 0, whole=whole)
