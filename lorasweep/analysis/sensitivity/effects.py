"""Main effects and interactions of hyperparameters, with their errors.

Every effect is a block of columns that are orthonormal under even weight on all levels, or on the
whole interval. The squared length of a block's coefficients then is its variance, whatever the
design was: that of the functional ANOVA with a product measure (Hooker 2007, "Generalized
functional ANOVA diagnostics"). Intervals of variance shares and of level means rest on these fits.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from lorasweep.analysis.design import Block, broken_line, contrasts, level_blocks, pair_blocks
from lorasweep.analysis.factors import Factors
from lorasweep.analysis.regression import Fit, least_squares, with_jackknife_errors, with_variance
from lorasweep.analysis.sensitivity.anova import is_factorial

# Most pieces of a curve over an interval; more of them from `_FINE_FROM` trials on, so that a cliff
# at some learning rate does not look like a slope.
_PIECES, _FINE_PIECES, _FINE_FROM = 6, 12, 150
_GRID = 240
# A variance on fewer degrees of freedom is too uncertain to separate interactions from noise.
_ENOUGH_DF = 5


def fit_effects(factors: Factors) -> Fit:
    """Fit main effects and, where the configurations allow, interactions of pairs."""
    if is_full_factorial(factors):
        return fit_factorial(factors)
    return fit_sampled(sampled_blocks(factors), factors)


def is_full_factorial(factors: Factors) -> bool:
    """Check whether two hyperparameters or more were crossed, each combination once."""
    return len(factors.scales) > 1 and is_factorial(factors.codes)


def sampled_blocks(factors: Factors) -> tuple[Block, ...]:
    """Code each hyperparameter as finely as the number of configurations allows.

    Named levels have a coefficient each. An axis with an order is a broken line, which gets further
    pieces while there are three configurations for each coefficient. Interactions of all pairs are
    added where that still holds with them.
    """
    n = len(factors.scores)
    most = _FINE_PIECES if n >= _FINE_FROM else _PIECES
    finest = [
        len(np.unique(column)) - 1 if not scale.is_interval else most
        for scale, column in zip(factors.scales, factors.points.T, strict=True)
    ]
    sizes = [
        size if scale.kind == "text" else 1
        for scale, size in zip(factors.scales, finest, strict=True)
    ]
    while 3 * (sum(sizes) + 2) <= n:
        coarse = [i for i, size in enumerate(sizes) if size < min(finest[i], most)]
        if not coarse:
            break
        sizes[min(coarse, key=lambda i: sizes[i])] += 1
    mains = _mains(factors, sizes)
    halved = [
        size if scale.kind == "text" else min(size, 2)
        for scale, size in zip(factors.scales, sizes, strict=True)
    ]
    added = sum(a * b for a, b in itertools.combinations(halved, 2))
    if 3 * (1 + sum(sizes) + added) <= n:
        return (*mains, *pair_blocks(_mains(factors, halved)))
    return mains


def _mains(factors: Factors, sizes: Sequence[int]) -> tuple[Block, ...]:
    blocks = []
    for i, (scale, size) in enumerate(zip(factors.scales, sizes, strict=True)):
        column = factors.points[:, i]
        present = np.unique(column)
        if not scale.is_interval and size >= len(present) - 1:
            columns = contrasts(factors.codes[:, i])
        else:
            ends = (present[0], present[-1])
            step = (ends[1] - ends[0]) / _GRID
            middle = ends[0] + step * (np.arange(_GRID) + 0.5)
            columns = broken_line(column, middle if scale.is_interval else present, size)
        blocks.append(Block((scale.name,), columns))
    return tuple(blocks)


def fit_sampled(
    blocks: Sequence[Block], factors: Factors, otherwise: tuple[float, int] = (0.0, 0)
) -> Fit:
    """Fit a sampled design; where there are many configurations, errors are by the jackknife.

    Args:
        otherwise: variance of noise and its degrees of freedom, where none are left to measure it.
    """
    fit = least_squares(blocks, factors.scores)
    if fit.df <= 0:
        return with_variance(fit, *otherwise)
    # With few configurations per coefficient one variance for all is the steadier estimate.
    if fit.df < 2 * fit.design.shape[1]:
        return fit
    return with_jackknife_errors(fit)


def fit_factorial(factors: Factors) -> Fit:
    """Fit a full factorial; noise is measured by repeated seeds, else by the residuals.

    Where neither has enough degrees of freedom beside the interactions of pairs, these are left to
    the residuals, which makes the intervals of main effects wide rather than wrong.
    """
    n = len(factors.scores)
    mains = level_blocks(factors.names, factors.codes)
    pairs = pair_blocks(mains)
    left = n - 1 - sum(block.columns.shape[1] for block in (*mains, *pairs))
    noise = factors.noise if factors.noise is not None and factors.noise[1] >= _ENOUGH_DF else None
    blocks = (*mains, *pairs) if noise or left >= _ENOUGH_DF else mains
    fit = least_squares(blocks, factors.scores, is_orthonormal=True)
    squares = float((fit.residuals**2).sum())
    if noise is None:
        return with_variance(fit, squares / fit.df if fit.df else 0.0, fit.df)
    return with_variance(fit, *noise, (squares / n, fit.df) if fit.df else None)
