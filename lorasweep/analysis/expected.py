"""The score expected of a configuration, without the luck that made it the best.

The best of many noisy scores is too high, as it is the best in part by luck (the winner's curse).
Each score is therefore drawn towards what a regression on all hyperparameters expects there, the
more so the less of the spread around the regression is real: with y the mean over n seeds, m the
regression's value, s the noise of one seed and t the spread that noise does not explain,

    expected = m + B (y - m),    B = t^2 / (t^2 + s^2 / n).

This is the empirical Bayes estimate (Efron and Morris 1975; Efron 2011, "Tweedie's formula and
selection bias"), which choosing the highest does not bias. Where no seed was repeated, B cannot be
estimated, and the regression's prediction takes its place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lorasweep.analysis.intervals import Estimate, Floats, t_interval
from lorasweep.analysis.noise import Noise
from lorasweep.analysis.table import Table

SHRUNK = (
    "drawn towards a regression on all hyperparameters by the share of its spread that seeds "
    "explain (empirical Bayes), as the best of several scores is too high"
)
PREDICTED = (
    "a regression's prediction for one further run, since no configuration has a second seed that "
    "would tell noise from effect"
)
MEASURED = "as measured, since there are too few configurations to tell noise from effect"


@dataclass(frozen=True, slots=True)
class Expected:
    """Expected learning of each scored configuration of a table, row by row.

    errors: standard errors with `df` degrees of freedom; None where noise is unknown.
    how: how they were estimated, as part of a sentence.
    """

    values: Floats
    errors: Floats | None
    df: int
    n: int
    how: str

    def at(self, index: int) -> Estimate:
        """Estimate the score expected of one row."""
        value = float(self.values[index])
        if self.errors is None:
            return Estimate(effect=value, n=self.n, n_of="configurations", basis=self.how)
        error = float(self.errors[index])
        of = "configurations"
        return t_interval(value, error, self.df, n=self.n, of=of, basis=self.how)


def expect(table: Table, noise: Noise) -> Expected:
    """Predict the learning of every configuration of a method; all of them must be scored."""
    scores, n = table.learning, len(table.rows)
    if n == 0 or noise.sd is None:
        return Expected(scores, None, 0, n, MEASURED)
    fit = table.fit("learning")
    if noise.basis != "seeds":
        if fit is None:
            return Expected(scores, None, 0, n, MEASURED)
        # Error of a new run: its own noise, and that of the fitted value.
        errors = fit.error * np.sqrt(1 + fit.leverage)
        return Expected(fit.fitted, errors, fit.df, n, PREDICTED)
    seeds = np.array([row.seeds for row in table.rows], dtype=np.float64)
    of_mean = noise.sd**2 / seeds
    if fit is not None:
        centre, variance, unsure = fit.fitted, fit.variance, fit.variance * fit.leverage
    elif n >= 4:
        spread = float(np.var(scores, ddof=1))
        centre, variance, unsure = np.full(n, scores.mean()), spread, np.full(n, spread / n)
    else:
        return Expected(scores, np.sqrt(of_mean), noise.df, n, MEASURED)
    # t^2 by moments: the spread around the regression, less what noise contributes to it.
    real = max(0.0, variance - float(of_mean.mean()))
    with np.errstate(invalid="ignore"):
        kept = np.where(of_mean > 0, real / (real + of_mean), 1.0) if noise.sd else np.ones(n)
    values = centre + kept * (scores - centre)
    # The posterior variance B s^2 / n, and the error of m by the weight that m has (Morris 1983,
    # "Parametric empirical Bayes inference").
    errors = np.sqrt(kept * of_mean + (1 - kept) ** 2 * unsure)
    return Expected(values, errors, noise.df, n, SHRUNK)


def spread_of(expected: Expected, index: int) -> float | None:
    """Read the standard error of one expected score; None where noise is unknown."""
    error = None if expected.errors is None else float(expected.errors[index])
    return None if error is None or math.isnan(error) else error
