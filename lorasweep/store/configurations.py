"""Trials grouped by configuration: equal hyperparameters, whatever the seed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from lorasweep.spec.space import Level
from lorasweep.store.results import TrialResult


def mean(values: Iterable[float | None]) -> float | None:
    """Average what was measured, the same in any order; None where nothing was."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


@dataclass(frozen=True)  # without slots, so that its properties can be cached
class Configuration:
    """All trials of one configuration: search before confirmation, then by number and seed."""

    method: str
    hyperparameters: Mapping[str, Level]
    trials: tuple[TrialResult, ...]

    @cached_property
    def scored(self) -> tuple[TrialResult, ...]:
        """Trials that completed with a learning score."""
        return tuple(trial for trial in self.trials if is_scored(trial))

    @cached_property
    def learning(self) -> float | None:
        """Mean learning over the trials that completed."""
        return mean(trial.learning for trial in self.scored)

    @cached_property
    def replicates(self) -> tuple[float, ...]:
        """Learning seed by seed; a run repeated with the same seed is no further replicate."""
        by_seed: dict[int, list[float]] = {}
        for trial in self.scored:
            if trial.learning is not None:
                by_seed.setdefault(trial.seed, []).append(trial.learning)
        return tuple(math.fsum(s) / len(s) for _, s in sorted(by_seed.items()))


def is_scored(trial: TrialResult) -> bool:
    """Check that a trial completed with a learning score."""
    return trial.status == "COMPLETE" and trial.learning is not None


def forgetting_of(trial: TrialResult, *, by_forgetting: bool) -> float | None:
    """Forgetting of a trial up to a constant: where the base is unknown, minus source accuracy.

    Args:
        by_forgetting: whether forgetting is known of any trial; source accuracies of the others
            may then stem from another base.
    """
    if by_forgetting:
        return trial.forgetting
    return None if trial.source_accuracy is None else -trial.source_accuracy


def configurations(trials: Iterable[TrialResult]) -> tuple[Configuration, ...]:
    """Group trials by domain, method and hyperparameters, in the order of their numbers.

    A trial listed twice with the same outcome counts once.
    """
    groups: dict[object, list[TrialResult]] = {}
    ordered = sorted(trials, key=lambda t: (t.stage != "search", t.number, t.seed, t.trial))
    for trial in ordered:
        key = (trial.domain, trial.method, frozenset(trial.hyperparameters.items()))
        group = groups.setdefault(key, [])
        # Equal trials are neighbours in this order.
        if not group or trial != group[-1]:
            group.append(trial)
    return tuple(
        Configuration(group[0].method, group[0].hyperparameters, tuple(group))
        for group in groups.values()
    )


def methods(trials: Sequence[TrialResult]) -> tuple[str, ...]:
    """List the methods, the known ones first, the others by name."""
    known = {"lora": 0, "full": 1}
    return tuple(sorted({trial.method for trial in trials}, key=lambda m: (known.get(m, 2), m)))
