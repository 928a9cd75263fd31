"""What a wrong choice costs in mean learning, in its own unit, with intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lorasweep.analysis.intervals import TAIL
from lorasweep.analysis.sample import Floats, Sample, adjusted_means
from lorasweep.analysis.sensitivity.effects import Fit, fit_sampled, level_blocks

_DRAWS = 400
_STEPS = 48


@dataclass(frozen=True, slots=True)
class MeanCost:
    """Hold the difference between the best level and the worst, the others' levels held equal.

    low, high: 90% interval.
    best, worst: labels of the levels.
    """

    cost: float
    low: float
    high: float
    best: str
    worst: str


def mean_costs(sample: Sample, fit: Fit, rng: np.random.Generator) -> tuple[MeanCost, ...]:
    """Give the cost of the wrong level of each hyperparameter.

    Args:
        fit: of the same sample, whose errors count where levels leave none to be told from noise.
    """
    exact = fit_sampled(level_blocks(sample.parts), sample.scores, (fit.rest, fit.df))
    # Where interactions are told from noise, they do not widen the costs.
    errors = exact if exact.rest <= fit.rest or fit.rest == 0 else None
    costs = []
    for i, means in enumerate(adjusted_means(sample.parts, sample.scores)):
        own = np.array([means[part] for part in sorted(means)])
        column = exact.blocks[i].columns
        rows = [int(np.flatnonzero(sample.parts[:, i] == part)[0]) for part in sorted(means)]
        covariance = exact.covariances[i]
        if errors is None:
            covariance = covariance * (fit.rest / exact.rest)
        df = exact.df if errors is exact else fit.df
        noise = rng.standard_normal((_DRAWS, len(covariance))) @ _root(covariance)
        if df:
            noise = noise * np.sqrt(df / np.maximum(rng.chisquare(df, (_DRAWS, 1)), 1e-12))
        low, high = range_interval(own, noise @ column[rows].T)
        labels = sample.labels[i]
        costs.append(
            MeanCost(
                cost=float(np.ptp(own)),
                low=low,
                high=high,
                best=labels[max(means, key=lambda part: means[part])],
                worst=labels[min(means, key=lambda part: means[part])],
            )
        )
    return tuple(costs)


def _root(covariance: Floats) -> Floats:
    values, turn = np.linalg.eigh(covariance)
    root: Floats = (turn * np.sqrt(np.maximum(values, 0.0))).T
    return root


def range_interval(means: Floats, noise: Floats, tail: float = TAIL) -> tuple[float, float]:
    """Give the interval of the range of some means by inverting a test of each range.

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
    tried = np.linspace(0.0, found + 1.5 * reach, _STEPS)
    shape = (means - means.mean()) / found
    given = np.stack([np.ptp(size * shape + noise, axis=1) for size in tried])
    above = np.maximum.accumulate((given >= found).mean(axis=1))
    below = np.minimum.accumulate((given <= found).mean(axis=1))
    low = float(np.interp(tail, above, tried)) if above[0] < tail else 0.0
    high = float(np.interp(-tail, -below, tried)) if below[-1] < tail else float(tried[-1])
    return min(low, found), max(high, found)
