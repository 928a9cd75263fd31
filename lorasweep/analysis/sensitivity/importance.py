"""Which hyperparameters matter: a ranking with its uncertainty, or why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import computed_field

from lorasweep.analysis.design import Codes
from lorasweep.analysis.factors import Factors, lay_out_factors
from lorasweep.analysis.intervals import SEED, SIGNIFICANCE, Floats, middle
from lorasweep.analysis.regression import Fit
from lorasweep.analysis.scale import Scale
from lorasweep.analysis.sensitivity.anova import main_effect_shares
from lorasweep.analysis.sensitivity.effects import (
    fit_factorial,
    fit_sampled,
    is_full_factorial,
    sampled_blocks,
)
from lorasweep.analysis.sensitivity.forest import functional_shares
from lorasweep.analysis.sensitivity.interactions import Interaction, rank_interactions
from lorasweep.analysis.sensitivity.level_means import MeanRange, mean_ranges
from lorasweep.analysis.sensitivity.redraw import chance_variances, redraw_shares
from lorasweep.analysis.types import Result
from lorasweep.store.configurations import Configuration

Design = Literal["anova", "functional anova", "none"]
_FULL_TREES = 32
# Most configurations that the forest sees, and least squares; of more, these many are drawn.
_FOREST_ROWS = 250
_MOST_ROWS = 20_000


class Sensitivity(Result):
    """How much one hyperparameter matters to one method.

    importance: share of the variance of learning that its main effect explains, in [0, 1]; low and
        high bound the share behind it, noise taken out, with 90% probability.
    rank: 1 + how many hyperparameters are clearly above it; equal ranks are ties.
    tied_with: those that are neither clearly above it nor clearly below.
    rank_probability: probability that its place in the order is the true one.
    above_next: probability that it is truly above the next one in the order; None for the last.
    chance: the importance that it could have by chance.
    effect: mean learning at the best level minus that at the worst, the other hyperparameters held
        equal, with a 90% interval; a searched range counts as three levels.
    """

    hyperparameter: str
    importance: float
    low: float
    high: float
    rank: int
    tied_with: tuple[str, ...]
    rank_probability: float
    above_next: float | None
    chance: float
    effect: float
    effect_low: float
    effect_high: float
    best_level: str
    worst_level: str

    @computed_field
    @property
    def above_chance(self) -> bool:
        """Whether it matters more than chance explains."""
        return self.importance > self.chance


class Ranking(Result):
    """Hyperparameters of one method, ranked by importance.

    design: `anova` for exact shares of a full factorial, `functional anova` for a forest's
        estimate on a sampled design, `none` where there is not enough evidence.
    configurations: completed ones that the ranking rests on; their seeds are averaged.
    rows: by falling importance; empty where there is no ranking.
    interactions: of pairs, by falling importance; empty where they cannot be estimated.
    resamples: draws behind each interval.
    forest_rows: configurations that the forest saw, a fixed sample of them where there are many;
        0 for a full factorial.
    reason: why there is no ranking, or what limits it.
    """

    method: str
    design: Design
    configurations: int
    rows: tuple[Sensitivity, ...] = ()
    interactions: tuple[Interaction, ...] = ()
    resamples: int = 0
    forest_rows: int = 0
    reason: str | None = None

    @computed_field
    @property
    def unexplained(self) -> float | None:
        """Share of the variance that no main effect explains: interactions and noise."""
        return max(0.0, 1.0 - sum(row.importance for row in self.rows)) if self.rows else None


def rank_hyperparameters(
    method: str, configurations: Sequence[Configuration], scales: Mapping[str, Scale]
) -> Ranking:
    """Rank the searched hyperparameters of one method by their shares of learning's variance."""
    scored = [c for c in configurations if c.learning is not None]
    n, axes = len(scored), len(scales)
    needed = 2 * axes + 2
    if n < needed:
        reason = (
            f"not enough evidence: {n} completed configurations, and {needed} are needed to rank "
            f"{axes} hyperparameters"
        )
        return Ranking(method=method, design="none", configurations=n, reason=reason)
    factors = lay_out_factors(scored, scales)
    if np.ptp(factors.scores) <= 1e-12 * np.abs(factors.scores).max():
        reason = "not enough evidence: all scores are the same"
        return Ranking(method=method, design="none", configurations=n, reason=reason)
    if not factors.scales:
        reason = "not enough evidence: nothing varied"
        return Ranking(method=method, design="none", configurations=n, reason=reason)
    limit = _limits(factors, scales)
    if is_full_factorial(factors):
        return _rank_factorial(method, factors, limit)
    return _rank_sampled(method, factors, limit)


def _limits(factors: Factors, scales: Mapping[str, Scale]) -> str | None:
    limits = []
    moved = dict(factors.moved_along)
    constant = [name for name in scales if name not in {*factors.names, *moved}]
    if constant:
        limits.append(f"{', '.join(constant)} did not vary among them")
    limits += [
        f"{name} changed only together with {other} and shares its place"
        for name, other in moved.items()
    ]
    if len(factors.scales) == 1:
        limits.append(f"only {factors.names[0]} varied, so there is nothing to rank it against")
    return "; ".join(limits) or None


def _rank_factorial(method: str, factors: Factors, reason: str | None) -> Ranking:
    rng = np.random.default_rng(SEED)
    fit = fit_factorial(factors)
    importance = main_effect_shares(factors.codes, factors.scores)
    total = float(factors.scores.var())
    chance = chance_variances(fit, SIGNIFICANCE / len(factors.scales))[: len(importance)] / total
    shares = redraw_shares(fit, 1000, rng)
    ranges = mean_ranges(factors, fit, rng)
    return Ranking(
        method=method,
        design="anova",
        configurations=len(factors.scores),
        rows=_rows(factors, importance, shares[:, : len(importance)], chance, ranges),
        interactions=rank_interactions(factors, fit, shares, level=SIGNIFICANCE, is_factorial=True),
        resamples=len(shares),
        reason=reason,
    )


def _effort(n: int) -> tuple[int, int, int]:
    """Choose draws, trees and depth, so that a ranking takes a second or two."""
    if n <= 200:
        return 1000, _FULL_TREES, 64
    return 1000, _FULL_TREES // 2, 8


def _rank_sampled(method: str, factors: Factors, reason: str | None) -> Ranking:
    rng = np.random.default_rng(SEED)
    n, axes = factors.points.shape
    fit = _fit(factors, rng)
    if fit.df < 1:
        limit = f"not enough evidence: {n} completed configurations for as many levels"
        return Ranking(method=method, design="none", configurations=n, reason=limit)
    draws, trees, depth = _effort(n)
    rows = _some(n, _FOREST_ROWS, rng)
    importance = functional_shares(
        factors.points[rows],
        factors.scores[rows],
        factors.scales,
        trees=trees,
        depth=depth,
        seed=SEED,
    )
    shares = redraw_shares(fit, draws, rng)
    # Chance is bounded for the variances of least squares; the ratio carries that over to the
    # shares of the forest, which has no errors of its own.
    bound, found = chance_variances(fit, SIGNIFICANCE / axes)[:axes], fit.variances[:axes]
    scaled = importance * bound / np.where(found > 0, found, 1.0)
    chance = np.where(found > 0, np.minimum(scaled, 1.0), importance)
    return Ranking(
        method=method,
        design="functional anova",
        configurations=n,
        rows=_rows(factors, importance, shares[:, :axes], chance, mean_ranges(factors, fit, rng)),
        interactions=rank_interactions(
            factors, fit, shares, level=SIGNIFICANCE, is_factorial=False
        ),
        resamples=draws,
        forest_rows=len(rows),
        reason=reason,
    )


def _some(n: int, most: int, rng: np.random.Generator) -> Codes:
    """Draw rows without replacement, all where they are few; the same ones every time."""
    rows: Codes = np.arange(n) if n <= most else np.sort(rng.permutation(n)[:most])
    return rows


def _fit(factors: Factors, rng: np.random.Generator) -> Fit:
    rows = _some(len(factors.scores), _MOST_ROWS, rng)
    part = factors if len(rows) == len(factors.scores) else factors.take(rows)
    return fit_sampled(sampled_blocks(part), part)


def _rows(
    factors: Factors,
    importance: Floats,
    shares: Floats,
    chance: Floats,
    ranges: Sequence[MeanRange],
) -> tuple[Sensitivity, ...]:
    """Rank by importance, with ties where redrawn shares do not tell two apart."""
    names = factors.names
    order = sorted(range(len(names)), key=lambda i: (-importance[i], names[i]))
    low, high = middle(shares, axis=0)

    def odds(i: int, j: int) -> float:
        ahead = shares[:, i] - shares[:, j]
        return float((ahead > 0).mean() + (ahead == 0).mean() / 2)

    # Above chance as well: of two that do nothing, one is always ahead.
    def clearly_above(i: int, j: int) -> bool:
        return bool(importance[i] > chance[i]) and odds(i, j) >= 1 - SIGNIFICANCE

    ordered = shares[:, order]
    places = np.argsort(np.argsort(-ordered, axis=1, kind="stable"), axis=1, kind="stable")
    rows = []
    for place, i in enumerate(order):
        above = [j for j in order if j != i and clearly_above(j, i)]
        below = [j for j in order if j != i and clearly_above(i, j)]
        rows.append(
            Sensitivity(
                hyperparameter=names[i],
                importance=float(importance[i]),
                # The table's own share counts its noise in, and may lie outside of what is behind.
                low=float(min(low[i], importance[i])),
                high=float(max(high[i], importance[i])),
                rank=1 + len(above),
                tied_with=tuple(names[j] for j in order if j not in {i, *above, *below}),
                rank_probability=float((places[:, place] == place).mean()),
                above_next=odds(i, order[place + 1]) if place + 1 < len(order) else None,
                chance=float(chance[i]),
                effect=ranges[i].range,
                effect_low=ranges[i].low,
                effect_high=ranges[i].high,
                best_level=ranges[i].best,
                worst_level=ranges[i].worst,
            )
        )
    return tuple(rows)
