"""The configurations of a grid, and how many trials a search plans."""

from __future__ import annotations

from lorasweep.spec.space import Level
from lorasweep.spec.sweep import SweepSpec
from lorasweep.spec.trial import DURATIONS


def grid_points(spec: SweepSpec) -> list[dict[str, Level]]:
    """List the configurations of a grid: the full factorial, or those that search.points names.

    Runs that share a trunk are sorted by duration: the shorter run leaves the state from which the
    longer one continues.
    """
    search = spec.search
    points = list(spec.space.grid(search.grid_points))
    if search.points:
        points = [
            point
            for point in points
            if any(given.items() <= point.items() for given in search.points)
        ]
    if (axis := trunk_axis(spec)) is not None:
        points.sort(key=lambda point: float(point[axis]))
    return points


def trunk_axis(spec: SweepSpec) -> str | None:
    """Duration axis along which trials share a trunk, or None."""
    axes = [axis for axis in DURATIONS if axis in spec.space.axes]
    return axes[0] if spec.has_trunk and axes else None


def planned_trials(spec: SweepSpec) -> int:
    """Count the suggestions of a study's search, without confirmations."""
    return len(grid_points(spec)) if spec.search.is_grid else spec.search.trials
