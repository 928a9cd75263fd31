"""Which hyperparameters matter: a ranking with its uncertainty, or the word that none is seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lorasweep.analysis.anova import (
    Codes,
    Floats,
    chance_shares,
    is_factorial,
    main_effect_shares,
    redraw,
)
from lorasweep.analysis.configurations import Configuration
from lorasweep.analysis.forest import functional_shares
from lorasweep.analysis.sample import Sample, adjusted_means, lay_out_sample
from lorasweep.analysis.scale import Scale

Design = Literal["anova", "functional anova", "none"]
LEVEL = 0.05
_SEED = 20240515
_FULL_TREES = 64


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Hold how much one hyperparameter matters to one method.

    importance: share of the variance of learning that its main effect explains, in [0, 1]; low and
        high bound the middle 90% over redrawn configurations.
    rank: 1 + how many hyperparameters are clearly above it; equal ranks are ties.
    tied_with: those from which it cannot be told apart.
    holds: share of the redrawn samples in which its place in the order is the same.
    chance: the importance that it could have by chance; below it nothing is shown.
    cost_of_wrong_level: mean learning at the best level minus that at the worst, the others' levels
        held equal, in learning's unit, with its own 90% interval; for an interval over its thirds.
    """

    hyperparameter: str
    importance: float
    low: float
    high: float
    rank: int
    tied_with: tuple[str, ...]
    holds: float
    chance: float
    cost_of_wrong_level: float
    cost_low: float
    cost_high: float
    best_level: str
    worst_level: str

    @property
    def is_shown(self) -> bool:
        """Tell whether it matters more than chance explains."""
        return self.importance > self.chance


@dataclass(frozen=True, slots=True)
class Ranking:
    """Hold the ranking of one method.

    design: `anova` for exact shares of a full factorial, `functional anova` for a forest's
        estimate on a sampled design, `none` where there is not enough evidence.
    configurations: completed ones that the ranking rests on; their seeds are averaged.
    rows: by falling importance; empty where nothing can be said.
    redrawn: samples behind each interval.
    reason: why there is no ranking, or what limits it.
    """

    method: str
    design: Design
    configurations: int
    rows: tuple[Sensitivity, ...] = ()
    redrawn: int = 0
    reason: str | None = None

    @property
    def unexplained(self) -> float:
        """Give the share that no main effect explains: interactions and noise."""
        return max(0.0, 1.0 - sum(row.importance for row in self.rows))


def rank_hyperparameters(
    method: str, configurations: Sequence[Configuration], scales: Mapping[str, Scale]
) -> Ranking:
    """Rank the searched hyperparameters of one method by their shares of learning's variance."""
    scored = [c for c in configurations if c.learning is not None]
    sample = lay_out_sample(scored, scales)
    n, axes = len(scored), len(scales)
    needed = 2 * axes + 2
    if n < needed:
        reason = (
            f"not enough evidence: {n} completed configurations, and {needed} are needed to rank "
            f"{axes} hyperparameters"
        )
        return Ranking(method, "none", n, reason=reason)
    if np.ptp(sample.scores) <= 1e-12 * np.abs(sample.scores).max():
        return Ranking(method, "none", n, reason="not enough evidence: all scores are the same")
    if not sample.scales:
        return Ranking(method, "none", n, reason="not enough evidence: nothing varied")
    limits: list[str] = []
    constant = [name for name in scales if name not in {s.name for s in sample.scales}]
    if constant:
        limits.append(f"{', '.join(constant)} did not vary among them")
    if len(sample.scales) == 1:
        limits.append(
            f"only {sample.scales[0].name} varied, so there is nothing to rank it against"
        )
    limit = "; ".join(limits) or None
    codes = np.stack(
        [np.unique(column, return_inverse=True)[1] for column in sample.points.T], axis=1
    )
    if len(sample.scales) > 1 and is_factorial(codes):
        return _rank_factorial(method, sample, codes, limit)
    return _rank_sampled(method, sample, limit)


def _rank_factorial(method: str, sample: Sample, codes: Codes, reason: str | None) -> Ranking:
    rng = np.random.default_rng(_SEED)
    draws = 400
    importance = main_effect_shares(codes, sample.scores[None])[0]
    redrawn = redraw(codes, sample.scores, draws, rng)
    shares = main_effect_shares(codes, redrawn)
    chance = chance_shares(
        codes, sample.scores, draws=2000, level=LEVEL / len(sample.scales), rng=rng
    )
    costs = np.array([_costs(sample.parts, scores) for scores in redrawn])
    rows = _rows(sample, importance, shares, chance, costs)
    return Ranking(method, "anova", len(sample.scores), rows, draws, reason)


def _effort(n: int) -> tuple[int, int, int]:
    """Give draws, trees and depth, so that a ranking takes seconds."""
    if n <= 80:
        return (100, 8, 64) if n <= 30 else (80, 4, 64)
    return (60, 4, 6) if n <= 200 else (40, 4, 5)


def _rank_sampled(method: str, sample: Sample, reason: str | None) -> Ranking:
    rng = np.random.default_rng(_SEED)
    n, axes = sample.points.shape
    draws, trees, depth = _effort(n)
    importance = functional_shares(
        sample.points,
        sample.scores,
        sample.scales,
        trees=_FULL_TREES if n <= 200 else _FULL_TREES // 4,
        depth=64 if n <= 200 else 8,
        seed=_SEED,
    )
    shares, costs, mimics = [], [], []
    for draw in range(draws):
        rows = rng.integers(0, n, size=n)
        points, scores = sample.points[rows], sample.scores[rows]
        shares.append(
            functional_shares(
                points, scores, sample.scales, trees=trees, depth=depth, seed=_SEED + draw
            )
        )
        costs.append(_costs(sample.parts[rows], scores))
        # A shuffled copy of each hyperparameter beside the true ones: whatever share the copy gets
        # is what a forest finds in nothing, on this table and with these other effects.
        copies = rng.permuted(sample.points, axis=0)
        mimics.append(
            functional_shares(
                np.hstack([sample.points, copies]),
                sample.scores,
                (*sample.scales, *sample.scales),
                trees=trees,
                depth=depth,
                seed=_SEED + draw,
            )
        )
    true, copied = np.split(np.array(mimics), 2, axis=1)
    bar = np.quantile(copied, 1 - LEVEL / axes, axis=0)
    # The copies take a part of every share, so the bar is put on the scale of the shares alone.
    middle = np.median(true, axis=0)
    scaled = bar * importance / np.where(middle > 0, middle, 1.0)
    chance = np.where(middle > 0, np.minimum(scaled, 1.0), np.maximum(bar, importance))
    found = _rows(sample, importance, np.array(shares), chance, np.array(costs))
    return Ranking(method, "functional anova", n, found, draws, reason)


def _costs(parts: Codes, scores: Floats) -> list[float]:
    """Give the spread between the levels of each hyperparameter."""
    means = adjusted_means(parts, scores)
    return [max(by_level.values()) - min(by_level.values()) for by_level in means]


def _rows(
    sample: Sample,
    importance: Floats,
    shares: Floats,
    chance: Floats,
    costs: Floats,
) -> tuple[Sensitivity, ...]:
    """Put estimate, redrawn shares and chance together into a ranking with its ties."""
    names = [scale.name for scale in sample.scales]
    order = sorted(range(len(names)), key=lambda i: (-importance[i], names[i]))
    low, high = np.quantile(shares, [0.05, 0.95], axis=0)
    cost = _costs(sample.parts, sample.scores)
    all_means = adjusted_means(sample.parts, sample.scores)
    cost_low, cost_high = np.quantile(costs, [0.05, 0.95], axis=0)
    places = np.argsort(np.argsort(-shares, axis=1, kind="stable"), axis=1, kind="stable")

    def clearly_above(i: int, j: int) -> bool:
        if importance[i] <= chance[i]:
            return False
        return bool(np.quantile(shares[:, i] - shares[:, j], 0.05) > 0)

    rows = []
    for place, i in enumerate(order):
        above = [j for j in order if j != i and clearly_above(j, i)]
        below = [j for j in order if j != i and clearly_above(i, j)]
        means = all_means[i]
        labels = sample.scales[i].labels
        rows.append(
            Sensitivity(
                hyperparameter=names[i],
                importance=float(importance[i]),
                # The forest of a redrawn sample sees repeats and may miss the estimate to one side.
                low=float(min(low[i], importance[i])),
                high=float(max(high[i], importance[i])),
                rank=1 + len(above),
                tied_with=tuple(names[j] for j in order if j not in {i, *above, *below}),
                holds=float((places[:, i] == place).mean()),
                chance=float(chance[i]),
                cost_of_wrong_level=cost[i],
                cost_low=float(min(cost_low[i], cost[i])),
                cost_high=float(max(cost_high[i], cost[i])),
                best_level=labels[max(means, key=lambda part: means[part])],
                worst_level=labels[min(means, key=lambda part: means[part])],
            )
        )
    return tuple(rows)
