"""The learning-forgetting front: trials that no other trial beats on both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from lorasweep.analysis.intervals import Floats
from lorasweep.analysis.noise import Noise
from lorasweep.analysis.types import Number, Result
from lorasweep.store.configurations import forgetting_of, is_scored, methods
from lorasweep.store.results import TrialResult

POOLED = "pooled"
_MOST_NAMED = 20
Mask = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]


class FrontPoint(Result):
    """A trial on a learning-forgetting front.

    scope: the method whose trials were compared, or `pooled` for all of them.
    certain: no other trial may beat it within the noise of both scores; None where that could not
        be told, since no configuration was repeated and none could be predicted from the others.
    """

    domain: str = ""
    scope: str
    trial: str
    method: str
    learning: float
    forgetting: Number
    source_accuracy: Number
    certain: bool | None = None


class Contenders(Result):
    """Trials off a front that noise alone may keep from it.

    n: how many; trials: the best of them, 20 at most.
    """

    domain: str = ""
    scope: str
    n: int
    trials: tuple[str, ...]


def undominated(points: Sequence[Sequence[float]]) -> list[int]:
    """Find the points (learning, forgetting) that no other beats, by rising learning.

    A point is beaten by one that is no worse on both and better on one; equal points all stay.
    """
    order = sorted(range(len(points)), key=lambda i: (-points[i][0], points[i][1], i))
    front: list[int] = []
    for index in order:
        # In this order every earlier point learned at least as much, so only forgetting decides.
        if (
            not front
            or points[index][1] < points[front[-1]][1]
            or (points[index] == points[front[-1]])
        ):
            front.append(index)
    return sorted(front, key=lambda i: (points[i][0], i))


def may_be_beaten(points: Floats, front: Sequence[int], margins: tuple[float, float]) -> Mask:
    """Find the points of a front that another may beat, if differences are off by the margins.

    Without noise there are none.
    """
    chosen = points[list(front)]
    if not any(margins):
        return np.zeros(len(chosen), dtype=np.bool_)
    order = np.argsort(-points[:, 0], kind="stable")
    learning, forgetting = points[order, 0], points[order, 1]
    # Among points that learned at least as much one is the point itself, so the second lowest
    # forgetting decides.
    lowest = np.minimum.accumulate(forgetting)
    second = np.minimum.accumulate(np.append(math.inf, np.maximum(lowest[:-1], forgetting[1:])))
    last = np.searchsorted(-learning, -(chosen[:, 0] - margins[0]), side="right") - 1
    found: Mask = second[last] <= chosen[:, 1] + margins[1]
    return found


def surely_beaten(points: Floats, front: Sequence[int], margins: tuple[float, float]) -> Mask:
    """Find the points that another one beats by more than noise on both scores.

    Only points of the front need to be compared with: every other point is beaten by one of them.
    """
    rising = points[list(front)]
    wanted = points[:, 0] + margins[0]
    # Of those that learned enough, the one that learned least forgot least.
    place = np.searchsorted(rising[:, 0], wanted, side="left")
    forgetting = np.append(rising[:, 1], math.inf)[place]
    learning = np.append(rising[:, 0], math.inf)[place]
    better = (learning > points[:, 0]) | (forgetting < points[:, 1])
    found: Mask = (forgetting <= points[:, 1] - margins[1]) & better
    return found


def comparable(trials: Iterable[TrialResult]) -> list[TrialResult]:
    """Keep the trials with a learning and a source score that compare with each other.

    Where forgetting is known for some trials only, those are compared, since source accuracies
    alone could stem from another base.
    """
    scored = [trial for trial in trials if is_scored(trial)]
    by_forgetting = any(trial.forgetting is not None for trial in scored)
    scored = [t for t in scored if forgetting_of(t, by_forgetting=by_forgetting) is not None]
    return sorted(scored, key=lambda trial: (trial.number, trial.seed, trial.trial))


def places(trials: Sequence[TrialResult]) -> Floats:
    """Stack learning and forgetting of comparable trials."""
    by_forgetting = any(trial.forgetting is not None for trial in trials)
    pairs = [
        (trial.learning or 0.0, forgetting_of(trial, by_forgetting=by_forgetting) or 0.0)
        for trial in trials
    ]
    return np.array(pairs, dtype=np.float64).reshape(len(pairs), 2)


def scopes(trials: Sequence[TrialResult]) -> dict[str, list[TrialResult]]:
    """Group the comparable trials by method, and all of them as `pooled`."""
    kept = comparable(trials)
    found = {m: [trial for trial in kept if trial.method == m] for m in methods(kept)}
    return {**found, POOLED: kept} if kept else {}


def fronts(
    trials: Iterable[TrialResult], noise: Mapping[str, Noise] | None = None
) -> tuple[FrontPoint, ...]:
    """Find each method's front and the pooled one, each by rising learning.

    Trials without a source score are left out (see `comparable`).

    Args:
        noise: of both scores; without it `certain` is None.
    """
    margins = noise_margins(noise)
    found = []
    for scope, members in scopes(tuple(trials)).items():
        points = places(members)
        front = undominated(points.tolist())
        unsure = None if margins is None else may_be_beaten(points, front, margins)
        found += [
            FrontPoint(
                domain=members[i].domain,
                scope=scope,
                trial=members[i].trial,
                method=members[i].method,
                learning=float(points[i, 0]),
                forgetting=members[i].forgetting,
                source_accuracy=members[i].source_accuracy,
                certain=None if unsure is None else not unsure[place],
            )
            for place, i in enumerate(front)
        ]
    return tuple(found)


def noise_margins(noise: Mapping[str, Noise] | None) -> tuple[float, float] | None:
    """Compute how large differences of both scores may be by noise; None where unknown."""
    if noise is None or any(noise[name].sd is None for name in ("learning", "forgetting")):
        return None
    return noise["learning"].margin, noise["forgetting"].margin


def contenders(trials: Iterable[TrialResult], noise: Mapping[str, Noise]) -> tuple[Contenders, ...]:
    """Find the trials off each front that noise alone may keep from it, best first."""
    margins = noise_margins(noise)
    if margins is None:
        return ()
    found = []
    for scope, members in scopes(tuple(trials)).items():
        points = places(members)
        front = undominated(points.tolist())
        possible = np.flatnonzero(~surely_beaten(points, front, margins))
        near = list({int(i) for i in possible} - set(front))
        near.sort(key=lambda i: (-points[i, 0], points[i, 1], i))
        names = tuple(members[i].trial for i in near[:_MOST_NAMED])
        found.append(Contenders(domain=members[0].domain, scope=scope, n=len(near), trials=names))
    return tuple(found)
