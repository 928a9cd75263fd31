"""How each kind of panel is drawn into the axes of a figure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lorasweep.report.picture import Axis, Bars, Heat, Parallel, Point, Scatter
from lorasweep.report.wording import level, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, told apart by all kinds of colour vision; yellow is left out as too pale.
_COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#7F7F7F",
)  # fmt: skip
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_RAMP = "cividis_r"  # from pale to dark, for all kinds of colour vision
_DARK = 0.55  # share of the ramp from which text is white
LONGEST_LABEL = 40  # longer ones would leave no room for the plot
MOST_OUTLINES = 1500  # points that an SVG holds as shapes; more are an image in it
_MANY = 300  # points from which each is drawn smaller
_MOST_TICKS = 12  # levels that are named on an upright axis


def draw_panel(axes: Axes, panel: Scatter | Bars | Heat | Parallel, slots: int) -> None:
    """Draw a panel, whatever it is; `slots` is the most bars that one beside it has."""
    if isinstance(panel, Bars):
        _draw_bars(axes, panel, slots)
    elif isinstance(panel, Heat):
        _draw_heat(axes, panel)
    elif isinstance(panel, Parallel):
        _draw_parallel(axes, panel)
    else:
        _draw_scatter(axes, panel)
    if panel.title:
        above = 24 if isinstance(panel, Parallel) else 6  # there stand the names of its axes
        axes.set_title(_plain(panel.title), loc="left", fontsize=10, pad=above)


def _plain(text: str, longest: int = LONGEST_LABEL) -> str:
    """Keep a name's dollars from being read as a formula, and its length within the figure."""
    short = text if len(text) <= longest else f"{text[: longest - 3]}..."
    return short.replace("$", r"\$")


def _draw_scatter(axes: Axes, panel: Scatter) -> None:
    if panel.line:
        axes.plot(*zip(*panel.line, strict=True), color="#7F7F7F", linewidth=1.2, zorder=1)
    colours = dict(zip(panel.colours, _COLOURS, strict=False))
    markers = {name: _MARKERS[i % len(_MARKERS)] for i, name in enumerate(panel.markers)}
    looks: dict[tuple[str, str], list[Point]] = {}
    for point in panel.points:
        looks.setdefault((point.colour, point.marker), []).append(point)
    count = len(panel.points)
    size = 6.8 if count <= _MANY else 5.3 if count <= MOST_OUTLINES else 3.9
    for (colour, marker), points in looks.items():
        axes.plot(  # looks as `scatter` does, and is faster
            [point.x for point in points],
            [point.y for point in points],
            linestyle="",
            color=colours.get(colour, "#7F7F7F"),
            marker=markers[marker],
            rasterized=count > MOST_OUTLINES,
            markersize=size,
            alpha=0.85,
            markeredgecolor="white",
            markeredgewidth=0.6,
            zorder=3,
        )
    if panel.base is not None:
        axes.scatter(*panel.base, marker="*", s=190, color="black", zorder=4)
        axes.annotate("base", panel.base, xytext=(9, -4), textcoords="offset points")
    if panel.log_x:
        axes.set_xscale("log")
        places = [*(point.x for point in panel.points), *panel.lost]
        if max(places) >= 100 * min(places):
            from matplotlib.ticker import NullFormatter

            # The powers of ten are named; it would take long to find that nothing else is.
            axes.xaxis.set_minor_formatter(NullFormatter())
    elif len(whole := {*(point.x for point in panel.points), *panel.lost}) == 1:
        axes.set_xticks([*whole])
    elif all(x.is_integer() for x in whole):
        from matplotlib.ticker import MaxNLocator

        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if panel.reach is not None:
        axes.update_datalim([(panel.points[0].x, y) for y in panel.reach])
        axes.autoscale_view()
    if panel.lost:
        axes.update_datalim([(x, panel.points[0].y) for x in panel.lost])
        axes.autoscale_view()
        # Along the bottom edge: a diverged trial has a place on x, and no score.
        axes.plot(
            panel.lost,
            [0.02] * len(panel.lost),
            transform=axes.get_xaxis_transform(),
            linestyle="",
            marker="x",
            color="black",
            markersize=5.8,
            markeredgewidth=1.3,
            zorder=4,
            rasterized=count > MOST_OUTLINES,
        )
    axes.set_xlabel(_plain(panel.x_label))
    axes.set_ylabel(panel.y_label)
    axes.margins(x=0.06, y=0.1)
    _add_legend(axes, panel, colours, markers)


def _add_legend(
    axes: Axes, panel: Scatter, colours: dict[str, str], markers: dict[str, str]
) -> None:
    """Explain colours and markers beside the plot, where they hide no trial."""
    from matplotlib.lines import Line2D

    entries: list[Line2D] = []

    def entry(label: str, colour: str, marker: str) -> None:
        entries.append(
            Line2D([], [], linestyle="", marker=marker, color=colour, label=_plain(label))
        )

    if panel.colour_name:
        for name, colour in colours.items():
            entry(f"{panel.colour_name} {name}", colour, "o")
    if panel.marker_name and (len(markers) > 1 or not panel.colour_name):
        for name, marker in markers.items():
            entry(f"{panel.marker_name} {name}", "#555555", marker)
    if panel.lost:
        entry(panel.lost_name, "black", "x")
    if panel.line:
        entries.append(Line2D([], [], color="#7F7F7F", linewidth=1.2, label=panel.line_name))
    if entries:
        axes.legend(
            handles=entries, loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=9
        )


def _draw_bars(axes: Axes, panel: Bars, slots: int) -> None:
    """Draw bars of one thickness in all panels, `slots` being the most that one has."""
    bars = panel.bars[::-1]  # matplotlib counts from the bottom
    places = range(len(bars))
    axes.barh(places, [bar.value for bar in bars], height=0.55, color="#56B4E9", zorder=2)
    spans = [[bar.value - bar.low for bar in bars], [bar.high - bar.value for bar in bars]]
    axes.errorbar(
        [bar.value for bar in bars],
        places,
        xerr=spans,
        fmt="none",
        ecolor="black",
        capsize=3,
        linewidth=1.2,
        zorder=3,
    )
    for place, bar in zip(places, bars, strict=True):
        label = "reached by chance" if place == 0 else "_"
        axes.plot(
            [bar.chance] * 2,
            [place - 0.38, place + 0.38],
            color="#D55E00",
            linewidth=2,
            linestyle=(0, (2, 1)),
            zorder=4,
            label=label,
        )
    axes.set_yticks(places, [_plain(bar.label) for bar in bars])
    axes.set_xlim(0, 1)
    axes.set_ylim(len(bars) - slots - 0.6, len(bars) - 0.4)
    axes.set_xlabel("share of the variance of learning")
    axes.grid(visible=False, axis="y")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=9)


def is_slanted(panel: Heat) -> bool:
    """Tell whether the names of a heat map's columns are too long to stand side by side."""
    return max(len(name) for name in panel.columns) > _letters(panel)


def _letters(panel: Heat) -> int:
    """Give how many letters have room in a column."""
    return max(3, 60 // len(panel.columns))


def _draw_heat(axes: Axes, panel: Heat) -> None:
    from matplotlib import colormaps

    shares = [
        [
            None
            if value is None
            else (value - panel.low) / (panel.high - panel.low)
            if panel.high > panel.low
            else 1.0
            for value in row
        ]
        for row in panel.cells
    ]
    ramp, hole = colormaps[_RAMP], (0.9, 0.9, 0.9, 1.0)
    axes.pcolormesh(
        [[hole if share is None else ramp(share) for share in row] for row in shares],
        edgecolors="white",
        linewidth=2,
    )
    texts = [["\u2013" if v is None else number(v) for v in row] for row in panel.cells]
    longest = max(len(text) for row in texts for text in row)
    room = 320 / len(panel.columns)  # points that a cell is wide, about
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
                in_layout=False,  # it lies within the cell, and layout would measure each
            )
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.tick_params(length=0)
    slanted = is_slanted(panel)
    axes.set_xticks(
        [j + 0.5 for j in range(len(panel.columns))],
        [_plain(name, 16 if slanted else LONGEST_LABEL) for name in panel.columns],
        fontsize=9,
        rotation=30 if slanted else 0,
        rotation_mode="anchor",
        ha="right" if slanted else "center",
    )
    names = [_plain(name, 24) for name in panel.rows]
    axes.set_yticks([i + 0.5 for i in range(len(names))], names, fontsize=9)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(_plain(panel.x_label))
    axes.set_ylabel(_plain(panel.y_label))


def _draw_parallel(axes: Axes, panel: Parallel) -> None:
    from matplotlib import colormaps
    from matplotlib.collections import LineCollection

    axes.set_axis_off()
    count, last = len(panel.lines), max(1, len(panel.lines) - 1)
    places = []
    for rank, line in enumerate(panel.lines):
        # At a level the lines fan out in the order of learning, so that they can be told apart.
        fan = 0.6 * (rank / last - 0.5)
        places.append(
            [
                (x, math.nan if value is None else _height(axis, value, fan))
                for x, (axis, value) in enumerate(zip(panel.axes, line, strict=True))
            ]
        )
    axes.add_collection(
        LineCollection(
            places,
            colors=colormaps[_RAMP](panel.shades),
            linewidths=1.4 if count <= 60 else 1.0,
        )
    )
    ends = len(panel.axes) - 1
    longest = max(6, 120 // max(1, ends))
    halo = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.7}
    for x, axis in enumerate(panel.axes):
        axes.plot([x, x], [0, 1], color="black", linewidth=0.9)
        axes.text(x, 1.05, _plain(axis.name, longest), ha="center", va="bottom")
        first = x == 0
        for value in _ticks(axis):
            label = axis.levels[round(value)] if axis.levels else level(value)
            axes.annotate(
                _plain(label, min(longest, 18)),
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
    """Give a value's place on an upright axis, from 0 to 1; `fan` moves it within its level."""
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
