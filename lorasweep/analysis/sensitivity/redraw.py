"""Redraw variances and scores from estimated effects and their errors.

Intervals of variance shares, and the odds of their order, are counted over these draws.

An estimated variance is a sum of squares, so noise only ever adds to it, and redrawing effects
around their estimates would add it once more. Instead the noncentrality of the sum of squares is
drawn such that what was found has the probability that it should have: a parametric bootstrap by
generalised pivots (Weerahandi 1993, "Generalized confidence intervals"; Hannig 2009, "On
generalized fiducial inference").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lorasweep.analysis.intervals import Floats
from lorasweep.analysis.regression import Fit, covariance_root

# Above it a sum of squares is as good as normal on the scale of its root.
_LARGE = 60.0
# With more degrees of freedom it is as good as normal itself.
_MANY = 20


def redraw_shares(fit: Fit, draws: int, rng: np.random.Generator) -> Floats:
    """Draw each block's share of the variance, (draws, blocks).

    All other effects are drawn as one sum of squares. Drawn one by one, each of many small effects
    would add a little, as none is drawn below 0, and together they would be too large.
    """
    factor = fit.df / np.maximum(rng.chisquare(fit.df, size=draws), 1e-12) if fit.df else 1.0
    spread = np.broadcast_to(np.asarray(factor, dtype=np.float64), (draws,))
    found = fit.variances.tolist()
    moments = [(float(np.trace(c)), float((c**2).sum())) for c in fit.covariances]
    if fit.unmodelled is not None:
        variance, df = fit.unmodelled
        error = fit.variance / len(fit.fitted)
        found.append(variance)
        moments.append((df * error, df * error**2))
    together = (sum(found), sum(t for t, _ in moments), sum(s for _, s in moments))
    shares = np.empty((draws, len(fit.weights)))
    for i in range(len(fit.weights)):
        trace, square = moments[i]
        own = _redraw(found[i], trace, square, spread, rng)
        others = _redraw(
            max(0.0, together[0] - found[i]), together[1] - trace, together[2] - square, spread, rng
        )
        total = own + others + fit.variance * spread
        shares[:, i] = own / np.where(total > 0, total, 1.0)
    return shares


def _redraw(
    found: float, trace: float, square: float, spread: Floats, rng: np.random.Generator
) -> Floats:
    """Draw the variance behind a squared length that was found with an error.

    The length is taken for a scaled noncentral chi-square (Satterthwaite 1946), which in a full
    factorial it is.

    Args:
        trace, square: of the error's covariance, the latter the sum of its squared entries.
    """
    from scipy.special import chdtr, chndtrinc, ndtri

    if square <= 1e-36 * found**2:
        return np.full(len(spread), found)
    odds = rng.uniform(1e-12, 1 - 1e-12, size=len(spread))
    df, scale = trace**2 / square, square / trace * spread
    ratio = found / scale
    # The pivot: solve P(chi2(df, noncentrality) <= ratio) = odds for the noncentrality. The root of
    # chi2 is nearly normal around that of noncentrality + df - 1, so it is solved there first.
    root, normal = np.sqrt(ratio), ndtri(odds)
    drawn = np.where(normal < root, (root - normal) ** 2 - (df - 1), 0.0)
    if df > _MANY:
        # Normal with mean df + x and variance 2 (df + 2 x), solved for the noncentrality x.
        inside = np.maximum(4 * ratio - 2 * df + 4 * normal**2, 0.0)
        many: Floats = ratio - df + 2 * normal**2 - normal * np.sqrt(inside)
        return np.maximum(many, 0.0) * scale
    # Small ratios are solved exactly. Where even a noncentrality of 0 makes so small a ratio
    # unlikely, 0 is drawn.
    small = ratio < _LARGE
    central = chdtr(df, ratio[small])
    exact = chndtrinc(ratio[small], df, np.minimum(odds[small], central))
    drawn[small] = np.where(odds[small] < central, np.nan_to_num(exact), 0.0)
    variances: Floats = np.maximum(drawn, 0.0) * scale
    return variances


def chance_variances(fit: Fit, level: float) -> Floats:
    """Bound the variance that each block reaches by chance: an F test of all its coefficients.

    Its numerator is a scaled chi-square (Satterthwaite 1946), its denominator the noise.

    Args:
        level: the chance of more than that, for each block.
    """
    from scipy.special import fdtri

    if fit.df < 1:
        return np.full(len(fit.blocks), np.inf)
    bounds = []
    for covariance in fit.covariances:
        trace, square = float(np.trace(covariance)), float((covariance**2).sum())
        bounds.append(trace * fdtri(trace**2 / square, fit.df, 1 - level) if square > 0 else 0.0)
    return np.array(bounds)


@dataclass(frozen=True, slots=True)
class Redrawn:
    """Redrawn scores of all configurations, (draws, configurations).

    true: what the scores would be without noise; fitted: what a fit to new scores of these would
        give; noisy: new scores themselves.
    """

    true: Floats
    fitted: Floats
    noisy: Floats


def redraw_scores(fit: Fit, draws: int, rng: np.random.Generator) -> Redrawn:
    """Redraw scores from what the effects may be.

    Each block's weights are normal around 0, with a flat prior on their standard deviation (Gelman
    2006, "Prior distributions for variance parameters in hierarchical models"), so they are drawn
    towards 0 by what noise has added to their length; how far is drawn too, since a small effect
    may be found small by luck.
    """
    from scipy.special import gammainc, gammaincinv

    n = len(fit.fitted)
    # The variance of noise is itself estimated: each draw scales it by a chi-square on its df.
    factor = fit.df / np.maximum(rng.chisquare(fit.df, draws), 1e-12)
    noise = np.sqrt(factor)[:, None]
    mean = np.sqrt(fit.variance / n) * noise * rng.standard_normal((draws, 1))
    true, error = np.full((draws, n), fit.fitted.mean()), mean + np.zeros((draws, n))
    for block, weights, covariance in zip(fit.blocks, fit.weights, fit.covariances, strict=True):
        found, trace, k = float(weights @ weights), float(np.trace(covariance)), len(weights)
        root = covariance_root(covariance) @ block.columns.T
        error += noise * (rng.standard_normal((draws, k)) @ root)
        if found == 0 or trace == 0:
            true += block.columns @ weights
            continue
        # Under that prior the share taken off is a gamma variable that is at most 1 (Strawderman
        # 1971), so it is drawn by inverting its distribution function.
        half, shape = found / (trace / k * factor) / 2, max((k - 1) / 2, 0.25)
        most = gammainc(shape, half)
        off = gammaincinv(shape, rng.uniform(size=draws) * most) / half
        kept = np.clip(1 - off, 0.0, 1.0)[:, None]
        true += kept * (block.columns @ weights)
        true += np.sqrt(kept) * noise * (rng.standard_normal((draws, k)) @ root)
    true += mean
    spread = np.sqrt(fit.variance) * noise
    return Redrawn(true, true + error, true + spread * rng.standard_normal((draws, n)))
