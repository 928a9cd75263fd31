"""What all kinds of panels share: colours, markers, dashes, names and ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lorasweep.report.picture import Axis, Key

if TYPE_CHECKING:
    from matplotlib.lines import Line2D

# Okabe and Ito's colours, told apart by all kinds of colour vision; yellow is left out as too pale.
COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#7F7F7F",
)  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P", "h", "*")
DASHES: tuple[tuple[float, Sequence[float]], ...] = (
    (0, ()), (0, (7, 3)), (0, (2, 3)), (0, (8, 3, 2, 3)),
)  # fmt: skip
RAMP = "cividis_r"  # from pale to dark, for all kinds of colour vision
LONGEST_LABEL = 40  # longer ones would leave no room for the plot
MOST_OUTLINES = 1500  # points or lines that an SVG holds as shapes; more are an image in it
_MOST_TICKS = 12  # levels that are named on an upright axis


def plain(text: str, longest: int = LONGEST_LABEL) -> str:
    """Cut a name to the figure's room, and keep its dollar signs from being read as a formula."""
    short = text if len(text) <= longest else f"{text[: longest - 3]}..."
    return short.replace("$", r"\$")


def colour(look: int | None) -> str:
    """Choose the colour of a look; what belongs to no series is black."""
    return "black" if look is None else COLOURS[look % len(COLOURS)]


def key_line(key: Key) -> Line2D:
    """Make the handle of a legend entry."""
    from matplotlib.lines import Line2D

    label = plain(key.label)
    if key.kind == "line":
        dashes = DASHES[key.dash % len(DASHES)]
        return Line2D([], [], color=colour(key.look), linestyle=dashes, label=label)
    if key.kind == "base":
        marker, tone = "*", "black"
    else:
        marker, tone = MARKERS[(key.look or 0) % len(MARKERS)], colour(key.look or 0)
    return Line2D([], [], linestyle="", marker=marker, color=tone, label=label)


def ticks(axis: Axis) -> list[float]:
    """Choose the values that an axis names: levels, or round numbers."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    if axis.levels:
        return [float(i) for i in range(0, len(axis.levels), -(-len(axis.levels) // _MOST_TICKS))]
    if axis.high <= axis.low:
        return [axis.low]
    inside: list[float] = []
    if axis.log:
        decades = math.log10(axis.high / axis.low)
        subs = (1.0, 2.0, 5.0) if decades < 2 else (1.0, 3.0) if decades < 4 else (1.0,)
        found = LogLocator(subs=subs, numticks=12).tick_values(axis.low, axis.high)
        inside = [float(value) for value in found if axis.low <= value <= axis.high]
    if len(inside) < 2:  # a short range may have no round number of a logarithmic scale in it
        found = MaxNLocator(5).tick_values(axis.low, axis.high)
        inside = [float(value) for value in found if axis.low <= value <= axis.high]
    return inside
