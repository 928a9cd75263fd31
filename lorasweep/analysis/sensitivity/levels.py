"""What happened at each level of each hyperparameter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from lorasweep.analysis.scale import Scale
from lorasweep.analysis.types import Number, Result
from lorasweep.store.configurations import is_scored, mean
from lorasweep.store.results import TrialResult


class LevelSummary(Result):
    """Trials at one level of one hyperparameter.

    level: its value, or `LOW..HIGH` for a part of an interval.
    n: trials that completed with a learning score; best and means are over these.
    best, mean: of learning.
    pruned, diverged, failed, running: the other trials at this level.
    """

    level: str
    n: int
    best: Number
    mean: Number
    mean_source_accuracy: Number
    mean_forgetting: Number
    pruned: int
    diverged: int
    failed: int
    running: int


def summarise_levels(
    trials: Sequence[TrialResult], scales: Mapping[str, Scale]
) -> dict[str, tuple[LevelSummary, ...]]:
    """Summarise each hyperparameter of one method, level by level; empty levels stay."""
    return {name: _by_level(trials, scale) for name, scale in scales.items()}


def _by_level(trials: Sequence[TrialResult], scale: Scale) -> tuple[LevelSummary, ...]:
    groups: list[list[TrialResult]] = [[] for _ in scale.labels]
    for trial in trials:
        if scale.name in trial.hyperparameters:
            groups[scale.part(trial.hyperparameters[scale.name])].append(trial)
    return tuple(_summary(*pair) for pair in zip(scale.labels, groups, strict=True))


def _summary(label: str, trials: Sequence[TrialResult]) -> LevelSummary:
    scored = [trial for trial in trials if is_scored(trial)]
    status = Counter(trial.status for trial in trials)
    return LevelSummary(
        level=label,
        n=len(scored),
        best=max((t.learning for t in scored if t.learning is not None), default=None),
        mean=mean(trial.learning for trial in scored),
        mean_source_accuracy=mean(trial.source_accuracy for trial in scored),
        mean_forgetting=mean(trial.forgetting for trial in scored),
        pruned=status["PRUNED"],
        diverged=status["DIVERGED"],
        failed=status["FAILED"],
        running=status["RUNNING"] + status["PENDING"],
    )
