"""How far a score may be off: by its seed, and by the digits it was written with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lorasweep.analysis.frame import Frame
from lorasweep.analysis.intervals import Floats, t_quantile
from lorasweep.store.configurations import Configuration
from lorasweep.store.results import TrialResult

# With fewer degrees of freedom the spread of seeds is hardly known.
_FEWEST_SEEDS = 2


@dataclass(frozen=True, slots=True)
class Noise:
    """Hold how much one score varies from run to run.

    sd: standard deviation of a single trial's score, in the score's unit; None where unknown.
    df: its degrees of freedom.
    basis: `seeds` that repeat a configuration; `residuals` of a regression on all hyperparameters,
        which is too much rather than too little, as it holds what the regression misses too; or
        `unknown`.
    rounding: the last digit that the scores were written with; 0 where they were not rounded.
    """

    sd: float | None
    df: int
    basis: str
    rounding: float

    @property
    def margin(self) -> float:
        """Give what the difference of two single scores may come to by noise, 5% on each side."""
        seeds = 0.0 if not self.sd else t_quantile(self.df) * math.sqrt(2) * self.sd
        return seeds + self.rounding


def _pooled(groups: Iterable[Sequence[float]]) -> tuple[float, int]:
    """Give the sum of squares within groups, and its degrees of freedom."""
    squares, df = 0.0, 0
    for group in groups:
        if len(group) > 1:
            centre = sum(group) / len(group)
            squares += sum((value - centre) ** 2 for value in group)
            df += len(group) - 1
    return squares, df


def rounding_of(values: Sequence[float]) -> float:
    """Give the last digit of scores that all have two to four decimals, else 0."""
    if len(values) < 5:
        return 0.0
    found = np.array(values)
    for digits in (2, 3, 4):
        steps = found * 10**digits
        if np.abs(steps - np.round(steps)).max() < 1e-6:
            return float(10.0**-digits)
    return 0.0


def seed_spreads(noise: Mapping[str, Noise]) -> Floats:
    """Give the spread of learning and of cost from seed to seed, 0 where no seed was repeated."""
    return np.array(
        [own.sd or 0.0 if (own := noise[k]).basis == "seeds" else 0.0 for k in ("learning", "cost")]
    )


def by_content(points: Floats) -> Floats:
    """Put points in an order that their content decides, so that the order of trials does not."""
    ordered: Floats = points[np.lexsort(points.T)]
    return ordered


def redraw_points(points: Floats, spreads: Floats, rng: np.random.Generator) -> Floats:
    """Redraw points with replacement, and add the noise of seeds."""
    n = len(points)
    drawn: Floats = points[rng.integers(0, n, n)] + rng.standard_normal(points.shape) * spreads
    return drawn


def cost_of(trial: TrialResult, *, by_forgetting: bool) -> float | None:
    """Give forgetting, or source accuracy with its sign turned where the base is unknown."""
    if by_forgetting:
        return trial.forgetting
    return None if trial.source_accuracy is None else -trial.source_accuracy


def measure_noise(frames: Mapping[str, Frame], *, by_forgetting: bool) -> dict[str, Noise]:
    """Estimate the noise of `learning` and of `cost`, over all methods."""
    found = {}
    for outcome in ("learning", "cost"):
        groups = [
            _by_seed(case.configuration, outcome, by_forgetting=by_forgetting)
            for frame in frames.values()
            for case in frame.cases
            if case.n > 1
        ]
        found[outcome] = _noise(groups, frames, outcome, by_forgetting=by_forgetting)
    return found


def _by_seed(configuration: Configuration, outcome: str, *, by_forgetting: bool) -> list[float]:
    """Give a score seed by seed; a run repeated with the same seed tells nothing of noise."""
    if outcome == "learning":
        return list(configuration.replicates)
    found: dict[int, list[float]] = {}
    for trial in configuration.scored:
        cost = cost_of(trial, by_forgetting=by_forgetting)
        if cost is not None:
            found.setdefault(trial.seed, []).append(cost)
    return [math.fsum(costs) / len(costs) for costs in found.values()]


def _noise(
    groups: Sequence[Sequence[float]],
    frames: Mapping[str, Frame],
    outcome: str,
    *,
    by_forgetting: bool,
) -> Noise:
    trials = [t for f in frames.values() for c in f.cases for t in c.configuration.trials]
    written = (
        t.learning if outcome == "learning" else cost_of(t, by_forgetting=by_forgetting)
        for t in trials
        if t.status == "COMPLETE"
    )
    rounding = rounding_of([value for value in written if value is not None])
    squares, df = _pooled(groups)
    if df >= _FEWEST_SEEDS:
        return Noise(math.sqrt(squares / df), df, "seeds", rounding)
    known = []
    for frame in frames.values():
        own = frame.scored if outcome == "learning" else frame.measured
        fit = own.fit(outcome) if own.cases else None
        known += [] if fit is None else [fit]
    if not known:
        return Noise(None, 0, "unknown", rounding)
    df = sum(fit.df for fit in known)
    sd = math.sqrt(sum(fit.df * fit.error**2 for fit in known) / df)
    return Noise(sd, df, "residuals", rounding)
