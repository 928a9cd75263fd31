"""Learning at equal forgetting, and forgetting at equal learning, between two methods.

Each method's front is read between its points in straight lines, over the range that both fronts
reach; the difference is the mean over that range. Configurations are averaged over their seeds
first, so that a lucky seed alone makes no front.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Literal

import numpy as np

from lorasweep.analysis.intervals import SEED, Floats, interval_from_draws
from lorasweep.analysis.noise import Noise, by_content, redraw_points, seed_spreads
from lorasweep.analysis.table import Table
from lorasweep.analysis.types import Result

Outcome = Literal["learning", "forgetting"]
OUTCOMES: tuple[Outcome, ...] = ("learning", "forgetting")
_DRAWS = 400
_STEPS = 64
_FEWEST = 3
_LOST = 0.2
_MANY = 400


class MatchedComparison(Result):
    """Two methods compared on their fronts, where the other score is equal.

    outcome: what is compared, at equal forgetting or at equal learning.
    difference: of `method` minus `other`; None where the fronts share no range.
    low, high: 90% interval over redrawn configurations.
    n: points of the two fronts.
    matched_from, matched_to: range of the equal score that both fronts reach.
    reason: why there is no interval, or why it decides nothing.
    """

    domain: str = ""
    outcome: Outcome
    method: str
    other: str
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    n: int
    matched_from: float | None = None
    matched_to: float | None = None
    reason: str | None = None

    @property
    def matched(self) -> Outcome:
        """The score that is equal."""
        return "forgetting" if self.outcome == "learning" else "learning"


def _front(points: Floats) -> Floats:
    """Select the undominated points by rising learning, equal ones once."""
    ordered = points[np.lexsort((points[:, 1], -points[:, 0]))]
    lowest = np.minimum.accumulate(ordered[:, 1])
    first = np.append(True, ordered[1:, 1] < lowest[:-1])
    front: Floats = ordered[first][::-1]
    return front


def _shared(left: Floats, right: Floats, column: int) -> tuple[float, float]:
    """Intersect the ranges of a score on two fronts; without overlap the start is above the end."""
    starts = max(left[:, column].min(), right[:, column].min())
    return float(starts), float(min(left[:, column].max(), right[:, column].max()))


def _read(front: Floats, column: int, at: Floats) -> Floats:
    """Read the other score of a front at values of this one."""
    return np.interp(at, front[:, column], front[:, 1 - column])  # a front rises in both scores


def _difference(left: Floats, right: Floats, column: int) -> float | None:
    left, right = _front(left), _front(right)
    start, end = _shared(left, right, column)
    if not start < end:
        return None
    at = np.linspace(start, end, _STEPS)
    return float(np.mean(_read(left, column, at) - _read(right, column, at)))


def _points(table: Table) -> Floats:
    measured = table.measured
    return by_content(np.stack([measured.learning, measured.forgetting], axis=1))


def compare_matched(
    tables: Mapping[str, Table], noise: Mapping[str, Noise]
) -> tuple[MatchedComparison, ...]:
    """Compare every two methods that have a front, at equal forgetting and at equal learning."""
    points = {m: _points(table) for m, table in tables.items() if table.measured.rows}
    return tuple(
        _compare(left, right, points[left], points[right], outcome, noise)
        for left, right in combinations(points, 2)
        for outcome in OUTCOMES
    )


def _compare(
    method: str,
    other: str,
    left: Floats,
    right: Floats,
    outcome: Outcome,
    noise: Mapping[str, Noise],
) -> MatchedComparison:
    """Compare two methods; `column` is the score that is held equal."""
    column = 1 if outcome == "learning" else 0
    fronts = _front(left), _front(right)
    start, end = _shared(*fronts, column)
    effect = _difference(left, right, column)
    found = MatchedComparison(
        outcome=outcome, method=method, other=other, n=len(fronts[0]) + len(fronts[1])
    )
    if effect is None:
        reason = f"the two fronts have no range of {found.matched} in common"
        return found.model_copy(update={"reason": reason})
    known = {"difference": effect, "matched_from": start, "matched_to": end}
    if min(len(left), len(right)) < _FEWEST:
        reason = f"{_FEWEST} configurations of each method are needed"
        return found.model_copy(update={**known, "reason": reason})
    draws = _redraw(left, right, column, noise)
    if draws is None:
        reason = "in many redrawn samples the fronts have no range in common"
        return found.model_copy(update={**known, "reason": reason})
    interval = interval_from_draws(
        effect, draws, n=found.n, of="configurations on the fronts", basis="redrawn"
    )
    low, high = interval.low or 0.0, interval.high or 0.0
    unsure = "the interval includes no difference" if low <= 0 <= high else None
    return found.model_copy(update={**known, "low": low, "high": high, "reason": unsure})


def _redraw(left: Floats, right: Floats, column: int, noise: Mapping[str, Noise]) -> Floats | None:
    """Redraw the configurations of both methods; None where too many draws share no range."""
    spreads = seed_spreads(noise)
    rng = np.random.default_rng(SEED)
    number = _DRAWS if len(left) + len(right) <= _MANY else _DRAWS // 5
    found = []
    for _ in range(number):
        drawn = [redraw_points(side, spreads, rng) for side in (left, right)]
        value = _difference(drawn[0], drawn[1], column)
        if value is not None:
            found.append(value)
    if len(found) < (1 - _LOST) * number:
        return None
    return np.array(found)
