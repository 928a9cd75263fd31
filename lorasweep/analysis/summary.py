"""Everything the report needs to know about a sweep, from its trials alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lorasweep.analysis.best import Best, find_best
from lorasweep.analysis.caution import warn
from lorasweep.analysis.configurations import configurations, methods
from lorasweep.analysis.importance import Ranking, rank_hyperparameters
from lorasweep.analysis.levels import LevelSummary, summarise_levels
from lorasweep.analysis.pareto import FrontPoint, fronts
from lorasweep.analysis.scale import Scale, scales
from lorasweep.store.results import SweepResults, TrialResult


@dataclass(frozen=True, slots=True)
class Proxy:
    """Hold how well the stopping proxy ranked the trials of a method.

    correlation: Spearman's, of low response loss with high learning; None below four trials or
        where either does not vary.
    n: completed trials with both.
    """

    n: int
    correlation: float | None


@dataclass(frozen=True, slots=True)
class Totals:
    """Hold what the trials took: wall seconds, the training and evaluation in them, and tokens."""

    wall_s: float
    train_s: float
    evaluate_s: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Analysis:
    """Hold the comparison of all trials of a sweep.

    statuses: trials by method and status; only what occurs.
    """

    methods: tuple[str, ...]
    statuses: Mapping[str, Mapping[str, int]]
    scales: Mapping[str, Mapping[str, Scale]]
    rankings: Mapping[str, Ranking]
    levels: Mapping[str, Mapping[str, tuple[LevelSummary, ...]]]
    best: Mapping[str, Best]
    front: tuple[FrontPoint, ...]
    proxy: Mapping[str, Proxy]
    totals: Totals
    warnings: tuple[str, ...]

    def count(self, status: str) -> int:
        """Count the trials of all methods with a status."""
        return sum(counts.get(status, 0) for counts in self.statuses.values())


def _ranks(values: Sequence[float]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Rank from 0, equal values sharing their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    first = np.cumsum(counts) - counts
    ranks: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = (first + (counts - 1) / 2)[inverse]
    return ranks


def rank_correlation(left: Sequence[float], right: Sequence[float]) -> float | None:
    """Give Spearman's correlation; None below four pairs or where one side does not vary."""
    if len(left) < 4 or len(set(left)) == 1 or len(set(right)) == 1:
        return None
    return float(np.clip(np.corrcoef(_ranks(left), _ranks(right))[0, 1], -1.0, 1.0))


def _proxy(trials: Sequence[TrialResult]) -> Proxy:
    pairs = [
        (-trial.response_loss, trial.learning)
        for trial in trials
        if trial.status == "COMPLETE"
        and trial.learning is not None
        and trial.response_loss is not None
    ]
    return Proxy(len(pairs), rank_correlation([p for p, _ in pairs], [q for _, q in pairs]))


def analyse(results: SweepResults) -> Analysis:
    """Compare all trials of a sweep, finished or not."""
    by_method = {
        method: tuple(trial for trial in results.trials if trial.method == method)
        for method in methods(results.trials)
    }
    laid_out = {method: scales(results, trials) for method, trials in by_method.items()}
    grouped = configurations(results.trials)
    rankings = {
        method: rank_hyperparameters(
            method, [c for c in grouped if c.method == method], laid_out[method]
        )
        for method in by_method
    }
    found = {best.method: best for best in find_best(grouped)}
    best = {method: found[method] for method in by_method if method in found}
    return Analysis(
        methods=tuple(by_method),
        statuses={m: dict(Counter(t.status for t in trials)) for m, trials in by_method.items()},
        scales=laid_out,
        rankings=rankings,
        levels={m: summarise_levels(t, laid_out[m]) for m, t in by_method.items()},
        best=best,
        front=fronts(results.trials),
        proxy={method: _proxy(trials) for method, trials in by_method.items()},
        totals=Totals(
            wall_s=sum(trial.wall_s for trial in results.trials),
            train_s=sum(trial.train_s for trial in results.trials),
            evaluate_s=sum(trial.evaluate_s for trial in results.trials),
            tokens=sum(trial.tokens for trial in results.trials),
        ),
        warnings=warn(results, by_method, laid_out, rankings, best),
    )
