"""What it takes to be among the best: PED-ANOVA, through Optuna.

It compares where the best configurations lie on each hyperparameter with where all of them lie.
That is another question than a share of variance, and the two are never averaged: a learning rate
that ruins half of the trials may hardly matter among the best tenth.

References:
    Watanabe, Bansal and Hutter, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in
    Arbitrary Subspaces", IJCAI 2023.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
from pydantic import computed_field

from lorasweep.analysis.design import Codes
from lorasweep.analysis.factors import Factors, lay_out_factors
from lorasweep.analysis.intervals import SEED, SIGNIFICANCE, Floats, middle, normal_quantile
from lorasweep.analysis.scale import Scale
from lorasweep.analysis.sensitivity.forest import quiet
from lorasweep.analysis.types import Result
from lorasweep.store.configurations import Configuration

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

# Optuna advises at least five trials above the quantile.
_TOP = 5
_QUANTILE, _WIDEST = 0.1, 0.25
_MOST_ROWS = 250
_DRAWS = 40
_NEVER = datetime(1970, 1, 1)


class TopImportance(Result):
    """How much one hyperparameter matters for being among the best configurations.

    importance: its share of the divergences of all hyperparameters, which add up to 1; low and high
        bound the middle 90% over redrawn configurations and seeds.
    divergence: Pearson's, of the best configurations from all.
    chance: the divergence that it could have by chance.
    """

    hyperparameter: str
    importance: float
    low: float
    high: float
    divergence: float
    chance: float

    @computed_field
    @property
    def above_chance(self) -> bool:
        """Whether it matters more than chance explains."""
        return self.divergence > self.chance


class TopRanking(Result):
    """Hyperparameters of one method, ranked by how much they matter among the best.

    quantile: share of the configurations that count as the best.
    configurations: completed ones; rows_used: of them, a fixed sample where they are many.
    rows: by falling importance; empty where there is no ranking.
    reason: why there are none.
    """

    method: str
    quantile: float
    configurations: int
    rows_used: int
    rows: tuple[TopImportance, ...] = ()
    resamples: int = 0
    reason: str | None = None


def rank_near_top(
    method: str, configurations: Sequence[Configuration], scales: Mapping[str, Scale]
) -> TopRanking:
    """Rank the hyperparameters of one method by what it takes to be among the best."""
    scored = [c for c in configurations if c.learning is not None]
    n = len(scored)
    quantile = max(_QUANTILE, _TOP / n if n else 1.0)
    if quantile > _WIDEST:
        reason = (
            f"not enough evidence: {n} completed configurations, and {math.ceil(_TOP / _WIDEST)} "
            "are needed to compare the best ones with all"
        )
        return TopRanking(
            method=method, quantile=quantile, configurations=n, rows_used=n, reason=reason
        )
    factors = lay_out_factors(scored, scales)
    if not factors.scales or np.ptp(factors.scores) <= 1e-12 * np.abs(factors.scores).max():
        reason = "not enough evidence: nothing varied"
        return TopRanking(
            method=method, quantile=quantile, configurations=n, rows_used=n, reason=reason
        )
    rng = np.random.default_rng(SEED)
    rows = np.arange(n) if n <= _MOST_ROWS else np.sort(rng.permutation(n)[:_MOST_ROWS])
    points, scores = factors.points[rows], factors.scores[rows]
    spaces = _spaces(factors)
    found = _divergences(factors, spaces, points, scores, quantile)
    noise = math.sqrt(factors.noise[0]) if factors.noise else 0.0
    redrawn, feigned = [], []
    for _ in range(_DRAWS):
        drawn: Codes = rng.integers(0, len(rows), size=len(rows))
        again = scores[drawn] + noise * rng.standard_normal(len(rows))
        redrawn.append(_divergences(factors, spaces, points[drawn], again, quantile))
        shuffled = rng.permutation(scores)
        feigned.append(_divergences(factors, spaces, points, shuffled, quantile))
    # The divergence by chance is that of shuffled scores (a permutation test). Its far quantile is
    # unsteady over a few dozen draws, so it is read from a normal tail on the scale of the root,
    # where the draws are nearly symmetric.
    null = np.sqrt(np.array(feigned))
    reach = normal_quantile(1 - SIGNIFICANCE / len(found))
    chance = (null.mean(axis=0) + reach * null.std(axis=0, ddof=1)) ** 2
    share = _shares(found[None])[0]
    low, high = middle(_shares(np.array(redrawn)), axis=0)
    order = sorted(range(len(found)), key=lambda i: (-found[i], factors.names[i]))
    return TopRanking(
        method=method,
        quantile=quantile,
        configurations=n,
        rows_used=len(rows),
        rows=tuple(
            TopImportance(
                hyperparameter=factors.names[i],
                importance=float(share[i]),
                low=float(min(low[i], share[i])),
                high=float(max(high[i], share[i])),
                divergence=float(found[i]),
                chance=float(chance[i]),
            )
            for i in order
        ),
        resamples=_DRAWS,
    )


def _shares(divergences: Floats) -> Floats:
    total = divergences.sum(axis=1, keepdims=True)
    shares: Floats = divergences / np.where(total > 0, total, 1.0)
    return shares


def _spaces(factors: Factors) -> dict[str, BaseDistribution]:
    """Declare to Optuna what values each hyperparameter has."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    spaces: dict[str, BaseDistribution] = {}
    for i, scale in enumerate(factors.scales):
        whole = factors.points[:, i]
        low, high = float(whole.min()), float(whole.max())
        if scale.kind == "text":
            spaces[str(i)] = CategoricalDistribution([int(level) for level in np.unique(whole)])
        elif scale.is_interval:
            spaces[str(i)] = FloatDistribution(low, high)
        else:
            spaces[str(i)] = IntDistribution(int(low), int(high))
    return spaces


def _divergences(
    factors: Factors,
    spaces: dict[str, BaseDistribution],
    points: Floats,
    scores: Floats,
    quantile: float,
) -> Floats:
    """Compute each hyperparameter's divergence, by Optuna's evaluator."""
    import optuna

    found = np.zeros(points.shape[1])
    if np.ptp(scores) == 0:
        return found
    values = [
        [float(v) if s.is_interval else int(v) for s, v in zip(factors.scales, row, strict=True)]
        for row in points.tolist()
    ]
    trials = [
        optuna.trial.FrozenTrial(
            number=number,
            trial_id=number,
            state=optuna.trial.TrialState.COMPLETE,
            value=score,
            params=dict(zip(spaces, row, strict=True)),
            distributions=spaces,
            datetime_start=_NEVER,
            datetime_complete=_NEVER,
            user_attrs={},
            system_attrs={},
            intermediate_values={},
        )
        for number, (row, score) in enumerate(zip(values, scores.tolist(), strict=True))
    ]
    with quiet():
        study = optuna.create_study(direction="maximize")
        # Added in the ordinary way, every trial would be copied twice: 20 times as long.
        vars(study)["get_trials"] = lambda deepcopy=True, states=None: trials  # noqa: ARG005
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=quantile)
        for name, divergence in evaluator.evaluate(study, params=list(spaces)).items():
            # Scaled by the squared share of the best; without it the number is the divergence.
            found[int(name)] = max(0.0, float(divergence)) / quantile**2
    return found
