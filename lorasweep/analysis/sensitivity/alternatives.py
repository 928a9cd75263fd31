"""What can still be reached at each level: best over the others, and how many levels come close.

A mean over the others' levels asks what a choice costs someone who leaves the rest to chance. The
best score at a level asks what it costs someone who tunes the rest, which is what a sweep is for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lorasweep.analysis.design import Codes
from lorasweep.analysis.factors import Factors, lay_out_factors
from lorasweep.analysis.intervals import SEED, TAIL, Floats, middle
from lorasweep.analysis.regression import Fit
from lorasweep.analysis.scale import Scale
from lorasweep.analysis.sensitivity.effects import fit_effects
from lorasweep.analysis.sensitivity.level_means import range_interval
from lorasweep.analysis.sensitivity.redraw import Redrawn, redraw_scores
from lorasweep.analysis.types import Number, Result
from lorasweep.store.configurations import Configuration

# Biderman et al. (2024, v2, appendix B) count the learning rates that reach 90% of the best one's.
CLOSE = 0.9
_DRAWS, _FEWEST_DRAWS = 400, 50
_MOST_ROWS = 20_000


class LevelBest(Result):
    """Best score at one level, over all settings of the other hyperparameters.

    n: configurations that completed there; best: the highest mean over seeds among them; None where
        there is none.
    behind: best of all minus best here, in learning's unit; low, high: its 90% interval.
    is_close: best reaches 90% of the best level's; None where that is undefined.
    close_probability: probability of that, given the noise.
    """

    level: str
    n: int
    best: Number = None
    behind: Number = None
    low: Number = None
    high: Number = None
    is_close: bool | None = None
    close_probability: Number = None


class Alternatives(Result):
    """How much one hyperparameter's level matters when the others are tuned.

    levels: those that were tried, in the order of the space.
    spread: best at the best level minus best at the worst that has any; low, high: 90% interval;
        None where fewer than two levels completed.
    alternatives: levels other than the best one that reach 90% of its best score (the paper's
        statistic), of `others` levels tried; alternatives_low and alternatives_high: 90% interval.
        A level where nothing completed does not reach it. None where it is undefined; see `reason`.
    resamples: draws behind the intervals; 0 where the noise is unknown, and there are none.
    reason: why something is None.
    """

    hyperparameter: str
    levels: tuple[LevelBest, ...]
    spread: Number = None
    low: Number = None
    high: Number = None
    alternatives: int | None = None
    alternatives_low: int | None = None
    alternatives_high: int | None = None
    others: int = 0
    resamples: int = 0
    reason: str | None = None


def compare_levels(
    configurations: Sequence[Configuration], scales: Mapping[str, Scale]
) -> tuple[Alternatives, ...]:
    """Compare the best scores at the levels of each hyperparameter of one method.

    The best of noisy scores is too high, the more so the more settings come close to the best, and
    differences of bests are too large. Redrawn scores say by how much, and that is subtracted; the
    range of the bests is then tested against each size (`range_interval`). Where the fit has
    interactions, its values replace the scores, being less noisy, and the interval also reaches as
    far as the redrawn bests themselves, since another setting may truly be the best one.
    """
    scored = [c for c in configurations if c.learning is not None]
    if not scored:
        return ()
    factors = lay_out_factors(scored, scales)
    fit = _fit(factors)
    drawn = _redrawn(fit) if fit else None
    found = []
    for name, scale in scales.items():
        having = [c for c in configurations if name in c.hyperparameters]
        tried = sorted({scale.part(c.hyperparameters[name]) for c in having})
        labels = tuple(scale.labels[part] for part in tried)
        if name not in factors.names:
            best = max(c.learning for c in scored if c.learning is not None)
            reach = tuple(_alone(label, having, scale, best) for label in labels)
            reason = "not enough evidence: only one level completed"
            moved = dict(factors.moved_along).get(name)
            if moved:
                reason = f"it changed only together with {moved}"
            found.append(Alternatives(hyperparameter=name, levels=reach, reason=reason))
            continue
        column = factors.names.index(name)
        found.append(_compare(name, labels, factors, column, fit, drawn))
    return tuple(found)


def _alone(label: str, having: Sequence[Configuration], scale: Scale, best: float) -> LevelBest:
    own = [
        c.learning
        for c in having
        if c.learning is not None
        and scale.labels[scale.part(c.hyperparameters[scale.name])] == label
    ]
    top = max(own) if own else None
    behind = best - top if top is not None else None
    return LevelBest(level=label, n=len(own), best=top, behind=behind)


def _fit(factors: Factors) -> Fit | None:
    """Fit effects; None where the noise is unknown, or trials are too many to redraw."""
    if not factors.scales or len(factors.scores) > _MOST_ROWS:
        return None
    fit = fit_effects(factors)
    return fit if fit.df > 0 else None


def _bests(parts: Codes, starts: Codes, scores: Floats) -> Floats:
    """Find the best score of each part, (draws, parts); rows are in the order of parts."""
    bests: Floats = np.maximum.reduceat(scores[:, parts], starts, axis=1)
    return bests


def _compare(
    name: str,
    labels: tuple[str, ...],
    factors: Factors,
    column: int,
    fit: Fit | None,
    drawn: Redrawn | None,
) -> Alternatives:
    parts = factors.parts[:, column]
    order = np.argsort(parts, kind="stable")
    present, starts, counts = np.unique(parts[order], return_index=True, return_counts=True)
    bests = _bests(order, starts, factors.scores[None])[0]
    top = float(bests.max())
    behind = top - bests
    low = high = spread_low = spread_high = odds = counted = None
    if fit is not None and drawn is not None:
        with_pairs = len(factors.scales) == 1 or len(fit.blocks) > len(factors.scales)
        true = _bests(order, starts, drawn.true)
        found = _bests(order, starts, fit.fitted[None])[0] if with_pairs else bests
        error = _bests(order, starts, drawn.fitted if with_pairs else drawn.noisy) - true
        # How much the best of noisy scores is too high, level by level.
        luck = error.mean(axis=0)
        spread_low, spread_high = range_interval(found - luck, error - luck)
        # Redrawn around the bests as found, each with the error of its own draw.
        likely = found - error
        low, high = middle(_behind(likely), axis=0)
        if with_pairs:
            reach = middle(np.ptp(true, axis=1))
            spread_low = min(spread_low, float(reach[0]))
            spread_high = max(spread_high, float(reach[1]))
            further = middle(_behind(true), axis=0)
            low, high = np.minimum(low, further[0]), np.maximum(high, further[1])
        low, high = np.minimum(low, behind), np.maximum(high, behind)
        close = likely >= CLOSE * likely.max(axis=1, keepdims=True)
        odds = close.mean(axis=0)
        counted = np.quantile(close.sum(axis=1) - 1, [TAIL, 1 - TAIL], method="nearest")
    sayable = top > 0
    is_close = bests >= CLOSE * top
    reached = {
        factors.labels[column][int(part)]: LevelBest(
            level=factors.labels[column][int(part)],
            n=int(counts[i]),
            best=float(bests[i]),
            behind=float(behind[i]),
            low=None if low is None else float(low[i]),
            high=None if high is None else float(high[i]),
            is_close=bool(is_close[i]) if sayable else None,
            close_probability=float(odds[i]) if sayable and odds is not None else None,
        )
        for i, part in enumerate(present)
    }
    missed = False if sayable else None
    count = int(is_close.sum()) - 1
    width = float(np.ptp(bests))
    several = len(bests) > 1
    bounded = sayable and counted is not None
    return Alternatives(
        hyperparameter=name,
        levels=tuple(
            reached.get(label) or LevelBest(level=label, n=0, is_close=missed) for label in labels
        ),
        spread=width if several else None,
        low=max(0.0, min(float(spread_low), width)) if spread_low is not None else None,
        high=max(float(spread_high), width) if spread_high is not None else None,
        alternatives=count if sayable else None,
        alternatives_low=min(int(counted[0]), count) if bounded and counted is not None else None,
        alternatives_high=max(int(counted[1]), count) if bounded and counted is not None else None,
        others=len(labels) - 1,
        resamples=0 if drawn is None else len(drawn.true),
        reason=_reason(sayable=sayable, redrawn=drawn is not None, n=len(parts)),
    )


def _reason(*, sayable: bool, redrawn: bool, n: int) -> str | None:
    if not sayable:
        return "a share of the best score needs one above 0"
    if redrawn:
        return None
    if n > _MOST_ROWS:
        return f"no intervals for more than {_MOST_ROWS} configurations"
    return "not enough evidence: too few configurations to tell noise from effects"


def _behind(bests: Floats) -> Floats:
    """Subtract each part's best from the best of all."""
    behind: Floats = bests.max(axis=1, keepdims=True) - bests
    return behind


def _redrawn(fit: Fit) -> Redrawn:
    draws = int(np.clip(2_000_000 // len(fit.fitted), _FEWEST_DRAWS, _DRAWS))
    return redraw_scores(fit, draws, np.random.default_rng(SEED))
