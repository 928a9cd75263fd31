"""What a figure is made of: the values that both drawers, matplotlib and the page, start from.

Python makes each picture once (`figures/`). `draw.py` writes it as an image for report.md; the page
gets its JSON (`payload.py`) and draws it with `page/figures.js`. Neither looks at the trials or the
analysis again, so both show the same points, the same axes and the same table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from pydantic import Field

from lorasweep.spec.trial import Frozen

# The part of the report that a figure belongs to; also the order in which they are shown.
Section = Literal["sensitivity", "outcome", "history", "spectrum", "diversity"]
LOOKS = 8  # colours and markers that a reader can tell apart
Pairs = tuple[tuple[float, float], ...]


class Axis(Frozen):
    """One axis of a plane, a heat map or parallel coordinates.

    low, high: the range of the values on it; a drawer adds a margin.
    whole: the values are whole numbers, so only those are named.
    levels: names of the positions 0, 1, 2, ...; empty where the axis carries numbers.
    """

    label: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    whole: bool = False
    levels: tuple[str, ...] = ()


class Series(Frozen):
    """Points that look alike.

    look: which colour and marker they have, counted from 0.
    y: None for a trial without a score, which is drawn on a strip below the plane.
    trials: for each point the index of its trial, None where it stands for several or for none.
    rows: for each point its row in the picture's table; empty where the points are trials.
    """

    look: int
    x: tuple[float, ...]
    y: tuple[float | None, ...]
    trials: tuple[int | None, ...] = ()
    rows: tuple[int, ...] = ()


class Line(Frozen):
    """Points joined by a line, or by steps.

    look: that of the series it belongs to; None for a line across all of them, drawn in black.
    dash: which dash pattern it has; 0 is solid.
    """

    points: Pairs
    look: int | None = None
    dash: int = 0
    steps: bool = False


class Interval(Frozen):
    """An upright bar from `low` to `high` through the point of a series."""

    look: int
    x: float
    low: float
    high: float


class Ring(Frozen):
    """A circle around a point; dashed where it is not certain that the point earned it."""

    x: float
    y: float
    certain: bool


class Panel(Frozen):
    """What all kinds of panels have.

    title: above the panel; may be empty where the figure has only one.
    name: what a screen reader calls the plot; alt: what it shows, in a sentence.
    """

    title: str
    name: str
    alt: str


class Plane(Panel):
    """Points, lines and intervals over two axes.

    base: the model before training.
    strip: what a point on the strip below the plane means.
    """

    kind: Literal["plane"] = "plane"
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    lines: tuple[Line, ...] = ()
    intervals: tuple[Interval, ...] = ()
    rings: tuple[Ring, ...] = ()
    base: tuple[float, float] | None = None
    strip: str = ""


class Bar(Frozen):
    """One share with its interval.

    chance: what chance alone can reach; None where that is not known.
    certain: whether the share is above chance.
    row: its row in the picture's table.
    """

    label: str
    value: float
    low: float | None
    high: float | None
    chance: float | None
    certain: bool
    row: int


class Bars(Panel):
    """Shares of a whole, one bar each, from the top."""

    kind: Literal["bars"] = "bars"
    x: Axis
    bars: tuple[Bar, ...]


class Cell(Frozen):
    """The value of one pair of levels, the trial that stands for it, and its row in the table."""

    value: float
    trial: int
    row: int


class Heat(Panel):
    """A value for each pair of levels of two hyperparameters.

    cells: row by row, from the top; None where no trial completed.
    low, high: where the colours begin and end.
    """

    kind: Literal["heat"] = "heat"
    x: Axis
    y: Axis
    cells: tuple[tuple[Cell | None, ...], ...]
    low: float
    high: float


class Parallel(Panel):
    """Trials as lines across upright axes, coloured by their value on the last one.

    values: axis by axis, the value of each line, on an axis of levels its position; None where a
        trial has none. Lines go from the worst trial to the best.
    trials: the index of each line's trial.
    """

    kind: Literal["parallel"] = "parallel"
    axes: tuple[Axis, ...]
    values: tuple[tuple[float | None, ...], ...]
    trials: tuple[int, ...]

    @property
    def shades(self) -> list[float]:
        """How far up the colour ramp each line is, in [0, 1]; 1 where all lines are equal."""
        low, high = self.axes[-1].low, self.axes[-1].high
        last = [value or 0.0 for value in self.values[-1]]
        return [(value - low) / (high - low) if high > low else 1.0 for value in last]


class Key(Frozen):
    """One entry of a legend: what a colour, a marker or a dash pattern means."""

    label: str
    kind: Literal["point", "line", "ramp", "base"]
    look: int | None = None
    dash: int = 0


class Table(Frozen):
    """The numbers behind a figure, as text.

    names: how many leading columns name a row; a tooltip has them as its title.
    """

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    names: int = 1


AnyPanel = Annotated[Plane | Bars | Heat | Parallel, Field(discriminator="kind")]


class Picture(Frozen):
    """One figure of the report.

    file: name of its image without the ending; begins with the domain, where there is one.
    missing: why there is nothing to draw; empty where there are panels.
    caption: what it shows and how to read it, in sentences.
    wide: each panel takes the whole width of the page.
    trials: indices of the trials whose facts are the figure's table, in its order.
    table: the figure's table where its rows are not trials.
    tabled: report.md has these numbers, or a summary, in a section of their own, so not again below
        the figure.
    """

    name: str
    section: Section
    title: str
    file: str = ""
    missing: str = ""
    caption: str = ""
    legend: tuple[Key, ...] = ()
    panels: tuple[AnyPanel, ...] = ()
    wide: bool = False
    trials: tuple[int, ...] = ()
    table: Table | None = None
    tabled: bool = False

    def drawn(
        self,
        panels: Sequence[Plane | Bars | Heat | Parallel],
        caption: str,
        *,
        legend: Sequence[Key] = (),
        trials: Iterable[int] = (),
        table: Table | None = None,
    ) -> Picture:
        """Fill in what is drawn, in place of what was missing."""
        content = {"panels": tuple(panels), "caption": caption, "legend": tuple(legend)}
        data = {"trials": tuple(trials), "table": table}
        return self.model_copy(update={**content, **data, "missing": ""})

    @property
    def alt(self) -> str:
        """What the panels show, in sentences, for those who do not see the image."""
        return " ".join(panel.alt for panel in self.panels)
