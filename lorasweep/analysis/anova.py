"""Exact variance shares of a full factorial, and what chance alone would make of them.

In a full factorial every level of one hyperparameter meets the same settings of the others, so the
variance of the scores falls apart into main effects and a rest (interactions and noise) that do not
overlap. `codes`, (configurations, hyperparameters), holds the indices of the levels.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]


def is_factorial(codes: Codes) -> bool:
    """Tell whether each combination of the levels stands there exactly once."""
    cells = math.prod(len(np.unique(column)) for column in codes.T)
    return len(codes) == cells == len(np.unique(codes, axis=0))


def _effects(codes: Codes, scores: Floats) -> list[Floats]:
    """Give what each hyperparameter adds to the mean, for every configuration."""
    centred = scores - scores.mean(axis=1, keepdims=True)
    effects = []
    for column in codes.T:
        member = np.eye(column.max() + 1)[column]
        size = np.maximum(member.sum(axis=0), 1.0)
        effects.append((centred @ member / size) @ member.T)
    return effects


def main_effect_shares(codes: Codes, scores: Floats) -> Floats:
    """Give each main effect's share of the variance, a row for each draw of the scores."""
    total = scores.var(axis=1)
    effects = _effects(codes, scores)
    parts = np.stack([(effect**2).mean(axis=1) for effect in effects], axis=1)
    shares: Floats = parts / np.where(total > 0, total, 1.0)[:, None]
    return np.clip(shares, 0.0, 1.0)


def redraw(codes: Codes, scores: Floats, draws: int, rng: np.random.Generator) -> Floats:
    """Draw new scores: the main effects stay, the rest is drawn anew from its own values.

    Drawing configurations instead would leave holes in the factorial, and with them its exactness.
    """
    rest = _rest(codes, scores)
    used = 1 + sum(len(np.unique(column)) - 1 for column in codes.T)
    # Fitting the main effects has shrunk the rest, which this undoes.
    inflation = math.sqrt(len(rest) / max(1, len(rest) - used))
    drawn: Floats = scores - rest + rng.choice(rest * inflation, size=(draws, len(rest)))
    return drawn


def _rest(codes: Codes, scores: Floats) -> Floats:
    """Give what the mean and the main effects leave of the scores."""
    rest: Floats = scores - scores.mean()
    for effect in _effects(codes, scores[None]):
        rest = rest - effect[0]
    return rest


def chance_shares(
    codes: Codes,
    scores: Floats,
    *,
    draws: int,
    level: float,
    rng: np.random.Generator,
) -> Floats:
    """Give the share that each hyperparameter would reach by chance at most.

    The rest alone, which no main effect is in, is drawn anew; how large main effects it feigns
    compared with what remains, times the true rest, is what chance can make of this table.

    Args:
        level: the chance of a share above the one given, for each hyperparameter.
    """
    rest = _rest(codes, scores)
    if not np.any(np.abs(rest) > 1e-12 * np.abs(scores).max()):
        return np.zeros(codes.shape[1])
    shares = main_effect_shares(codes, rng.choice(rest, size=(draws, len(rest))))
    left = np.maximum(1 - shares.sum(axis=1), 1e-12)
    ratio = np.quantile(shares / left[:, None], 1 - level, axis=0)
    rest_share = float(rest.var() / scores.var())
    bounded: Floats = np.minimum(ratio * rest_share, 1.0)
    return bounded
