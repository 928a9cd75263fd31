"""Points, lines and intervals over two axes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lorasweep.report.panels.style import DASHES, MARKERS, MOST_OUTLINES, colour, plain, ticks
from lorasweep.report.picture import Axis, Plane
from lorasweep.report.wording import level

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MANY = 300  # points from which each is drawn smaller


def draw_plane(axes: Axes, panel: Plane) -> None:
    """Draw a plane; the points of a series are one artist."""
    for line in panel.lines:
        axes.plot(
            *zip(*line.points, strict=True),
            color=colour(line.look),
            linewidth=1.2,
            linestyle=DASHES[line.dash % len(DASHES)],
            drawstyle="steps-post" if line.steps else "default",
            zorder=1,
        )
    for span in panel.intervals:
        axes.plot(
            [span.x, span.x],
            [span.low, span.high],
            color=colour(span.look),
            linewidth=1.2,
            marker="_",
            zorder=2,
        )
    _draw_points(axes, panel)
    for ring in panel.rings:
        axes.scatter(
            ring.x,
            ring.y,
            s=130,
            facecolors="none",
            edgecolors="black",
            linewidths=1.0,
            linestyles="-" if ring.certain else (0, (1.5, 1.5)),
            zorder=4,
        )
    if panel.base is not None:
        axes.scatter(*panel.base, marker="*", s=190, color="black", zorder=4)
        axes.annotate("base", panel.base, xytext=(9, -4), textcoords="offset points")
    _set_range(axes, panel)
    _draw_strip(axes, panel)
    axes.set_xlabel(plain(panel.x.label))
    axes.set_ylabel(plain(panel.y.label))


def _draw_points(axes: Axes, panel: Plane) -> None:
    count = _count(panel)
    size = 6.8 if count <= _MANY else 5.3 if count <= MOST_OUTLINES else 3.9
    for series in panel.series:
        placed = [(x, y) for x, y in zip(series.x, series.y, strict=True) if y is not None]
        axes.plot(  # looks as `scatter` does, and is faster
            [x for x, _ in placed],
            [y for _, y in placed],
            linestyle="",
            color=colour(series.look),
            marker=MARKERS[series.look % len(MARKERS)],
            rasterized=count > MOST_OUTLINES,
            markersize=size,
            alpha=0.85,
            markeredgecolor="white",
            markeredgewidth=0.6,
            zorder=3,
        )


def _draw_strip(axes: Axes, panel: Plane) -> None:
    """Draw the points without a y as crosses at the bottom, where they have a place on x."""
    lost = [x for s in panel.series for x, y in zip(s.x, s.y, strict=True) if y is None]
    if not lost:
        return
    axes.plot(
        lost,
        [0.025] * len(lost),
        transform=axes.get_xaxis_transform(),
        linestyle="",
        marker="x",
        color="black",
        markersize=5.8,
        markeredgewidth=1.3,
        zorder=4,
        rasterized=_count(panel) > MOST_OUTLINES,
    )
    axes.annotate(
        panel.strip,
        (1, 0.025),
        xycoords="axes fraction",
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
    )


def _count(panel: Plane) -> int:
    return sum(len(series.x) for series in panel.series)


def _set_range(axes: Axes, panel: Plane) -> None:
    """Scale both axes as the picture has them, with a margin; a strip takes room below."""
    if panel.x.log:
        axes.set_xscale("log")
    if panel.y.log:
        axes.set_yscale("log")
    has_strip = any(y is None for series in panel.series for y in series.y)
    axes.set_xlim(_ends(panel.x, 0.06, 0.06))
    axes.set_ylim(_ends(panel.y, 0.16 if has_strip else 0.1, 0.1))
    for axis, given in ((axes.xaxis, panel.x), (axes.yaxis, panel.y)):
        if given.log:
            from matplotlib.ticker import NullFormatter

            named = ticks(given)
            axis.set_ticks(named, [level(value) for value in named])
            axis.set_minor_formatter(NullFormatter())
        elif given.low == given.high:
            axis.set_ticks([given.low])
        elif given.whole:
            from matplotlib.ticker import MaxNLocator

            axis.set_major_locator(MaxNLocator(integer=True))


def _ends(given: Axis, below: float, above: float) -> tuple[float, float]:
    """Widen a range by shares of it; a single value gets room on both sides."""
    low, high = given.low, given.high
    if given.log:
        low, high = math.log10(low), math.log10(high)
    room = high - low or abs(low) * 0.2 or 1.0
    low, high = low - below * room, high + above * room
    return (10**low, 10**high) if given.log else (low, high)
