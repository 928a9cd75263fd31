"""Panels drawn into the axes of a matplotlib figure, a module for each kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lorasweep.report.panels.bars import draw_bars
from lorasweep.report.panels.heat import draw_heat
from lorasweep.report.panels.parallel import draw_parallel
from lorasweep.report.panels.plane import draw_plane
from lorasweep.report.panels.style import plain
from lorasweep.report.picture import Bars, Heat, Parallel, Plane

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LONGEST_TITLE = 60


def draw_panel(axes: Axes, panel: Plane | Bars | Heat | Parallel, slots: int) -> None:
    """Draw a panel of any kind; `slots` is the largest number of bars in a panel of the figure."""
    if isinstance(panel, Bars):
        draw_bars(axes, panel, slots)
    elif isinstance(panel, Heat):
        draw_heat(axes, panel)
    elif isinstance(panel, Parallel):
        draw_parallel(axes, panel)
    else:
        draw_plane(axes, panel)
    if panel.title:
        above = 24 if isinstance(panel, Parallel) else 6  # leaves room for the names of the axes
        axes.set_title(plain(panel.title, _LONGEST_TITLE), loc="left", fontsize=10, pad=above)
