"""Trials as lines across upright axes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lorasweep.report.panels.style import MOST_OUTLINES, RAMP, plain, ticks
from lorasweep.report.picture import Axis, Parallel
from lorasweep.report.wording import level

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_LINES = 3000


def draw_parallel(axes: Axes, panel: Parallel) -> None:
    """Draw the lines, the best trial on top, and name the axes and their ticks."""
    from matplotlib import colormaps
    from matplotlib.collections import LineCollection

    axes.set_axis_off()
    count, last = len(panel.trials), max(1, len(panel.trials) - 1)
    heights = [
        [
            # At a level the lines fan out in the order of learning, or they would coincide.
            math.nan if value is None else _height(axis, value, 0.6 * (place / last - 0.5))
            for place, value in enumerate(values)
        ]
        for axis, values in zip(panel.axes, panel.values, strict=True)
    ]
    # More lines would only cover each other, and take seconds to draw; the best one is kept.
    every = -(-count // _MOST_LINES)
    kept = slice((count - 1) % every, None, every)
    if every > 1:
        axes.text(
            len(panel.axes) - 1,
            -0.04,
            f"1 trial in {every} is drawn",
            ha="right",
            va="top",
            fontsize=8,
        )
    axes.add_collection(
        LineCollection(
            [list(enumerate(line)) for line in zip(*heights, strict=True)][kept],
            colors=colormaps[RAMP](panel.shades[kept]),
            linewidths=1.4 if count <= 60 else 1.0 if count <= 400 else 0.6,
            alpha=None if count <= 400 else 0.35,
            rasterized=count > MOST_OUTLINES,
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
