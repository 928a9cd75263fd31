"""Effects by least squares, with the error of each: what intervals of variance shares rest on.

Every main effect and interaction is a block of columns that are orthonormal under even weight on
all levels, or on the whole interval. The squared length of a block's weights then is its variance,
whatever the design was: that of the functional ANOVA (Hooker 2007, "Generalized functional ANOVA
diagnostics"), with a product measure.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lorasweep.analysis.sample import Codes, Floats, Noise, Sample

# A curve over an interval has at most so many pieces, the more where there are many trials, so that
# a learning rate above which all is lost does not look like a slope.
_PIECES, _FINE_PIECES, _FINE_FROM = 6, 12, 150
_GRID = 240


@dataclass(frozen=True, slots=True)
class Block:
    """Hold the columns of one effect: of one axis, or of the interaction of two."""

    axes: tuple[int, ...]
    columns: Floats


@dataclass(frozen=True, slots=True)
class Fit:
    """Hold estimated effects.

    weights, covariances: of each block, in the order of `blocks`.
    rest: variance that the effects leave to noise and further interactions, on `df` degrees of
        freedom; 0 where nothing is left.
    beyond: variance of interactions that no block models, with the degrees of freedom that it was
        measured on; None where it cannot be told from noise.
    """

    blocks: tuple[Block, ...]
    weights: tuple[Floats, ...]
    covariances: tuple[Floats, ...]
    rest: float
    df: int
    fitted: Floats
    beyond: tuple[float, int] | None = None

    @property
    def variances(self) -> Floats:
        """Give each block's variance as it stands, noise and all."""
        return np.array([float(w @ w) for w in self.weights])


def level_blocks(codes: Codes) -> tuple[Block, ...]:
    """Give a block for each column of level indices, every level with a weight of its own."""
    return tuple(Block((i,), _levels(column)) for i, column in enumerate(codes.T))


def pair_blocks(mains: Sequence[Block]) -> tuple[Block, ...]:
    """Give a block for the interaction of each pair."""
    return tuple(
        Block(
            (*left.axes, *right.axes),
            np.einsum("ni,nj->nij", left.columns, right.columns).reshape(len(left.columns), -1),
        )
        for left, right in itertools.combinations(mains, 2)
    )


def sampled_blocks(sample: Sample) -> tuple[Block, ...]:
    """Give blocks as fine as the number of configurations allows.

    Named levels have a weight each; an axis with an order is a broken line, of one piece at first
    and of more while three configurations stand behind each weight. Interactions of all pairs join
    in where there are enough for them too.
    """
    n = len(sample.scores)
    most = _FINE_PIECES if n >= _FINE_FROM else _PIECES
    finest = [
        len(np.unique(column)) - 1 if not scale.is_interval else most
        for scale, column in zip(sample.scales, sample.points.T, strict=True)
    ]
    sizes = [
        size if scale.kind == "text" else 1
        for scale, size in zip(sample.scales, finest, strict=True)
    ]
    while 3 * (sum(sizes) + 2) <= n:
        coarse = [i for i, size in enumerate(sizes) if size < min(finest[i], most)]
        if not coarse:
            break
        sizes[min(coarse, key=lambda i: sizes[i])] += 1
    mains = _mains(sample, sizes)
    halved = [
        size if scale.kind == "text" else min(size, 2)
        for scale, size in zip(sample.scales, sizes, strict=True)
    ]
    added = sum(a * b for a, b in itertools.combinations(halved, 2))
    if 3 * (1 + sum(sizes) + added) <= n:
        return (*mains, *pair_blocks(_mains(sample, halved)))
    return mains


def _mains(sample: Sample, sizes: Sequence[int]) -> tuple[Block, ...]:
    blocks = []
    for i, (scale, size) in enumerate(zip(sample.scales, sizes, strict=True)):
        column = sample.points[:, i]
        present = np.unique(column)
        if not scale.is_interval and size >= len(present) - 1:
            columns = _levels(np.searchsorted(present, column))
        else:
            ends = (present[0], present[-1])
            step = (ends[1] - ends[0]) / _GRID
            middle = ends[0] + step * (np.arange(_GRID) + 0.5)
            columns = _broken_line(column, middle if scale.is_interval else present, size)
        blocks.append(Block((i,), columns))
    return tuple(blocks)


def _levels(column: Codes) -> Floats:
    """Give Helmert contrasts: each level against the mean of those before it."""
    levels, codes = np.unique(column, return_inverse=True)
    k = len(levels)
    contrasts = np.zeros((k, k - 1))
    for j in range(1, k):
        contrasts[:j, j - 1] = -1.0
        contrasts[j, j - 1] = j
        contrasts[:, j - 1] *= np.sqrt(k / (j * (j + 1)))
    own: Floats = contrasts[codes]
    return own


def _broken_line(column: Floats, grid: Floats, pieces: int) -> Floats:
    """Give broken lines over evenly spread bends, orthonormal under even weight on the grid."""

    def hats(x: Floats) -> Floats:
        place = (x - grid[0]) / (grid[-1] - grid[0]) * pieces
        near: Floats = np.maximum(0.0, 1.0 - np.abs(place[:, None] - np.arange(pieces + 1)))
        return near

    even = hats(grid)
    centre = even.mean(axis=0)
    _, scale, turn = np.linalg.svd((even - centre) / np.sqrt(len(grid)), full_matrices=False)
    # The hats add up to one, so one direction of theirs is constant.
    columns: Floats = (hats(np.clip(column, grid[0], grid[-1])) - centre) @ (
        turn[:pieces].T / scale[:pieces]
    )
    return columns


def fit_sampled(
    blocks: Sequence[Block], scores: Floats, otherwise: tuple[float, int] = (0.0, 0)
) -> Fit:
    """Fit a sampled design; errors by the jackknife over configurations.

    What the blocks leave out is larger in some regions than in others, and a jackknife minds that.
    Its closed form is MacKinnon and White (1985), "Some heteroskedasticity-consistent covariance
    matrix estimators with improved finite sample properties", HC3.

    Args:
        otherwise: variance of noise and its degrees of freedom, for where none are left to tell it.
    """
    design = np.hstack([np.ones((len(scores), 1)), *(block.columns for block in blocks)])
    inverse = np.linalg.pinv(design.T @ design, rcond=1e-10, hermitian=True)
    weights = inverse @ (design.T @ scores)
    fitted = design @ weights
    left = _clean(scores - fitted, scores)
    hat = np.einsum("ni,ij,nj->n", design, inverse, design, optimize=True)
    df = len(scores) - int(np.linalg.matrix_rank(design))
    rest, df = (float(left @ left) / df, df) if df > 0 else otherwise
    if df >= 2 * design.shape[1]:
        spread = (design * (left / np.maximum(1 - hat, 0.05))[:, None]) @ inverse
        covariance = spread.T @ spread
    else:
        # With few configurations per weight one number for all errors is the steadier one.
        covariance = inverse * rest
    ends = np.cumsum([1, *(block.columns.shape[1] for block in blocks)])
    spans = [slice(a, b) for a, b in itertools.pairwise(ends)]
    return Fit(
        blocks=tuple(blocks),
        weights=tuple(weights[span] for span in spans),
        covariances=tuple(covariance[span, span] for span in spans),
        rest=rest,
        df=df,
        fitted=fitted,
    )


def fit_factorial(codes: Codes, scores: Floats, noise: Noise | None, enough: int = 5) -> Fit:
    """Fit a full factorial; noise is told by the seeds, else by what the effects leave.

    Where neither gives `enough` degrees of freedom beside the interactions of pairs, these count as
    noise too, which makes the intervals of main effects wide rather than wrong.
    """
    n = len(scores)
    mains = level_blocks(codes)
    pairs = pair_blocks(mains)
    sizes = [block.columns.shape[1] for block in (*mains, *pairs)]
    left = n - 1 - sum(sizes)
    seeds = noise if noise is not None and noise.df >= enough else None
    blocks = (*mains, *pairs) if seeds or left >= enough else mains
    centred = scores - scores.mean()
    weights = [block.columns.T @ centred / n for block in blocks]
    fitted = scores.mean() + sum(b.columns @ w for b, w in zip(blocks, weights, strict=True))
    squares = float((_clean(scores - fitted, scores) ** 2).sum())
    df = n - 1 - sum(block.columns.shape[1] for block in blocks)
    beyond = None
    if seeds is not None:
        rest, beyond = seeds.variance, ((squares / n, df) if df else None)
        df = seeds.df
    else:
        rest = squares / df if df else 0.0
    return Fit(
        blocks=blocks,
        weights=tuple(weights),
        covariances=tuple(np.eye(len(w)) * rest / n for w in weights),
        rest=rest,
        df=df,
        fitted=fitted,
        beyond=beyond,
    )


def _clean(left: Floats, scores: Floats) -> Floats:
    """Take what rounding leaves for nothing."""
    cleaned: Floats = np.where(np.abs(left) > 1e-11 * np.abs(scores).max(), left, 0.0)
    return cleaned
