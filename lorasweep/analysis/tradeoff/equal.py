"""Learning at equal forgetting, and forgetting at equal learning, between two methods.

Each method's front is read between its points in straight lines, over the range that both fronts
reach; the difference is the mean over that range. Configurations are averaged over their seeds
first, so that a lucky seed does not stand for its method.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from lorasweep.analysis.intervals import SEED, Floats, interval_from_draws
from lorasweep.analysis.noise import Noise, by_content, redraw_points, seed_spreads
from lorasweep.analysis.table import Table

AT_EQUAL = {
    "learning": "learning at equal forgetting",
    "forgetting": "forgetting at equal learning",
}
_DRAWS = 400
_STEPS = 64
_FEWEST = 3
_LOST = 0.2
_MANY = 400


@dataclass(frozen=True, slots=True)
class AtEqual:
    """Hold one comparison of two methods on their fronts.

    what: a value of `AT_EQUAL`.
    difference: of `method` less `other`; None where it cannot be told, and `reason` says why.
    low, high: 90% interval over redrawn configurations.
    n: points of the two fronts; start, end: the range of the other score that both reach.
    """

    what: str
    method: str
    other: str
    difference: float | None
    low: float | None
    high: float | None
    n: int
    start: float | None = None
    end: float | None = None
    reason: str | None = None


def _front(points: Floats) -> Floats:
    """Give the undominated points by rising gain, equal ones once; fast, as it is redrawn often."""
    ordered = points[np.lexsort((points[:, 1], -points[:, 0]))]
    lowest = np.minimum.accumulate(ordered[:, 1])
    first = np.append(True, ordered[1:, 1] < lowest[:-1])
    front: Floats = ordered[first][::-1]
    return front


def _shared(left: Floats, right: Floats, column: int) -> tuple[float, float]:
    """Give the range of a score that both fronts reach; its start may lie behind its end."""
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


def compare_at_equal(
    tables: Mapping[str, Table], noise: Mapping[str, Noise]
) -> tuple[AtEqual, ...]:
    """Compare every two methods that have a front, both ways."""
    points = {m: _points(table) for m, table in tables.items() if table.measured.rows}
    return tuple(
        _compare(left, right, points[left], points[right], what, noise)
        for left, right in combinations(points, 2)
        for what in AT_EQUAL
    )


def _compare(
    method: str, other: str, left: Floats, right: Floats, what: str, noise: Mapping[str, Noise]
) -> AtEqual:
    """Compare two methods; `column` is the score that is held equal."""
    column = 1 if what == "learning" else 0
    fronts = _front(left), _front(right)
    n = len(fronts[0]) + len(fronts[1])
    start, end = _shared(*fronts, column)
    effect = _difference(left, right, column)
    said = AT_EQUAL[what]
    if effect is None:
        held = "forgetting" if column else "learning"
        reason = f"cannot tell: the two fronts have no range of {held} in common"
        return AtEqual(said, method, other, None, None, None, n, reason=reason)
    if min(len(left), len(right)) < _FEWEST:
        reason = f"cannot tell: {_FEWEST} configurations of each method are needed"
        return AtEqual(said, method, other, effect, None, None, n, start, end, reason)
    draws = _redraw(left, right, column, noise)
    if draws is None:
        reason = "cannot tell: in many redrawn samples the fronts have no range in common"
        return AtEqual(said, method, other, effect, None, None, n, start, end, reason)
    found = interval_from_draws(
        effect, draws, n=n, of="configurations on the fronts", basis="redrawn"
    )
    low, high = found.low or 0.0, found.high or 0.0
    unsure = "cannot tell: no difference lies within the interval" if low <= 0 <= high else None
    return AtEqual(said, method, other, effect, low, high, n, start, end, unsure)


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
