"""Exact variance shares of a full factorial: main effects and what pairs add to them.

In a full factorial every level of one hyperparameter meets the same settings of the others, so the
variance of the scores falls apart into main effects, pairwise interactions and a rest that do not
overlap. `codes`, (configurations, hyperparameters), holds the indices of the levels.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from lorasweep.analysis.design import Codes
from lorasweep.analysis.intervals import Floats


def is_factorial(codes: Codes) -> bool:
    """Check whether each combination of the levels occurs exactly once."""
    cells = math.prod(len(np.unique(column)) for column in codes.T)
    return len(codes) == cells == len(np.unique(codes, axis=0))


def _cell_means(codes: Codes, centred: Floats) -> Floats:
    """Average over the configurations that share a configuration's levels in these columns."""
    _, cell, size = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    cell = cell.reshape(-1)
    means: Floats = (np.bincount(cell, weights=centred) / size)[cell]
    return means


def main_effect_shares(codes: Codes, scores: Floats) -> Floats:
    """Compute each main effect's share of the variance."""
    effects = [_cell_means(column[:, None], scores - scores.mean()) for column in codes.T]
    return _shares(effects, scores)


def pair_shares(codes: Codes, scores: Floats) -> list[float]:
    """Compute the share of each pairwise interaction, in the order of `itertools.combinations`.

    It is what two levels do together beyond their main effects.
    """
    centred = scores - scores.mean()
    mains = [_cell_means(column[:, None], centred) for column in codes.T]
    pairs = itertools.combinations(range(codes.shape[1]), 2)
    effects = [_cell_means(codes[:, [i, j]], centred) - mains[i] - mains[j] for i, j in pairs]
    return list(_shares(effects, scores).tolist())


def _shares(effects: list[Floats], scores: Floats) -> Floats:
    # Effects are orthogonal in a full factorial, so their mean squares add up to the variance.
    total = scores.var()
    parts = np.array([(effect**2).mean() for effect in effects])
    return np.clip(parts / total if total > 0 else 0.0 * parts, 0.0, 1.0)
