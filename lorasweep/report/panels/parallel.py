"""Trials as lines across upright axes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lorasweep.report.panels.style import RAMP, plain, ticks
from lorasweep.report.picture import Axis, Parallel
from lorasweep.report.wording import level

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_LINES = 150  # more would only cover each other


def draw_parallel(axes: Axes, panel: Parallel) -> None:
    """Draw the lines, the best trial on top, and name the axes and their ticks."""
    from matplotlib import colormaps
    from matplotlib.collections import LineCollection

    axes.set_axis_off()
    count, shown = len(panel.trials), _spread(len(panel.trials))
    if len(shown) < count:
        axes.text(
            len(panel.axes) - 1,
            -0.04,
            f"{len(shown)} of {count:,} trials are drawn, evenly from the worst to the best",
            ha="right",
            va="top",
            fontsize=8,
        )
    lines = []
    for place in shown:
        # At a level the lines fan out in the order of learning, or they would coincide.
        fan = 0.6 * (place / max(1, count - 1) - 0.5)
        values = (values[place] for values in panel.values)
        lines.append(
            [
                (x, math.nan if value is None else _height(axis, value, fan))
                for x, (axis, value) in enumerate(zip(panel.axes, values, strict=True))
            ]
        )
    shades = panel.shades
    axes.add_collection(
        LineCollection(
            lines,
            colors=colormaps[RAMP]([shades[place] for place in shown]),
            linewidths=1.4 if count <= 60 else 1.0,
        )
    )
    ends = len(panel.axes) - 1
    longest = max(6, 120 // max(1, ends))
    halo = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.7}
    for x, axis in enumerate(panel.axes):
        axes.plot([x, x], [0, 1], color="black", linewidth=0.9)
        axes.text(x, 1.05, plain(axis.label, longest), ha="center", va="bottom")
        first = x == 0
        for value in ticks(axis):
            label = axis.levels[round(value)] if axis.levels else level(value)
            axes.annotate(
                plain(label, min(longest, 18)),
                (x, _height(axis, value, 0.0)),
                xytext=(-6 if first else 6, 0),
                textcoords="offset points",
                ha="right" if first else "left",
                va="center",
                fontsize=8,
                bbox=halo,
            )
    axes.set_xlim(-0.05, ends + 0.05)
    axes.set_ylim(0, 1)


def _spread(count: int) -> list[int]:
    """Choose the lines to draw, evenly spread from the first to the last."""
    if count <= _MOST_LINES:
        return list(range(count))
    step = (count - 1) / (_MOST_LINES - 1)
    return [round(step * place) for place in range(_MOST_LINES)]


def _height(axis: Axis, value: float, fan: float) -> float:
    """Place a value on an upright axis, from 0 to 1; `fan` moves it within its level."""
    if axis.levels:
        return (value + 0.5 + fan) / len(axis.levels)
    if axis.high <= axis.low:
        return 0.5
    if axis.log:
        value, low, high = (math.log10(each) for each in (value, axis.low, axis.high))
    else:
        low, high = axis.low, axis.high
    return 0.03 + 0.94 * (value - low) / (high - low)
