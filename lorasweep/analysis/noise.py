"""How far a score may be off: by its seed, and by the digits it was written with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from lorasweep.analysis.intervals import Floats, t_quantile
from lorasweep.analysis.table import Score, Table
from lorasweep.analysis.types import Number, Result
from lorasweep.store.configurations import Configuration, forgetting_of

# With fewer degrees of freedom the spread of seeds is hardly known. Residuals need one more
# (`FEWEST_DF`), since they contain what a regression misses as well.
FEWEST_SEED_DF = 2


class Noise(Result):
    """How much one score varies from run to run.

    sd: standard deviation of a single trial's score, in the score's unit; None where unknown.
    df: its degrees of freedom.
    basis: `seeds` that repeat a configuration; `residuals` of a regression on all hyperparameters,
        which is too much rather than too little, as they contain what it misses too; or
        `unknown`.
    rounding: the last digit that the scores were written with; 0 where they were not rounded.
    """

    sd: Number = None
    df: int = 0
    basis: Literal["seeds", "residuals", "unknown"] = "unknown"
    rounding: float = 0.0

    @property
    def margin(self) -> float:
        """Largest difference of two single scores that noise explains (Fisher's LSD, 5% a side)."""
        seeds = 0.0 if not self.sd else t_quantile(self.df) * math.sqrt(2) * self.sd
        return seeds + self.rounding


def _pooled(groups: Iterable[Sequence[float]]) -> tuple[float, int]:
    """Pool the variance within groups: the mean square, and its degrees of freedom."""
    squares, df = 0.0, 0
    for group in groups:
        if len(group) > 1:
            centre = sum(group) / len(group)
            squares += sum((value - centre) ** 2 for value in group)
            df += len(group) - 1
    return (squares / df if df else 0.0), df


def variance_of_means(scored: Sequence[Configuration]) -> tuple[float, int] | None:
    """Estimate the variance of a configuration's mean learning, by its repeated seeds.

    Returns:
        The variance, averaged over configurations with few seeds and with many, and its degrees of
        freedom; None where too few seeds were repeated, or all of them agree.
    """
    variance, df = _pooled(c.replicates for c in scored)
    if df < FEWEST_SEED_DF or variance == 0.0:
        return None
    seeds = [max(1, len(c.replicates)) for c in scored]
    return variance * sum(1 / n for n in seeds) / len(seeds), df


def rounding_of(values: Sequence[float]) -> float:
    """Find the last digit of scores that all have two to four decimals, else 0."""
    if len(values) < 5:  # so few may have few digits by chance
        return 0.0
    found = np.array(values)
    for digits in (2, 3, 4):
        steps = found * 10**digits
        if np.abs(steps - np.round(steps)).max() < 1e-6:
            return float(10.0**-digits)
    return 0.0


def seed_spreads(noise: Mapping[str, Noise]) -> Floats:
    """Collect the spread of learning and of forgetting over seeds, 0 where no seed was repeated."""
    both: tuple[Score, ...] = ("learning", "forgetting")
    return np.array(
        [own.sd or 0.0 if (own := noise[score]).basis == "seeds" else 0.0 for score in both]
    )


def by_content(points: Floats) -> Floats:
    """Order points by their content, so that the order of trials plays no part."""
    ordered: Floats = points[np.lexsort(points.T)]
    return ordered


def redraw_points(points: Floats, spreads: Floats, rng: np.random.Generator) -> Floats:
    """Redraw points with replacement, and add the noise of seeds."""
    n = len(points)
    drawn: Floats = points[rng.integers(0, n, n)] + rng.standard_normal(points.shape) * spreads
    return drawn


def measure_noise(tables: Mapping[str, Table], *, by_forgetting: bool) -> dict[str, Noise]:
    """Estimate the noise of learning and of forgetting, pooled over all methods."""
    scores: tuple[Score, ...] = ("learning", "forgetting")
    return {score: _noise(tables, score, by_forgetting=by_forgetting) for score in scores}


def _by_seed(configuration: Configuration, score: Score, *, by_forgetting: bool) -> list[float]:
    """List a score seed by seed; a run repeated with the same seed tells nothing of noise."""
    if score == "learning":
        return list(configuration.replicates)
    found: dict[int, list[float]] = {}
    for trial in configuration.scored:
        forgot = forgetting_of(trial, by_forgetting=by_forgetting)
        if forgot is not None:
            found.setdefault(trial.seed, []).append(forgot)
    return [math.fsum(own) / len(own) for own in found.values()]


def _noise(tables: Mapping[str, Table], score: Score, *, by_forgetting: bool) -> Noise:
    rows = [row for table in tables.values() for row in table.rows]
    written = (
        t.learning if score == "learning" else forgetting_of(t, by_forgetting=by_forgetting)
        for row in rows
        for t in row.configuration.trials
        if t.status == "COMPLETE"
    )
    rounding = rounding_of([value for value in written if value is not None])
    variance, df = _pooled(
        _by_seed(row.configuration, score, by_forgetting=by_forgetting)
        for row in rows
        if row.seeds > 1
    )
    if df >= FEWEST_SEED_DF:
        return Noise(sd=math.sqrt(variance), df=df, basis="seeds", rounding=rounding)
    fits = [table.with_score(score).fit(score) for table in tables.values()]
    known = [fit for fit in fits if fit is not None]
    if not known:
        return Noise(rounding=rounding)
    df = sum(fit.df for fit in known)
    sd = math.sqrt(sum(fit.df * fit.variance for fit in known) / df)
    return Noise(sd=sd, df=df, basis="residuals", rounding=rounding)
