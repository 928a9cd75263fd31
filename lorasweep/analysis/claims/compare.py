"""Compare two levels of one hyperparameter, or two methods, everything else being equal.

Three ways, by what the design allows and never by what comes out:

1. *At the best learning rate*: settings of all other hyperparameters in which both levels were
   tried at equally many learning rates; in each the best counts, and settings are the sample
   (paired t). Taken with five settings or more, or where the learning rate was the same throughout.
2. *At equal settings*: a regression on all hyperparameters, each by itself, whose residuals give
   the interval; an average over the learning rates tried.
3. *By seeds*: the best of each, with the luck of being best taken out (`expected.py`).

Where the best of each is compared, the interval allows for what a search may still gain
(`claims/searched.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lorasweep.analysis.claims.searched import Group, allow_for_search, is_chosen
from lorasweep.analysis.evidence import Evidence
from lorasweep.analysis.expected import Expected, spread_of
from lorasweep.analysis.intervals import (
    FEWEST_VALUES,
    Estimate,
    mean_interval,
    normal_quantile,
    t_interval,
)
from lorasweep.analysis.table import Row, Score, Table
from lorasweep.spec.space import Level
from lorasweep.spec.trial import HYPERPARAMETERS

_MANY = 5  # settings from which pairs at the best learning rate are preferred to a regression
# Each method tunes these for itself; two methods are compared at equal values of all others.
_TUNED = frozenset(name for name, own in HYPERPARAMETERS.items() if not own.held_equal)


def best_row(rows: Sequence[Row], outcome: Score) -> Row | None:
    """Find the configuration that learned most; None where none has the outcome too."""
    known = [
        c
        for c in rows
        if c.learning is not None and (outcome != "forgetting" or c.forgetting is not None)
    ]
    return max(known, key=lambda row: (row.learning or 0.0, -(row.forgetting or 0.0)), default=None)


def best_of(rows: Sequence[Row], outcome: Score) -> float | None:
    """Read the outcome of the configuration that learned most; None where none has both."""
    best = best_row(rows, outcome)
    if best is None:
        return None
    return best.learning if outcome == "learning" else best.forgetting


def rounding_floor(evidence: Evidence, outcome: Score, n: int) -> float:
    """Bound what rounding alone does to a mean of n differences of scores.

    A rounded score is off by up to half its last digit, evenly spread: a variance of 1/12.
    """
    return normal_quantile() * evidence.noise[outcome].rounding * math.sqrt(2 / 12 / max(n, 1))


def _settings(
    table: Table, axis: str, left: Level, right: Level
) -> tuple[list[tuple[list[Row], list[Row]]], bool]:
    """Group configurations by all but the axis and the learning rate, where both levels were tried.

    Returns:
        The groups, and whether the learning rate was the same throughout.
    """
    others = [name for name in table.columns if name not in {axis, "lr"}]
    groups: dict[object, tuple[list[Row], list[Row]]] = {}
    for row in table.rows:
        level = row.levels.get(axis)
        if level not in {left, right}:
            continue
        key = tuple(row.levels.get(name) for name in others)
        groups.setdefault(key, ([], []))[0 if level == left else 1].append(row)
    # The best of more rates is higher by luck alone, so only levels with as many are compared.
    alike = [
        pair
        for pair in groups.values()
        if len({c.levels.get("lr") for c in pair[0]}) == len({c.levels.get("lr") for c in pair[1]})
    ]
    return alike, "lr" not in table.columns


def contrast(
    evidence: Evidence,
    table: Table,
    axis: str,
    left: Level,
    right: Level,
    outcome: Score = "learning",
) -> Estimate | None:
    """Estimate an outcome at one level minus that at another; None where they do not compare."""
    groups, same_lr = _settings(table, axis, left, right)
    pairs = [(best_of(a, outcome), best_of(b, outcome)) for a, b in groups]
    gaps = [a - b for a, b in pairs if a is not None and b is not None]
    basis = "settings that differ in nothing else" if same_lr else "each at its best learning rate"
    settings = mean_interval(
        gaps or [0.0],
        of="matched settings",
        basis=basis,
        floor=rounding_floor(evidence, outcome, len(gaps)),
    )
    if len(gaps) >= (FEWEST_VALUES if same_lr else _MANY):
        return settings
    kept = table.where(lambda c: c.levels.get(axis) in {left, right})
    kept = kept.with_score(outcome)
    column = kept.columns.get(axis)
    if column is None or len(column.levels) < 2:
        return None
    fit = kept.fit(outcome, levels_of=axis)
    if fit is not None:
        weights = np.zeros(len(column.levels))
        weights[column.levels.index(left)], weights[column.levels.index(right)] = 1.0, -1.0
        if found := fit.contrast(axis, weights, "regression on all hyperparameters"):
            return found
    if len(gaps) >= FEWEST_VALUES:
        return settings
    return _by_seeds(evidence, kept, axis, left, right, outcome)


def _by_seeds(
    evidence: Evidence,
    table: Table,
    axis: str,
    left: Level,
    right: Level,
    outcome: Score,
) -> Estimate | None:
    """Compare the best of each level by the noise of seeds; None where no seed was repeated."""
    noise = evidence.noise[outcome]
    if noise.basis != "seeds" or noise.sd is None:
        return None
    own = [table.at(axis, level) for level in (left, right)]
    best = [best_row(one.rows, outcome) for one in own]
    if best[0] is None or best[1] is None:
        return None
    found = t_interval(
        _value(best[0], outcome) - _value(best[1], outcome),
        noise.sd * math.sqrt(1 / best[0].seeds + 1 / best[1].seeds),
        noise.df,
        n=best[0].seeds + best[1].seeds,
        of="trials",
        basis="the best of each, by the noise of seeds",
        floor=rounding_floor(evidence, outcome, 1),
    )
    method = best[0].configuration.method
    is_searched = not is_chosen(evidence, method, table, ())
    groups = (
        Group(own[0], (best[0],), f"{_named(method)} with {axis} {left}", is_searched),
        Group(own[1], (best[1],), f"{_named(method)} with {axis} {right}", is_searched),
    )
    return allow_for_search(evidence, found, noise.df, groups, outcome, (axis,))


def _named(method: str) -> str:
    return {"lora": "LoRA", "full": "full finetuning"}.get(method, method)


def _method_group(
    evidence: Evidence, table: Table, best: Sequence[Row], held: Sequence[str]
) -> Group:
    method = best[0].configuration.method
    is_searched = not is_chosen(evidence, method, table, held)
    return Group(table, tuple(best), _named(method), is_searched)


def shared_axes(left: Table, right: Table) -> list[str]:
    """List what differs in both methods and is not a method's own to tune, such as duration."""
    return [name for name in left.columns if name in right.columns and name not in _TUNED]


def contrast_methods(
    evidence: Evidence,
    left: Table,
    right: Table,
    outcome: Score = "learning",
) -> Estimate | None:
    """Estimate an outcome of one method's best minus another's, at equal durations.

    The best of each is the configuration expected to learn most. Where a method was searched, and
    not laid out by hand, the interval allows for what its search may still gain.
    """
    shared = shared_axes(left, right)
    by_key: tuple[dict[object, list[Row]], dict[object, list[Row]]] = ({}, {})
    for table, groups in zip((left, right), by_key, strict=True):
        for row in table.rows:
            groups.setdefault(tuple(row.levels.get(name) for name in shared), []).append(row)
    keys = [key for key in by_key[0] if key in by_key[1]]
    pairs = [(best_row(by_key[0][key], outcome), best_row(by_key[1][key], outcome)) for key in keys]
    both = [(a, b) for a, b in pairs if a is not None and b is not None]
    # Too few settings in common for a spread between them: the noise of a run has to do.
    if len(both) < FEWEST_VALUES:
        return _best_by_seeds(evidence, left, right, outcome)
    gaps = [_value(a, outcome) - _value(b, outcome) for a, b in both]
    found = mean_interval(
        gaps,
        of="matched settings",
        basis=f"the best of each method at equal {', '.join(shared)}",
        floor=rounding_floor(evidence, outcome, len(gaps)),
    )
    compared = (
        _method_group(evidence, left, [a for a, _ in both], shared),
        _method_group(evidence, right, [b for _, b in both], shared),
    )
    return allow_for_search(evidence, found, len(gaps) - 1, compared, outcome, shared)


def _value(row: Row, outcome: Score) -> float:
    return (row.learning if outcome == "learning" else row.forgetting) or 0.0


def _best_by_seeds(
    evidence: Evidence, left: Table, right: Table, outcome: Score
) -> Estimate | None:
    """Compare what the best of two methods are expected to score."""
    noise, values, errors, n = evidence.noise[outcome], [], [], 0
    if noise.sd is None:
        return None
    groups, shared = [], shared_axes(left, right)
    for table in (left, right):
        scored = table.with_score(outcome)
        if not scored.rows:
            return None
        observed = scored.rows[int(np.argmax(scored.learning))]
        n += observed.seeds
        whole = evidence.table(observed.configuration.method).scored
        expected = evidence.expected[observed.configuration.method]
        if outcome == "learning":
            row, value, error = _expected(whole.rows, expected, scored.rows)
            if error is None:
                return None
        else:
            row, value, error = (
                observed,
                observed.forgetting or 0.0,
                noise.sd / math.sqrt(observed.seeds),
            )
        groups.append(_method_group(evidence, table, [row], shared))
        values.append(value)
        errors.append(error)
    by_seeds = noise.basis == "seeds"
    found = t_interval(
        values[0] - values[1],
        math.hypot(*errors),
        noise.df,
        n=n if by_seeds else len(left.scored.rows) + len(right.scored.rows),
        of="trials" if by_seeds else "configurations",
        basis="the best of each method, corrected for the luck of being best"
        if by_seeds
        else "one run of the best of each method, as predicted by a regression",
        floor=rounding_floor(evidence, outcome, 1),
    )
    return allow_for_search(evidence, found, noise.df, (groups[0], groups[1]), outcome, shared)


def _expected(
    whole: Sequence[Row], expected: Expected, kept: Sequence[Row]
) -> tuple[Row, float, float | None]:
    """Find the configuration with the highest expected learning among those kept, and its error."""
    wanted = {id(row) for row in kept}
    places = [i for i, row in enumerate(whole) if id(row) in wanted]
    best = max(places, key=lambda i: float(expected.values[i]))
    return whole[best], float(expected.values[best]), spread_of(expected, best)


def slope(table: Table, axis: str, outcome: Score, *, per: str) -> Estimate | None:
    """Estimate how an outcome changes along an ordered hyperparameter, the others held equal.

    Args:
        per: `range` for the rise from the lowest to the highest level tried, `decade` for that
            over a factor of ten.
    """
    kept = table.with_score(outcome)
    column = kept.columns.get(axis)
    if column is None or column.places is None:
        return None
    fit = kept.fit(outcome, lines=(axis,))
    if fit is None:
        return None
    found = fit.contrast(axis, np.ones(1), "regression on all hyperparameters, along its logarithm")
    if found is None:
        return None
    return found.scaled(float(np.ptp(column.places)) if per == "range" else 1.0)
