"""A value for each pair of levels, as coloured cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lorasweep.report.panels.style import LONGEST_LABEL, RAMP, plain
from lorasweep.report.picture import Heat
from lorasweep.report.wording import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DARK = 0.55  # share of the ramp from which text is white


def is_slanted(panel: Heat) -> bool:
    """Judge whether the names of a heat map's columns are too long to stand side by side."""
    return max(len(name) for name in panel.x.levels) > max(3, 60 // len(panel.x.levels))


def draw_heat(axes: Axes, panel: Heat) -> None:
    """Draw the cells with their values; a cell without a trial is grey."""
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
    ramp, hole = colormaps[RAMP], (0.9, 0.9, 0.9, 1.0)
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
