"""Effects with their intervals; every interval of the analysis covers 90%, 5% on each side."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lorasweep.analysis.types import Number, Result

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
SIDE = 0.05  # what an interval leaves out on each side
# Two values that happen to agree would give an interval of no width.
FEWEST = 3


class Search(Result):
    """Hold what an interval would be if searches had found their best, and what they may not have.

    low, high: the 90% interval between the best found.
    below, above: why the interval reaches further down and up than that, and what to run to
        narrow it, in a sentence each; None where it does not.
    """

    low: Number
    high: Number
    below: tuple[str, str] | None = None
    above: tuple[str, str] | None = None


class Estimate(Result):
    """Hold an effect and how sure it is.

    low, high: 90% interval; None where it has no bound on that side, or is not known.
    n: how many of `n_of` it rests on.
    basis: how it was compared, as part of a sentence.
    search: None where nothing was left to search.
    """

    effect: float
    low: Number = None
    high: Number = None
    n: int
    n_of: str
    basis: str
    search: Search | None = None

    def scaled(self, factor: float) -> Estimate:
        """Give the effect in another unit; a negative factor swaps the bounds."""
        bounds = (self.low, self.high) if factor >= 0 else (self.high, self.low)
        low, high = (None if bound is None else bound * factor for bound in bounds)
        update = {"effect": self.effect * factor, "low": low, "high": high, "search": None}
        return self.model_copy(update=update)


def student(df: float) -> float:
    """Give the factor on a standard error that makes a 90% interval (Student's t)."""
    from scipy.special import stdtrit

    return float(stdtrit(df, 1 - SIDE))


def around(
    effect: float, error: float, df: float, *, n: int, of: str, basis: str, floor: float = 0.0
) -> Estimate:
    """Put an interval around an effect by its standard error; `floor` is added for rounding."""
    reach = student(df) * error + floor
    return Estimate(
        effect=effect, low=effect - reach, high=effect + reach, n=n, n_of=of, basis=basis
    )


def mean_of(values: Sequence[float], *, of: str, basis: str, floor: float = 0.0) -> Estimate:
    """Give a mean and Student's interval; below three values it has none."""
    n = len(values)
    effect = float(np.mean(values))
    if n < FEWEST:
        return Estimate(effect=effect, n=n, n_of=of, basis=basis)
    error = float(np.std(values, ddof=1)) / math.sqrt(n)
    return around(effect, error, n - 1, n=n, of=of, basis=basis, floor=floor)


def difference_of(left: Sequence[float], right: Sequence[float], *, of: str) -> Estimate:
    """Give the mean of `left` less that of `right` with Welch's (1947) interval."""
    n = len(left) + len(right)
    effect = float(np.mean(left) - np.mean(right))
    basis = f"means of {len(left)} and of {len(right)} {of}"
    if min(len(left), len(right)) < FEWEST:
        return Estimate(effect=effect, n=n, n_of=of, basis=basis)
    parts = [float(np.var(side, ddof=1)) / len(side) for side in (left, right)]
    weights = [part**2 / (len(s) - 1) for part, s in zip(parts, (left, right), strict=True)]
    df = sum(parts) ** 2 / sum(weights) if sum(weights) else float(n - 2)
    return around(effect, math.sqrt(sum(parts)), df, n=n, of=of, basis=basis)


def from_draws(effect: float, draws: Floats, *, n: int, of: str, basis: str) -> Estimate:
    """Give the middle 90% of redrawn effects, shifted so that their mean is the effect itself.

    The shift takes out what a redrawn front loses for having fewer distinct points.
    """
    low, high = np.quantile(draws - draws.mean(), [SIDE, 1 - SIDE]) + effect
    return Estimate(effect=effect, low=float(low), high=float(high), n=n, n_of=of, basis=basis)


def _ranks(values: Sequence[float]) -> Floats:
    """Rank from 0, equal values sharing their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    first = np.cumsum(counts) - counts
    ranks: Floats = (first + (counts - 1) / 2)[inverse]
    return ranks


def rank_correlation(left: Sequence[float], right: Sequence[float]) -> float | None:
    """Give Spearman's correlation; None below four pairs or where one side does not vary."""
    if len(left) < 4 or len(set(left)) == 1 or len(set(right)) == 1:
        return None
    return float(np.clip(np.corrcoef(_ranks(left), _ranks(right))[0, 1], -1.0, 1.0))


def correlation_of(left: Sequence[float], right: Sequence[float], *, of: str) -> Estimate | None:
    """Give Spearman's correlation with its interval by Fisher's transformation.

    The variance of its z is 1.06 / (n - 3) (Fieller, Hartley and Pearson 1957).
    """
    effect = rank_correlation(left, right)
    if effect is None:
        return None
    z = math.atanh(max(-0.999999, min(0.999999, effect)))
    reach = 1.645 * math.sqrt(1.06 / (len(left) - 3))
    low, high = math.tanh(z - reach), math.tanh(z + reach)
    return Estimate(
        effect=effect,
        low=low,
        high=high,
        n=len(left),
        n_of=of,
        basis=f"Spearman's correlation over {len(left)} {of}",
    )


def minus(left: Estimate, right: Estimate, basis: str) -> Estimate:
    """Give the difference of two independent effects; their reaches add as squares."""
    effect, n = left.effect - right.effect, left.n + right.n
    low = _apart(effect, -1, (left.effect, left.low), (right.effect, right.high))
    high = _apart(effect, 1, (left.effect, left.high), (right.effect, right.low))
    search = None
    if left.search or right.search:
        one, two = (e.search or Search(low=e.low, high=e.high) for e in (left, right))
        search = Search(
            low=_apart(effect, -1, (left.effect, one.low), (right.effect, two.high)),
            high=_apart(effect, 1, (left.effect, one.high), (right.effect, two.low)),
            below=one.below or two.above,
            above=one.above or two.below,
        )
    return Estimate(
        effect=effect, low=low, high=high, n=n, n_of=left.n_of, basis=basis, search=search
    )


def _apart(
    effect: float, side: int, left: tuple[float, float | None], right: tuple[float, float | None]
) -> float | None:
    """Give the bound of a difference from the two effects and the bounds that widen that side."""
    if left[1] is None or right[1] is None:
        return None
    return effect + side * math.hypot(left[1] - left[0], right[1] - right[0])


def share_of(count: float, total: float, *, of: str) -> Estimate:
    """Give a share with Wilson's (1927) interval, which has a width where the count is 0 too."""
    z = 1.645
    share = count / total
    centre = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    inner = share * (1 - share) / total + z**2 / (4 * total**2)
    reach = z / (1 + z**2 / total) * math.sqrt(inner)
    low, high = max(0.0, centre - reach), min(1.0, centre + reach)
    return Estimate(
        effect=share,
        low=low,
        high=high,
        n=int(total),
        n_of=of,
        basis=f"{count:g} of {total:g} {of}",
    )
