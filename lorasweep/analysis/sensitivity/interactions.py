"""Which pairs of hyperparameters depend on one another."""

from __future__ import annotations

import itertools

import numpy as np
from pydantic import computed_field

from lorasweep.analysis.factors import Factors
from lorasweep.analysis.intervals import Floats, middle
from lorasweep.analysis.regression import Fit
from lorasweep.analysis.sensitivity.anova import pair_shares
from lorasweep.analysis.sensitivity.redraw import chance_variances
from lorasweep.analysis.types import Result


class Interaction(Result):
    """How much two hyperparameters matter together, beyond what each does alone.

    importance: share of the variance of learning, in [0, 1]; exact in a full factorial, by least
        squares in a sampled design. low, high: 90% interval of the share behind it.
    chance: the share that it could have by chance.
    is_testable: there are residuals to tell it from noise; if not, low is 0.
    """

    hyperparameters: tuple[str, str]
    importance: float
    low: float
    high: float
    chance: float
    is_testable: bool

    @computed_field
    @property
    def above_chance(self) -> bool:
        """Whether it matters more than chance explains."""
        return self.is_testable and self.importance > self.chance


def rank_interactions(
    factors: Factors, fit: Fit, shares: Floats, *, level: float, is_factorial: bool
) -> tuple[Interaction, ...]:
    """Rank all pairs by importance; none in a sampled design that is too small to model them.

    Args:
        fit: with pairs among its blocks where they can be told from noise.
        shares: of its blocks, redrawn.
        level: the chance that any pair is shown without an effect.
    """
    names = factors.names
    pairs = list(itertools.combinations(names, 2))
    place = {block.names: i for i, block in enumerate(fit.blocks) if len(block.names) == 2}
    if not pairs or not (place or is_factorial):
        return ()
    found = fit.variances
    noise = np.array([np.trace(covariance) for covariance in fit.covariances])
    if is_factorial:
        exact = dict(zip(pairs, pair_shares(factors.parts, factors.scores), strict=True))
        total = float(factors.scores.var())
    else:
        # The error of its coefficients adds to every variance, and is subtracted. The shares of a
        # factorial describe the table as it is, noise included.
        corrected = np.maximum(found - noise, 0.0)
        total = float(corrected.sum()) + fit.variance
        exact = {pair: float(corrected[place[pair]] / total) for pair in pairs}
    chance = chance_variances(fit, level / len(pairs))
    rows = []
    for pair in pairs:
        share = exact[pair]
        if pair not in place:
            # The fit left this pair to the residuals, so it cannot be separated from noise.
            rows.append(
                Interaction(
                    hyperparameters=pair,
                    importance=share,
                    low=0.0,
                    high=share,
                    chance=1.0,
                    is_testable=False,
                )
            )
            continue
        i = place[pair]
        low, high = middle(shares[:, i])
        bound = chance[i] if is_factorial else max(0.0, float(chance[i] - noise[i]))
        rows.append(
            Interaction(
                hyperparameters=pair,
                importance=share,
                low=float(min(low, share)),
                high=float(max(high, share)),
                chance=float(min(bound / total, 1.0)),
                is_testable=True,
            )
        )
    return tuple(sorted(rows, key=lambda row: (-row.importance, row.hyperparameters)))
