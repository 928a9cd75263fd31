"""Figures drawn by matplotlib without a display, the same bytes for the same data."""

from __future__ import annotations

import io
import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorasweep.report.picture import Bars, Picture, Point, Scatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, told apart by all kinds of colour vision; yellow is left out as too pale.
_COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#7F7F7F",
)  # fmt: skip
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "lorasweep",  # otherwise every file names its parts at random
    "svg.fonttype": "path",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E5E5E5",
    "axes.axisbelow": True,
}
_COLUMNS = 3
LONGEST_LABEL = 40  # longer ones would leave no room for the plot
MOST_OUTLINES = 1500  # points that an SVG holds as shapes; more are an image in it


def draw(picture: Picture, folder: Path) -> tuple[Path, Path]:
    """Draw a figure to NAME.png and NAME.svg, whole or not at all."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, len(picture.panels))
    rows = math.ceil(len(picture.panels) / columns)
    is_bars = isinstance(picture.panels[0], Bars)
    deepest = max(len(p.bars) if isinstance(p, Bars) else 0 for p in picture.panels)
    height = 1.4 + 0.42 * deepest if is_bars else 4.2
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.6 * columns, height * rows), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(rows, columns, squeeze=False)
        for index, panel in enumerate(picture.panels):
            place: Axes = axes[index // columns][index % columns]
            if isinstance(panel, Bars):
                _draw_bars(place, panel, deepest)
            else:
                _draw_scatter(place, panel)
        for index in range(len(picture.panels), rows * columns):
            axes[index // columns][index % columns].set_axis_off()
        written = []
        for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            content = io.BytesIO()
            with warnings.catch_warnings():
                # A name in a script that the font lacks is drawn as boxes; the tables have it.
                warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
                figure.savefig(content, format=kind, dpi=150, metadata=metadata)
            written.append(_write(folder / f"{picture.name}.{kind}", content.getvalue()))
    return written[0], written[1]


def _write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    part.replace(path)
    return path


def _plain(text: str) -> str:
    """Keep a name's dollars from being read as a formula, and its length within the figure."""
    short = text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 3]}..."
    return short.replace("$", r"\$")


def _draw_scatter(axes: Axes, panel: Scatter) -> None:
    if panel.line:
        axes.plot(*zip(*panel.line, strict=True), color="#7F7F7F", linewidth=1.2, zorder=1)
    colours = dict(zip(panel.colours, _COLOURS, strict=False))
    markers = {name: _MARKERS[i % len(_MARKERS)] for i, name in enumerate(panel.markers)}
    looks: dict[tuple[str, str], list[Point]] = {}
    for point in panel.points:
        looks.setdefault((point.colour, point.marker), []).append(point)
    for (colour, marker), points in looks.items():  # one call each, since a call takes milliseconds
        axes.scatter(
            [point.x for point in points],
            [point.y for point in points],
            color=colours.get(colour, "#7F7F7F"),
            marker=markers[marker],
            rasterized=len(panel.points) > MOST_OUTLINES,
            s=46,
            alpha=0.85,
            edgecolors="white",
            linewidths=0.6,
            zorder=3,
        )
    if panel.base is not None:
        axes.scatter(*panel.base, marker="*", s=190, color="black", zorder=4)
        axes.annotate("base", panel.base, xytext=(9, -4), textcoords="offset points")
    if panel.log_x:
        axes.set_xscale("log")
    elif all(point.x.is_integer() for point in panel.points):
        from matplotlib.ticker import MaxNLocator

        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if panel.lost:
        axes.update_datalim([(x, panel.points[0].y) for x in panel.lost])
        axes.autoscale_view()
        # Along the bottom edge: a diverged trial has a place on x, and no score.
        axes.scatter(
            panel.lost,
            [0.02] * len(panel.lost),
            transform=axes.get_xaxis_transform(),
            marker="x",
            color="black",
            s=34,
            linewidths=1.3,
            zorder=4,
        )
    axes.set_xlabel(_plain(panel.x_label))
    axes.set_ylabel(panel.y_label)
    axes.margins(x=0.06, y=0.1)
    if panel.title:
        axes.set_title(_plain(panel.title), loc="left", fontsize=10)
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
        entry("diverged", "black", "x")
    if panel.line:
        entries.append(Line2D([], [], color="#7F7F7F", linewidth=1.2, label="front"))
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
    axes.set_title(_plain(panel.title), loc="left", fontsize=10)
    axes.grid(visible=False, axis="y")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=9)
