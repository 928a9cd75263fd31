"""What a wrong level costs in mean learning, in learning's own unit, with intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lorasweep.analysis.design import level_blocks
from lorasweep.analysis.factors import Factors
from lorasweep.analysis.intervals import TAIL, Floats
from lorasweep.analysis.regression import Fit, covariance_root
from lorasweep.analysis.sensitivity.effects import fit_sampled

_DRAWS = 400
_STEPS = 48


@dataclass(frozen=True, slots=True)
class MeanRange:
    """Range of mean learning over one hyperparameter's levels, the others' levels held equal.

    low, high: 90% interval.
    best, worst: labels of the levels.
    """

    range: float
    low: float
    high: float
    best: str
    worst: str


def mean_ranges(factors: Factors, fit: Fit, rng: np.random.Generator) -> tuple[MeanRange, ...]:
    """Compute the range of level means of each hyperparameter.

    These are least-squares means, from a fit of main effects (Searle, Speed and Milliken 1980,
    "Population marginal means in the linear model"). In a full factorial they are the plain means;
    where a search tried the levels unevenly they have half the error (planted effects, 20 to 100
    trials).

    Args:
        fit: effects of the same factors; its variance counts where the levels alone leave none, or
            a larger one because they leave interactions out.
    """
    names = factors.names
    mains = fit_sampled(level_blocks(names, factors.parts), factors, (fit.variance, fit.df))
    # Main effects alone leave interactions in the residuals; a fit that models them measures noise
    # better, so that they do not widen the intervals.
    narrowed = mains.variance > fit.variance > 0
    df = fit.df if narrowed else mains.df
    found = []
    for i, (block, weights) in enumerate(zip(mains.blocks, mains.weights, strict=True)):
        parts, first = np.unique(factors.parts[:, i], return_index=True)
        coding = block.columns[first]
        # Contrasts have mean 0 over the levels, but not over what was tried.
        means = factors.scores.mean() + (coding - block.columns.mean(axis=0)) @ weights
        covariance = mains.covariances[i]
        if narrowed:
            covariance = covariance * (fit.variance / mains.variance)
        noise = rng.standard_normal((_DRAWS, len(covariance))) @ covariance_root(covariance)
        if df:
            noise = noise * np.sqrt(df / np.maximum(rng.chisquare(df, (_DRAWS, 1)), 1e-12))
        low, high = range_interval(means, noise @ coding.T)
        labels = factors.labels[i]
        found.append(
            MeanRange(
                range=float(np.ptp(means)),
                low=low,
                high=high,
                best=labels[int(parts[means.argmax()])],
                worst=labels[int(parts[means.argmin()])],
            )
        )
    return tuple(found)


def range_interval(means: Floats, noise: Floats, tail: float = TAIL) -> tuple[float, float]:
    """Bound the range of some means by inverting a test of each range.

    Noise makes a range larger, never smaller, so the quantiles of redrawn ranges lie too high.
    Here a range is in the interval if what was found is not in a tail of what it gives, with the
    shape of the means as found (Carpenter 1999, "Test inversion bootstrap confidence intervals").

    Args:
        means: (levels,); noise: (draws, levels), their errors.
    """
    found = float(np.ptp(means))
    chance = np.ptp(noise, axis=1)
    reach = float(np.quantile(chance, 1 - tail))
    if reach <= 1e-12 * np.abs(means).max():
        return found, found
    if found <= 1e-12 * np.abs(means).max():
        return 0.0, reach
    # Far enough beyond what was found that the largest range tried lies in the tail.
    tried = np.linspace(0.0, found + 1.5 * reach, _STEPS)
    shape = (means - means.mean()) / found
    given = np.stack([np.ptp(size * shape + noise, axis=1) for size in tried])
    above = np.maximum.accumulate((given >= found).mean(axis=1))
    below = np.minimum.accumulate((given <= found).mean(axis=1))
    low = float(np.interp(tail, above, tried)) if above[0] < tail else 0.0
    high = float(np.interp(-tail, -below, tried)) if below[-1] < tail else float(tried[-1])
    return min(low, found), max(high, found)
