"""Hypervolume of a front: the area between it and a reference point.

In two dimensions the hypervolume (Zitzler and Thiele 1999) is the area of learning and forgetting
that are no better than some trial of the scope.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lorasweep.analysis.intervals import SEED, Estimate, Floats, interval_from_draws
from lorasweep.analysis.noise import Noise, by_content, redraw_points, seed_spreads
from lorasweep.analysis.tradeoff.pareto import places, scopes
from lorasweep.analysis.types import Result
from lorasweep.store.results import TrialResult

_DRAWS = 400
_FEWEST = 5
_MANY = 2000


class ReferencePoint(Result):
    """Worst learning and worst forgetting of all methods' trials in a domain.

    forgetting: source accuracy with its sign turned where the base was not measured.
    """

    learning: float
    forgetting: float


class Hypervolume(Result):
    """Area between the front of a scope's trials and the reference point.

    area: learning times forgetting (or source accuracy), both in [0, 1]; without bounds below five
        trials.
    """

    domain: str = ""
    scope: str
    area: Estimate
    reference: ReferencePoint


def area(points: Floats, reference: tuple[float, float]) -> float:
    """Compute the area between the points' front and the reference point."""
    inside = points[(points[:, 0] > reference[0]) & (points[:, 1] < reference[1])]
    if not len(inside):
        return 0.0
    inside = inside[np.lexsort((inside[:, 1], -inside[:, 0]))]
    # From the most learning downwards; between two points the lowest forgetting so far counts.
    lowest = np.minimum.accumulate(inside[:, 1])
    below = np.append(inside[1:, 0], reference[0])
    return float(np.sum((inside[:, 0] - below) * (reference[1] - lowest)))


def measure_hypervolumes(
    trials: Sequence[TrialResult], noise: Mapping[str, Noise]
) -> tuple[Hypervolume, ...]:
    """Measure each method's front and the pooled one against one common reference point."""
    by_scope = scopes(trials)
    if not by_scope:
        return ()
    every = places([trial for own in by_scope.values() for trial in own])
    reference = (float(every[:, 0].min()), float(every[:, 1].max()))
    corner = ReferencePoint(learning=reference[0], forgetting=reference[1])
    return tuple(
        Hypervolume(
            domain=own[0].domain,
            scope=scope,
            area=_estimate(places(own), reference, noise),
            reference=corner,
        )
        for scope, own in by_scope.items()
    )


def _estimate(
    points: Floats, reference: tuple[float, float], noise: Mapping[str, Noise]
) -> Estimate:
    n, value = len(points), area(points, reference)
    basis = "trials resampled with replacement"
    if n < _FEWEST:
        return Estimate(effect=value, n=n, n_of="trials", basis=basis)
    points, spreads = by_content(points), seed_spreads(noise)
    rng = np.random.default_rng(SEED)
    draws = np.array(
        [
            area(redraw_points(points, spreads, rng), reference)
            for _ in range(_DRAWS if n <= _MANY else _DRAWS // 8)
        ]
    )
    if spreads.any():
        basis += ", with the noise of seeds added"
    return interval_from_draws(value, draws, n=n, of="trials", basis=basis)
