"""Compare two levels of one hyperparameter, or two methods, everything else being equal.

Three ways, by what the design allows and never by what comes out:

1. *At the best learning rate*: settings of all other hyperparameters in which both levels were
   tried at equally many learning rates; in each the best counts, and settings are the sample
   (paired t). Taken with five settings or more, or where the learning rate was the same throughout.
2. *At equal settings*: a regression on all hyperparameters, each by itself, whose residuals give
   the interval; an average over the learning rates tried.
3. *By seeds*: the best of each, with the luck of being best taken out (`advice/expected.py`).

The best of each has room for what a search may still gain (`claims/searched.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from lorasweep.analysis.advice.expected import Expected, spread_of
from lorasweep.analysis.claims.searched import Side, allow_for_search, is_chosen
from lorasweep.analysis.evidence import Evidence
from lorasweep.analysis.frame import Case, Frame
from lorasweep.analysis.intervals import (
    FEWEST_VALUES,
    Estimate,
    mean_interval,
    normal_quantile,
    t_interval,
)
from lorasweep.spec.space import Level
from lorasweep.spec.trial import HYPERPARAMETERS

_MANY = 5
# A method's own to tune; two methods meet at equal values of everything else.
_TUNED = frozenset(name for name, own in HYPERPARAMETERS.items() if not own.held_equal)


def best_case(cases: Sequence[Case], outcome: str) -> Case | None:
    """Give the case that learned most; None where none has the outcome too."""
    known = [
        c for c in cases if c.learning is not None and (outcome != "cost" or c.cost is not None)
    ]
    return max(known, key=lambda case: (case.learning or 0.0, -(case.cost or 0.0)), default=None)


def best_of(cases: Sequence[Case], outcome: str) -> float | None:
    """Give the outcome of the case that learned most; None where none has both."""
    best = best_case(cases, outcome)
    if best is None:
        return None
    return best.learning if outcome == "learning" else best.cost


def floor_of(evidence: Evidence, outcome: str, n: int) -> float:
    """Give what rounding alone does to a mean of n differences of scores."""
    return normal_quantile() * evidence.noise[outcome].rounding * math.sqrt(2 / 12 / max(n, 1))


def _settings(
    frame: Frame, axis: str, left: Callable[[Level], bool], right: Callable[[Level], bool]
) -> tuple[list[tuple[list[Case], list[Case]]], bool]:
    """Group cases by all but the axis and the learning rate, where both levels were tried alike.

    Returns:
        The groups, and whether the learning rate was the same throughout.
    """
    others = [name for name in frame.columns if name not in {axis, "lr"}]
    groups: dict[object, tuple[list[Case], list[Case]]] = {}
    for case in frame.cases:
        level = case.levels.get(axis)
        if level is None or not (left(level) or right(level)):
            continue
        key = tuple(case.levels.get(name) for name in others)
        groups.setdefault(key, ([], []))[0 if left(level) else 1].append(case)
    alike = [
        pair
        for pair in groups.values()
        if len({c.levels.get("lr") for c in pair[0]}) == len({c.levels.get("lr") for c in pair[1]})
    ]
    return alike, "lr" not in frame.columns


def contrast(
    evidence: Evidence,
    frame: Frame,
    axis: str,
    left: Level,
    right: Level,
    outcome: str = "learning",
) -> Estimate | None:
    """Estimate an outcome at one level less that at another; None where they do not compare."""
    groups, same_lr = _settings(frame, axis, lambda v: v == left, lambda v: v == right)
    pairs = [(best_of(a, outcome), best_of(b, outcome)) for a, b in groups]
    gaps = [a - b for a, b in pairs if a is not None and b is not None]
    basis = "settings that differ in nothing else" if same_lr else "each at its best learning rate"
    settings = mean_interval(
        gaps or [0.0],
        of="matched settings",
        basis=basis,
        floor=floor_of(evidence, outcome, len(gaps)),
    )
    if len(gaps) >= (FEWEST_VALUES if same_lr else _MANY):
        return settings
    kept = frame.where(lambda c: c.levels.get(axis) in {left, right})
    kept = kept.scored if outcome == "learning" else kept.measured
    column = kept.columns.get(axis)
    if column is None or len(column.levels) < 2:
        return None
    fit = kept.fit(outcome, axis)
    if fit is not None:
        weights = np.zeros(len(column.levels))
        weights[column.levels.index(left)], weights[column.levels.index(right)] = 1.0, -1.0
        if found := fit.contrast(weights, "regression on all hyperparameters"):
            return found
    if len(gaps) >= FEWEST_VALUES:
        return settings
    return _by_seeds(evidence, kept, axis, left, right, outcome)


def _by_seeds(
    evidence: Evidence, frame: Frame, axis: str, left: Level, right: Level, outcome: str
) -> Estimate | None:
    """Compare the best of each level by the noise of seeds; None where no seed was repeated."""
    noise = evidence.noise[outcome]
    if noise.basis != "seeds" or noise.sd is None:
        return None
    own = [frame.at(axis, level) for level in (left, right)]
    best = [best_case(one.cases, outcome) for one in own]
    if best[0] is None or best[1] is None:
        return None
    found = t_interval(
        _value(best[0], outcome) - _value(best[1], outcome),
        noise.sd * math.sqrt(1 / best[0].n + 1 / best[1].n),
        noise.df,
        n=best[0].n + best[1].n,
        of="trials",
        basis="the best of each, by the noise of seeds",
        floor=floor_of(evidence, outcome, 1),
    )
    method = best[0].configuration.method
    is_searched = not is_chosen(evidence, method, frame, ())
    sides = (
        Side(own[0], (best[0],), f"{_who(method)} with {axis} {left}", is_searched),
        Side(own[1], (best[1],), f"{_who(method)} with {axis} {right}", is_searched),
    )
    return allow_for_search(evidence, found, noise.df, sides, outcome, (axis,))


def _who(method: str) -> str:
    return {"lora": "LoRA", "full": "full finetuning"}.get(method, method)


def _method_side(
    evidence: Evidence, frame: Frame, best: Sequence[Case], held: Sequence[str]
) -> Side:
    method = best[0].configuration.method
    is_searched = not is_chosen(evidence, method, frame, held)
    return Side(frame, tuple(best), _who(method), is_searched)


def shared_axes(left: Frame, right: Frame) -> list[str]:
    """Name what differs in both methods and is not a method's own to tune, such as duration."""
    return [name for name in left.columns if name in right.columns and name not in _TUNED]


def contrast_methods(
    evidence: Evidence, left: Frame, right: Frame, outcome: str = "learning"
) -> Estimate | None:
    """Estimate an outcome of one method's best less that of another's, at equal durations.

    The best of each is the configuration expected to learn most. Where a method was searched, and
    not laid out by hand, the interval has room for what its search may still gain.
    """
    shared = shared_axes(left, right)
    by_key: tuple[dict[object, list[Case]], dict[object, list[Case]]] = ({}, {})
    for frame, groups in zip((left, right), by_key, strict=True):
        for case in frame.cases:
            groups.setdefault(tuple(case.levels.get(name) for name in shared), []).append(case)
    keys = [key for key in by_key[0] if key in by_key[1]]
    pairs = [
        (best_case(by_key[0][key], outcome), best_case(by_key[1][key], outcome)) for key in keys
    ]
    both = [(a, b) for a, b in pairs if a is not None and b is not None]
    if len(both) < FEWEST_VALUES:
        return _best_by_seeds(evidence, left, right, outcome)
    gaps = [_value(a, outcome) - _value(b, outcome) for a, b in both]
    said = ", ".join(shared)
    found = mean_interval(
        gaps,
        of="matched settings",
        basis=f"the best of each method at equal {said}",
        floor=floor_of(evidence, outcome, len(gaps)),
    )
    sides = (
        _method_side(evidence, left, [a for a, _ in both], shared),
        _method_side(evidence, right, [b for _, b in both], shared),
    )
    return allow_for_search(evidence, found, len(gaps) - 1, sides, outcome, shared)


def _value(case: Case, outcome: str) -> float:
    return (case.learning if outcome == "learning" else case.cost) or 0.0


def _best_by_seeds(evidence: Evidence, left: Frame, right: Frame, outcome: str) -> Estimate | None:
    """Compare what the best of two methods are expected to score."""
    noise, values, errors, n = evidence.noise[outcome], [], [], 0
    if noise.sd is None:
        return None
    sides, shared = [], shared_axes(left, right)
    for frame in (left, right):
        scored = frame.scored if outcome == "learning" else frame.measured
        if not scored.cases:
            return None
        observed = scored.cases[int(np.argmax(scored.learning))]
        n += observed.n
        whole = evidence.frame(observed.configuration.method).scored
        expected = evidence.expected[observed.configuration.method]
        if outcome == "learning":
            case, value, error = _expected(whole.cases, expected, scored.cases)
            if error is None:
                return None
        else:
            case, value, error = observed, observed.cost or 0.0, noise.sd / math.sqrt(observed.n)
        sides.append(_method_side(evidence, frame, [case], shared))
        values.append(value)
        errors.append(error)
    by_seeds = noise.basis == "seeds"
    found = t_interval(
        values[0] - values[1],
        math.hypot(*errors),
        noise.df,
        n=n if by_seeds else len(left.scored.cases) + len(right.scored.cases),
        of="trials" if by_seeds else "configurations",
        basis="the best of each method, the luck of being best taken out"
        if by_seeds
        else "a run of the best of each method, as a regression predicts it",
        floor=floor_of(evidence, outcome, 1),
    )
    return allow_for_search(evidence, found, noise.df, (sides[0], sides[1]), outcome, shared)


def _expected(
    whole: Sequence[Case], expected: Expected, kept: Sequence[Case]
) -> tuple[Case, float, float | None]:
    """Give the case with the highest expected learning among those kept, that and its error."""
    wanted = {id(case) for case in kept}
    places = [i for i, case in enumerate(whole) if id(case) in wanted]
    best = max(places, key=lambda i: float(expected.values[i]))
    return whole[best], float(expected.values[best]), spread_of(expected, best)


def slope(frame: Frame, axis: str, outcome: str, *, per: str) -> Estimate | None:
    """Estimate how an outcome changes along an ordered hyperparameter, the others held equal.

    Args:
        per: `range` for the rise from the lowest to the highest level tried, `decade` for that
            over a factor of ten.
    """
    kept = frame.scored if outcome == "learning" else frame.measured
    column = kept.columns.get(axis)
    if column is None or column.places is None:
        return None
    fit = kept.fit(outcome, axis, "line")
    if fit is None:
        return None
    found = fit.contrast(np.ones(1), "regression on all hyperparameters, along its logarithm")
    if found is None:
        return None
    return found.scaled(float(np.ptp(column.places)) if per == "range" else 1.0)
