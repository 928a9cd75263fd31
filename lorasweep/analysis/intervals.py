"""Estimated effects and their 90% intervals: Student, Welch, Wilson, Fisher's z, and redraws.

Every interval of the analysis leaves out 5% on each side. Which one applies depends on what was
counted: means of scores have Student's, shares Wilson's, rank correlations Fisher's, and whatever
has no closed form is redrawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lorasweep.analysis.types import Number, Result

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
TAIL = 0.05  # what an interval leaves out on each side
INTERVAL = f"{1 - 2 * TAIL:.0%} interval"  # as people read it
# Chance, over all tests of a kind, that one shows an effect where there is none (Bonferroni).
SIGNIFICANCE = 0.05
# Seed of all redraws, so that the same trials give the same report.
SEED = 20240515
# Two values that agree by chance would give an interval of no width.
FEWEST_VALUES = 3


class Unfinished(Result):
    """Why further search may change a difference of bests, and what to run."""

    reason: str
    to_run: str


class AsFound(Result):
    """Interval between the best that was found, as if no search had anything left to find.

    lower, upper: why the estimate's own interval goes further down or up; None where it does not.
    """

    low: Number
    high: Number
    lower: Unfinished | None = None
    upper: Unfinished | None = None


class Estimate(Result):
    """Effect with its 90% interval.

    low, high: None where the interval has no bound on that side, or is not known.
    n: how many of `n_of` it rests on.
    basis: how it was compared, as part of a sentence.
    as_found: set where low and high allow for what searches may still find.
    """

    effect: float
    low: Number = None
    high: Number = None
    n: int
    n_of: str
    basis: str
    as_found: AsFound | None = None

    def scaled(self, factor: float) -> Estimate:
        """Convert to another unit; a negative factor swaps the bounds."""
        bounds = (self.low, self.high) if factor >= 0 else (self.high, self.low)
        low, high = (None if bound is None else bound * factor for bound in bounds)
        update = {"effect": self.effect * factor, "low": low, "high": high, "as_found": None}
        return self.model_copy(update=update)


def normal_quantile(probability: float = 1 - TAIL) -> float:
    """Compute a quantile of the standard normal distribution, by default the 95% one (1.645)."""
    from scipy.special import ndtri

    return float(ndtri(probability))


def t_quantile(df: float) -> float:
    """Compute the number of standard errors on each side of a 90% interval (Student's t)."""
    from scipy.special import stdtrit

    return float(stdtrit(df, 1 - TAIL))


def t_interval(
    effect: float, error: float, df: float, *, n: int, of: str, basis: str, floor: float = 0.0
) -> Estimate:
    """Build Student's interval from a standard error; `floor` widens it for rounded scores."""
    reach = t_quantile(df) * error + floor
    return Estimate(
        effect=effect, low=effect - reach, high=effect + reach, n=n, n_of=of, basis=basis
    )


def mean_interval(values: Sequence[float], *, of: str, basis: str, floor: float = 0.0) -> Estimate:
    """Average values, with Student's interval where there are three or more."""
    n = len(values)
    effect = float(np.mean(values))
    if n < FEWEST_VALUES:
        return Estimate(effect=effect, n=n, n_of=of, basis=basis)
    error = float(np.std(values, ddof=1)) / math.sqrt(n)
    return t_interval(effect, error, n - 1, n=n, of=of, basis=basis, floor=floor)


def welch_interval(left: Sequence[float], right: Sequence[float], *, of: str) -> Estimate:
    """Subtract the mean of `right` from that of `left`, with Welch's (1947) interval.

    The two sides may vary by different amounts.
    """
    n = len(left) + len(right)
    effect = float(np.mean(left) - np.mean(right))
    basis = f"means of {len(left)} and of {len(right)} {of}"
    if min(len(left), len(right)) < FEWEST_VALUES:
        return Estimate(effect=effect, n=n, n_of=of, basis=basis)
    parts = [float(np.var(side, ddof=1)) / len(side) for side in (left, right)]
    weights = [part**2 / (len(s) - 1) for part, s in zip(parts, (left, right), strict=True)]
    # Values that all agree leave the degrees of freedom at 0 / 0, and any number does.
    df = sum(parts) ** 2 / sum(weights) if sum(weights) else float(n - 2)
    return t_interval(effect, math.sqrt(sum(parts)), df, n=n, of=of, basis=basis)


def wilson_bounds(count: int, n: int) -> tuple[float, float]:
    """Bound a share by Wilson's (1927) interval, which has a width where the count is 0 too."""
    from scipy.stats import binomtest

    low, high = binomtest(count, n).proportion_ci(1 - 2 * TAIL, method="wilson")
    return float(low), float(high)


def wilson_interval(count: int, n: int, *, of: str) -> Estimate:
    """Divide a count by the number it was counted among, with Wilson's interval."""
    low, high = wilson_bounds(count, n)
    basis = f"{count} of {n} {of}"
    return Estimate(effect=count / n, low=low, high=high, n=n, n_of=of, basis=basis)


def rank_correlation(left: Sequence[float], right: Sequence[float]) -> float | None:
    """Compute Spearman's correlation; None below four pairs or where one side does not vary."""
    from scipy.stats import rankdata

    if len(left) < 4 or len(set(left)) == 1 or len(set(right)) == 1:
        return None
    # `spearmanr` computes the same, and a p-value besides, at ten times the time.
    return float(np.clip(np.corrcoef(rankdata(left), rankdata(right))[0, 1], -1.0, 1.0))


def fisher_bounds(correlation: float, n: int) -> tuple[float, float]:
    """Bound Spearman's correlation by Fisher's transformation.

    The variance of its z is 1.06 / (n - 3) (Fieller, Hartley and Pearson 1957).
    """
    # A perfect correlation lies at infinity on the scale of z.
    z = math.atanh(max(-0.999999, min(0.999999, correlation)))
    reach = normal_quantile() * math.sqrt(1.06 / (n - 3))
    return math.tanh(z - reach), math.tanh(z + reach)


def correlation_interval(
    left: Sequence[float], right: Sequence[float], *, of: str
) -> Estimate | None:
    """Compute Spearman's correlation with its interval; None where `rank_correlation` is."""
    effect, n = rank_correlation(left, right), len(left)
    if effect is None:
        return None
    low, high = fisher_bounds(effect, n)
    basis = f"Spearman's correlation over {n} {of}"
    return Estimate(effect=effect, low=low, high=high, n=n, n_of=of, basis=basis)


def middle(draws: Floats, axis: int | None = None) -> Floats:
    """Cut redrawn values to the middle 90%: the lower bound and the upper one."""
    bounds: Floats = np.quantile(draws, [TAIL, 1 - TAIL], axis=axis)
    return bounds


def interval_from_draws(effect: float, draws: Floats, *, n: int, of: str, basis: str) -> Estimate:
    """Cut redrawn effects to their middle 90%, shifted so that their mean is the effect itself.

    The shift takes out what a redrawn front loses for having fewer distinct points.
    """
    low, high = middle(draws - draws.mean()) + effect
    return Estimate(effect=effect, low=float(low), high=float(high), n=n, n_of=of, basis=basis)


def difference(left: Estimate, right: Estimate, basis: str) -> Estimate:
    """Subtract one independent estimate from another.

    Each bound combines the bounds that widen its side, whose distances add as squares: MOVER (Zou
    and Donner 2008, "Construction of confidence limits about effect measures").
    """
    effect, n = left.effect - right.effect, left.n + right.n
    low = _combined(effect, -1, (left.effect, left.low), (right.effect, right.high))
    high = _combined(effect, 1, (left.effect, left.high), (right.effect, right.low))
    as_found = None
    if left.as_found or right.as_found:
        one, two = (e.as_found or AsFound(low=e.low, high=e.high) for e in (left, right))
        as_found = AsFound(
            low=_combined(effect, -1, (left.effect, one.low), (right.effect, two.high)),
            high=_combined(effect, 1, (left.effect, one.high), (right.effect, two.low)),
            lower=one.lower or two.upper,
            upper=one.upper or two.lower,
        )
    return Estimate(
        effect=effect, low=low, high=high, n=n, n_of=left.n_of, basis=basis, as_found=as_found
    )


def _combined(
    effect: float, sign: int, left: tuple[float, float | None], right: tuple[float, float | None]
) -> float | None:
    """Combine two effects and the bound of each that widens a difference on this side."""
    if left[1] is None or right[1] is None:
        return None
    return effect + sign * math.hypot(left[1] - left[0], right[1] - right[0])
