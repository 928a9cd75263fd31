"""Shares as bars, each with its interval and with what chance can reach."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lorasweep.report.panels.style import COLOURS, plain
from lorasweep.report.picture import Bars

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_bars(axes: Axes, panel: Bars, slots: int) -> None:
    """Draw bars of one thickness in all panels; `slots` is the most that one of them has."""
    bars = panel.bars
    places = [len(bars) - 1 - i for i in range(len(bars))]
    for place, bar in zip(places, bars, strict=True):
        axes.barh(
            place,
            bar.value,
            height=0.6,
            color=COLOURS[0] if bar.certain else "#F3F0E8",
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
                color=COLOURS[1],
                linewidth=2,
                linestyle=(0, (2, 1)),
                zorder=4,
            )
    axes.set_yticks(places, [plain(bar.label) for bar in bars])
    axes.set_xlim(panel.x.low, panel.x.high)
    axes.set_ylim(len(bars) - slots - 0.6, len(bars) - 0.4)
    axes.set_xlabel(plain(panel.x.label))
    axes.grid(visible=False, axis="y")
