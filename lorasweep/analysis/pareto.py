"""The learning-forgetting front: trials that no other trial beats on both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lorasweep.analysis.configurations import is_scored, methods
from lorasweep.store.results import TrialResult

POOLED = "pooled"


@dataclass(frozen=True, slots=True)
class FrontPoint:
    """Hold a trial on a front.

    scope: the method whose trials were compared, or `pooled` for all of them.
    """

    scope: str
    trial: str
    method: str
    learning: float
    forgetting: float | None
    source_accuracy: float | None


def undominated(points: Sequence[tuple[float, float]]) -> list[int]:
    """Give the indices of the points (gain, cost) that no other beats, by rising gain.

    A point is beaten by one that is no worse on both and better on one; equal points all stay.
    """
    order = sorted(range(len(points)), key=lambda i: (-points[i][0], points[i][1], i))
    front: list[int] = []
    for index in order:
        # In this order every earlier point gains at least as much, so only the cost decides.
        if (
            not front
            or points[index][1] < points[front[-1]][1]
            or (points[index] == points[front[-1]])
        ):
            front.append(index)
    return sorted(front, key=lambda i: (points[i][0], i))


def _cost(trial: TrialResult) -> float | None:
    """Give forgetting, or the source accuracy it falls with where the base was not measured."""
    if trial.forgetting is not None:
        return trial.forgetting
    return None if trial.source_accuracy is None else -trial.source_accuracy


def fronts(trials: Iterable[TrialResult]) -> tuple[FrontPoint, ...]:
    """Find each method's front and the pooled one, each by rising learning.

    Trials without a source score are left out. Where forgetting is known for some trials only,
    those are compared, since source accuracies alone could stem from another base.
    """
    scored = [trial for trial in trials if is_scored(trial) and _cost(trial) is not None]
    if any(trial.forgetting is not None for trial in scored):
        scored = [trial for trial in scored if trial.forgetting is not None]
    points = []
    for scope in (*methods(scored), POOLED):
        members = [trial for trial in scored if scope in {POOLED, trial.method}]
        members.sort(key=lambda trial: (trial.number, trial.seed, trial.trial))
        pairs = [(trial.learning or 0.0, _cost(trial) or 0.0) for trial in members]
        points += [
            FrontPoint(
                scope=scope,
                trial=members[i].trial,
                method=members[i].method,
                learning=pairs[i][0],
                forgetting=members[i].forgetting,
                source_accuracy=members[i].source_accuracy,
            )
            for i in undominated(pairs)
        ]
    return tuple(points)
