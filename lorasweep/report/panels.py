"""Panels drawn into the axes of a matplotlib figure, one function for each kind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lorasweep.report.picture import Axis, Bars, Heat, Key, Parallel, Plane
from lorasweep.report.wording import level, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

# Okabe and Ito's colours, told apart by all kinds of colour vision; yellow is left out as too pale.
_COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#7F7F7F",
)  # fmt: skip
_MARKERS = ("o", "s", "^", "D", "v", "P", "h", "*")
_DASHES: tuple[tuple[float, Sequence[float]], ...] = (
    (0, ()), (0, (7, 3)), (0, (2, 3)), (0, (8, 3, 2, 3)),
)  # fmt: skip
_RAMP = "cividis_r"  # from pale to dark, for all kinds of colour vision
_DARK = 0.55  # share of the ramp from which text is white
LONGEST_LABEL = 40  # longer ones would leave no room for the plot
_LONGEST_TITLE = 60
MOST_OUTLINES = 1500  # points or lines that an SVG holds as shapes; more are an image in it
_MANY = 300  # points from which each is drawn smaller
_MOST_TICKS = 12  # levels that are named on an upright axis
_WARM = "#D55E00"


def draw_panel(axes: Axes, panel: Plane | Bars | Heat | Parallel, slots: int) -> None:
    """Draw a panel of any kind; `slots` is the largest number of bars in a panel of the figure."""
    if isinstance(panel, Bars):
        _draw_bars(axes, panel, slots)
    elif isinstance(panel, Heat):
        _draw_heat(axes, panel)
    elif isinstance(panel, Parallel):
        _draw_parallel(axes, panel)
    else:
        _draw_plane(axes, panel)
    if panel.title:
        above = 24 if isinstance(panel, Parallel) else 6  # leaves room for the names of the axes
        axes.set_title(plain(panel.title, _LONGEST_TITLE), loc="left", fontsize=10, pad=above)


def plain(text: str, longest: int = LONGEST_LABEL) -> str:
    """Cut a name to the figure's room, and keep its dollar signs from being read as a formula."""
    short = text if len(text) <= longest else f"{text[: longest - 3]}..."
    return short.replace("$", r"\$")


def _colour(look: int | None) -> str:
    return "black" if look is None else _COLOURS[look % len(_COLOURS)]


def key_line(key: Key) -> Line2D:
    """Make the handle of a legend entry."""
    from matplotlib.lines import Line2D

    label = plain(key.label)
    if key.kind == "line":
        dashes = _DASHES[key.dash % len(_DASHES)]
        return Line2D([], [], color=_colour(key.look), linestyle=dashes, label=label)
    if key.kind == "base":
        marker, colour = "*", "black"
    else:
        marker, colour = _MARKERS[(key.look or 0) % len(_MARKERS)], _colour(key.look or 0)
    return Line2D([], [], linestyle="", marker=marker, color=colour, label=label)


def _draw_plane(axes: Axes, panel: Plane) -> None:
    for line in panel.lines:
        axes.plot(
            *zip(*line.points, strict=True),
            color=_colour(line.look),
            linewidth=1.2,
            linestyle=_DASHES[line.dash % len(_DASHES)],
            drawstyle="steps-post" if line.steps else "default",
            zorder=1,
        )
    for span in panel.intervals:
        axes.plot(
            [span.x, span.x],
            [span.low, span.high],
            color=_colour(span.look),
            linewidth=1.2,
            marker="_",
            zorder=2,
        )
    count = sum(len(series.x) for series in panel.series)
    size = 6.8 if count <= _MANY else 5.3 if count <= MOST_OUTLINES else 3.9
    for series in panel.series:
        placed = [(x, y) for x, y in zip(series.x, series.y, strict=True) if y is not None]
        axes.plot(  # looks as `scatter` does, and is faster
            [x for x, _ in placed],
            [y for _, y in placed],
            linestyle="",
            color=_colour(series.look),
            marker=_MARKERS[series.look % len(_MARKERS)],
            rasterized=count > MOST_OUTLINES,
            markersize=size,
            alpha=0.85,
            markeredgecolor="white",
            markeredgewidth=0.6,
            zorder=3,
        )
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
    if lost := [x for s in panel.series for x, y in zip(s.x, s.y, strict=True) if y is None]:
        # Below the plane: a diverged trial has a place on x, and no score.
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
            rasterized=count > MOST_OUTLINES,
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
    axes.set_xlabel(plain(panel.x.label))
    axes.set_ylabel(plain(panel.y.label))


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

            ticks = _ticks(given)
            axis.set_ticks(ticks, [level(value) for value in ticks])
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


def _draw_bars(axes: Axes, panel: Bars, slots: int) -> None:
    bars = panel.bars
    places = [len(bars) - 1 - i for i in range(len(bars))]
    for place, bar in zip(places, bars, strict=True):
        axes.barh(
            place,
            bar.value,
            height=0.6,
            color="#0072B2" if bar.certain else "#F3F0E8",
            edgecolor="none" if bar.certain else "#7F7F7F",
            linestyle="-" if bar.certain else (0, (3, 3)),
            zorder=2,
        )
        if bar.low is not None and bar.high is not None:
            # An interval may lie beside its share, which noise has raised.
            axes.plot([bar.low, bar.high], [place, place], color="black", linewidth=1.2, zorder=3)
            axes.plot(
                [bar.low, bar.high], [place, place], "|", color="black", markersize=7, zorder=3
            )
        if bar.chance is not None:
            axes.plot(
                [min(bar.chance, panel.x.high)] * 2,
                [place - 0.38, place + 0.38],
                color=_WARM,
                linewidth=2,
                linestyle=(0, (2, 1)),
                zorder=4,
            )
    axes.set_yticks(places, [plain(bar.label) for bar in bars])
    axes.set_xlim(panel.x.low, panel.x.high)
    axes.set_ylim(len(bars) - slots - 0.6, len(bars) - 0.4)
    axes.set_xlabel(plain(panel.x.label))
    axes.grid(visible=False, axis="y")


def is_slanted(panel: Heat) -> bool:
    """Judge whether the names of a heat map's columns are too long to stand side by side."""
    return max(len(name) for name in panel.x.levels) > max(3, 60 // len(panel.x.levels))


def _draw_heat(axes: Axes, panel: Heat) -> None:
    from matplotlib import colormaps

    columns = panel.x.levels
    shares = [
        [
            None
            if cell is None
            else (cell.value - panel.low) / (panel.high - panel.low)
            if panel.high > panel.low
            else 1.0
            for cell in row
        ]
        for row in panel.cells
    ]
    ramp, hole = colormaps[_RAMP], (0.9, 0.9, 0.9, 1.0)
    axes.pcolormesh(
        [[hole if share is None else ramp(share) for share in row] for row in shares],
        edgecolors="white",
        linewidth=2,
    )
    texts = [["\u2013" if c is None else number(c.value) for c in row] for row in panel.cells]
    longest = max(len(text) for row in texts for text in row)
    room = 320 / len(columns)  # points that a cell is wide, about
    for i, row in enumerate(shares):
        for j, share in enumerate(row):
            axes.text(
                j + 0.5,
                i + 0.5,
                texts[i][j],
                ha="center",
                va="center",
                fontsize=min(9.0, room / (0.7 * longest)),
                color="white" if share is not None and share > _DARK else "black",
                in_layout=False,  # it is within the cell, and the layout would measure each one
            )
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.tick_params(length=0)
    slanted = is_slanted(panel)
    axes.set_xticks(
        [j + 0.5 for j in range(len(columns))],
        [plain(name, 16 if slanted else LONGEST_LABEL) for name in columns],
        fontsize=9,
        rotation=30 if slanted else 0,
        rotation_mode="anchor",
        ha="right" if slanted else "center",
    )
    names = [plain(name, 24) for name in panel.y.levels]
    axes.set_yticks([i + 0.5 for i in range(len(names))], names, fontsize=9)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(plain(panel.x.label))
    axes.set_ylabel(plain(panel.y.label))


def _draw_parallel(axes: Axes, panel: Parallel) -> None:
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
    axes.add_collection(
        LineCollection(
            [list(enumerate(line)) for line in zip(*heights, strict=True)],
            colors=colormaps[_RAMP](panel.shades),
            linewidths=1.4 if count <= 60 else 1.0 if count <= 400 else 0.7,
            alpha=None if count <= 400 else 0.5,
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
        for value in _ticks(axis):
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


def _ticks(axis: Axis) -> list[float]:
    """Choose the values that an upright axis names."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    if axis.levels:
        return [float(i) for i in range(0, len(axis.levels), -(-len(axis.levels) // _MOST_TICKS))]
    if axis.high <= axis.low:
        return [axis.low]
    if axis.log:
        decades = math.log10(axis.high / axis.low)
        subs = (1.0, 2.0, 5.0) if decades < 2 else (1.0, 3.0) if decades < 4 else (1.0,)
        found = LogLocator(subs=subs, numticks=12).tick_values(axis.low, axis.high)
    else:
        found = MaxNLocator(5).tick_values(axis.low, axis.high)
    return [float(value) for value in found if axis.low <= value <= axis.high]
