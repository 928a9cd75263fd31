"""Where training diverges: shares by level, and the highest learning rate that is still stable.

LoRA improves with the learning rate until it diverges (Biderman et al. 2024, v2, appendix B), so
where that happens is part of the answer. It is the learning rate at which half of the trials
diverge, of a logistic curve over its logarithm. The interval holds the middle 90% of its
likelihood, with the slope averaged over rather than fitted: a fitted slope has no end where the cut
is clean, and is too steep where few trials lie near it (Berger, Liseo and Wolpert 1999, "Integrated
likelihood methods for eliminating nuisance parameters"). Whether divergence rises with the learning
rate at all, and whether levels differ, is decided by likelihood ratios (Wilks 1938).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from lorasweep.analysis.design import Codes
from lorasweep.analysis.intervals import SIGNIFICANCE, TAIL, Floats, normal_quantile, wilson_bounds
from lorasweep.analysis.scale import Scale
from lorasweep.analysis.types import Number, Result
from lorasweep.store.results import TrialResult

Basis = Literal["curve", "none diverged", "all diverged", "cannot tell"]
# Middles of the curve that are tried, and slopes in log odds a decade. Of more learning rates than
# `_CELLS`, neighbours are merged.
_PLACES, _CELLS = 201, 200
_SLOPES = np.geomspace(0.5, 50.0, 32)


class DivergedShare(Result):
    """How many trials diverged at one level.

    finished: trials that completed, were pruned or diverged; failed ones say nothing.
    share: diverged / finished; low, high: its 90% interval (Wilson 1927); None where none finished.
    """

    level: str
    finished: int
    diverged: int
    share: float | None = None
    low: float | None = None
    high: float | None = None


class StableRate(Result):
    """Highest stable learning rate.

    estimate: where half of the trials diverge; None where that lies outside of what was tried.
    low, high: 90% interval; None on a side where it reaches beyond what was tried.
    largest_stable: largest learning rate up to which no trial diverged; None where the smallest one
        diverged already.
    smallest_diverged: smallest learning rate at which a trial diverged; None where none did.
    basis: `curve`; `none diverged` or `all diverged` bound it from one side only; `cannot tell`
        where divergence does not rise with the learning rate, and there is no interval.
    """

    finished: int
    diverged: int
    basis: Basis
    estimate: Number = None
    low: Number = None
    high: Number = None
    largest_stable: Number
    smallest_diverged: Number
    reason: str | None = None


class StableRateByLevel(Result):
    """Highest stable learning rate at each level of another hyperparameter.

    differs: the levels differ by more than chance explains, p_value below 0.05 over all tests made.
    """

    hyperparameter: str
    levels: Mapping[str, StableRate]
    p_value: float
    differs: bool


class Divergence(Result):
    """Divergence of one method's trials.

    by_level: shares by hyperparameter, in the order of the levels.
    stable_rate: over all trials; None where no trial has a learning rate.
    stable_rate_by: by each other hyperparameter with trials that finished at two levels or more.
    """

    by_level: Mapping[str, tuple[DivergedShare, ...]]
    stable_rate: StableRate | None = None
    stable_rate_by: tuple[StableRateByLevel, ...] = ()


def summarise_divergence(trials: Sequence[TrialResult], scales: Mapping[str, Scale]) -> Divergence:
    """Summarise the divergence of the trials of one method."""
    finished = [t for t in trials if t.status in {"COMPLETE", "PRUNED", "DIVERGED"}]
    parts = {
        name: [
            scale.part(t.hyperparameters[name]) if name in t.hyperparameters else -1
            for t in finished
        ]
        for name, scale in scales.items()
    }
    lost = np.array([t.status == "DIVERGED" for t in finished], dtype=np.float64)
    by_level = {
        name: tuple(
            _share(label, lost[np.array(parts[name], dtype=np.int64) == part])
            for part, label in enumerate(scale.labels)
        )
        for name, scale in scales.items()
    }
    tried = [t.hyperparameters.get("lr") for t in finished]
    known = np.array([isinstance(rate, float | int) and rate > 0 for rate in tried], dtype=bool)
    if not known.any():
        return Divergence(by_level=by_level)
    logs = np.array(
        [math.log10(rate) for rate in tried if isinstance(rate, float | int) and rate > 0]
    )
    lost = lost[known]
    others = [name for name in scales if name != "lr" and len(set(parts[name]) - {-1}) > 1]
    rates = []
    for name in others:
        own = np.array(parts[name], dtype=np.int64)[known]
        rates.append(_compare_levels(scales[name], own, logs, lost, tests=len(others)))
    overall = stable_rate(logs, lost)
    return Divergence(by_level=by_level, stable_rate=overall, stable_rate_by=tuple(rates))


def _share(label: str, lost: Floats) -> DivergedShare:
    n, count = len(lost), int(lost.sum())
    if n == 0:
        return DivergedShare(level=label, finished=0, diverged=0)
    low, high = wilson_bounds(count, n)
    return DivergedShare(
        level=label, finished=n, diverged=count, share=count / n, low=low, high=high
    )


def _likelihood(logs: Floats, lost: Floats) -> tuple[Floats, Floats, float]:
    """Compute how likely each place of the curve's middle is, and the best fit's log likelihood.

    Places reach beyond what was tried by half of its width on either side. Slopes have equal weight
    on a log scale; the steepest goes from 10% to 90% within a tenth of a decade.
    """
    values, which = np.unique(logs, return_inverse=True)
    if len(values) > _CELLS:
        cells = ((logs - logs.min()) / np.ptp(logs) * (_CELLS - 1)).round().astype(np.int64)
        _, which = np.unique(cells, return_inverse=True)
        values = np.bincount(which, weights=logs) / np.bincount(which)
    bad = np.bincount(which, weights=lost)
    tried = np.bincount(which)

    def log_likelihood(places: Floats) -> Floats:
        found = np.empty((len(_SLOPES), len(places)))
        distances = values - places[:, None]
        odds, soft = np.empty_like(distances), np.empty_like(distances)
        for i, slope in enumerate(_SLOPES):
            np.multiply(slope, distances, out=odds)
            # The log of 1 + exp(x), which does not overflow; in place, as the arrays are large.
            np.abs(odds, out=soft)
            np.negative(soft, out=soft)
            np.exp(soft, out=soft)
            np.log1p(soft, out=soft)
            found[i] = odds @ bad
            soft += np.maximum(odds, 0.0, out=odds)
            found[i] -= soft @ tried
        return found

    margin = 0.5 * max(1.0, float(np.ptp(logs)))
    wide = np.linspace(logs.min() - margin, logs.max() + margin, _PLACES)
    rough = log_likelihood(wide).max(axis=0)
    # Places 12 log units down are e^-12 as likely: the grid is refined to those that matter.
    near = np.flatnonzero(rough >= rough.max() - 12)
    step = wide[1] - wide[0]
    places = np.linspace(wide[near[0]] - step, wide[near[-1]] + step, _PLACES)
    found = log_likelihood(places)
    top = float(found.max())
    return places, np.exp(found - top).mean(axis=0), top


def stable_rate(logs: Floats, lost: Floats) -> StableRate:
    """Estimate the highest stable learning rate of trials.

    Args:
        logs: decimal logarithm of each trial's learning rate; lost: 1 where it diverged.
    """
    n, count = len(lost), int(lost.sum())
    bad, good = logs[lost > 0], logs[lost == 0]
    first = float(bad.min()) if count else math.inf
    below = good[good < first]
    ends = (float(10 ** below.max()) if len(below) else None, float(10**first) if count else None)
    lowest, highest = float(logs.min()), float(logs.max())
    if count == 0:
        reason = "no trial diverged, so it lies above what was tried"
        return StableRate(
            finished=n,
            diverged=0,
            basis="none diverged",
            low=_power(highest),
            largest_stable=ends[0],
            smallest_diverged=ends[1],
            reason=reason,
        )
    if count == n:
        reason = "every trial diverged, so it lies below what was tried"
        return StableRate(
            finished=n,
            diverged=n,
            basis="all diverged",
            high=_power(lowest),
            largest_stable=ends[0],
            smallest_diverged=ends[1],
            reason=reason,
        )
    places, likely, top = _likelihood(logs, lost)
    share = count / n
    # A curve has no middle unless it fits better than one share for all rates (one-sided, 5%).
    flat = count * math.log(share) + (n - count) * math.log(1 - share)
    if top - flat < normal_quantile() ** 2 / 2:
        reason = "divergence was not seen to rise with the learning rate"
        return StableRate(
            finished=n,
            diverged=count,
            basis="cannot tell",
            largest_stable=ends[0],
            smallest_diverged=ends[1],
            reason=reason,
        )
    below_place = np.cumsum(likely) / likely.sum()
    low, middle, high = (float(v) for v in np.interp([TAIL, 0.5, 1 - TAIL], below_place, places))
    return StableRate(
        finished=n,
        diverged=count,
        basis="curve",
        estimate=_power(middle) if lowest <= middle <= highest else None,
        low=_power(low) if low >= lowest else None,
        high=_power(high) if high <= highest else None,
        largest_stable=ends[0],
        smallest_diverged=ends[1],
        reason=None if lowest <= middle <= highest else "half would diverge beyond what was tried",
    )


def _power(log: float) -> float:
    return float(f"{10**log:.6g}")


def _compare_levels(
    scale: Scale, parts: Codes, logs: Floats, lost: Floats, *, tests: int
) -> StableRateByLevel:
    """Test whether a curve for each level fits better than one for all, by the likelihood ratio."""
    from scipy.special import chdtrc

    present = [int(part) for part in np.unique(parts) if part >= 0]
    shown = {
        scale.labels[part]: stable_rate(logs[parts == part], lost[parts == part])
        for part in present
    }
    known = parts >= 0
    if not 0 < lost[known].sum() < known.sum():
        return StableRateByLevel(
            hyperparameter=scale.name, levels=shown, p_value=1.0, differs=False
        )
    together = _likelihood(logs[known], lost[known])[2]
    apart = sum(_likelihood(logs[parts == part], lost[parts == part])[2] for part in present)
    # Each level has a middle and a slope of its own.
    df = 2 * (len(present) - 1)
    p_value = float(chdtrc(df, max(0.0, 2 * (apart - together))))
    return StableRateByLevel(
        hyperparameter=scale.name,
        levels=shown,
        p_value=p_value,
        differs=p_value < SIGNIFICANCE / tests,
    )
