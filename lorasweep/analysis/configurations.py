"""Trials of one configuration brought together, whatever their seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lorasweep.spec.space import Level
from lorasweep.store.results import TrialResult


def mean(values: Iterable[float | None]) -> float | None:
    """Average what was measured; None where nothing was."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


@dataclass(frozen=True, slots=True)
class Configuration:
    """Hold all trials of one configuration, search before confirmation, then by number and seed."""

    method: str
    hyperparameters: Mapping[str, Level]
    trials: tuple[TrialResult, ...]

    @property
    def scored(self) -> tuple[TrialResult, ...]:
        """Give the trials that completed with a learning score."""
        return tuple(trial for trial in self.trials if is_scored(trial))

    @property
    def learning(self) -> float | None:
        """Average learning over the seeds that completed."""
        return mean(trial.learning for trial in self.scored)


def is_scored(trial: TrialResult) -> bool:
    """Tell whether a trial completed with a learning score."""
    return trial.status == "COMPLETE" and trial.learning is not None


def configurations(trials: Iterable[TrialResult]) -> tuple[Configuration, ...]:
    """Bring trials together by method and hyperparameters, in the order of their numbers."""
    groups: dict[object, list[TrialResult]] = {}
    ordered = sorted(trials, key=lambda t: (t.stage != "search", t.number, t.seed, t.trial))
    for trial in ordered:
        key = (trial.method, frozenset(trial.hyperparameters.items()))
        groups.setdefault(key, []).append(trial)
    return tuple(
        Configuration(group[0].method, group[0].hyperparameters, tuple(group))
        for group in groups.values()
    )


def methods(trials: Sequence[TrialResult]) -> tuple[str, ...]:
    """Name the methods, the known ones first, the others by name."""
    known = {"lora": 0, "full": 1}
    return tuple(sorted({trial.method for trial in trials}, key=lambda m: (known.get(m, 2), m)))
