"""What a figure is made of: points in a plane, bars, cells, lines; panels side by side."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Point:
    """Hold one trial in a plane, with the groups that its colour and marker stand for."""

    x: float
    y: float
    colour: str
    marker: str


@dataclass(frozen=True, slots=True)
class Scatter:
    """Hold trials in a plane.

    colours, markers: groups in their order; colour_name, marker_name: what they stand for.
    line: points joined in order; base: the model before tuning; lost: x of trials without a score.
    line_name, lost_name: what these two stand for.
    reach: lowest and highest y that the panel must hold, to compare it with others.
    """

    title: str
    x_label: str
    y_label: str
    points: tuple[Point, ...]
    colour_name: str
    colours: tuple[str, ...]
    marker_name: str
    markers: tuple[str, ...]
    log_x: bool = False
    line: tuple[tuple[float, float], ...] = ()
    base: tuple[float, float] | None = None
    lost: tuple[float, ...] = ()
    line_name: str = "front"
    lost_name: str = "diverged"
    reach: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Bar:
    """Hold one hyperparameter's share with its interval, and what chance could make of it."""

    label: str
    value: float
    low: float
    high: float
    chance: float


@dataclass(frozen=True, slots=True)
class Bars:
    """Hold one method's sensitivities."""

    title: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Heat:
    """Hold a value for each pair of levels of two hyperparameters.

    columns, rows: names of the levels; x_label, y_label: of what.
    cells: row by row, from the top; None where no trial completed.
    low, high: where the colours begin and end.
    """

    title: str
    x_label: str
    y_label: str
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    cells: tuple[tuple[float | None, ...], ...]
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Axis:
    """Hold one upright axis of parallel coordinates.

    levels: names from the bottom, on which a line's value is the index; empty where it is a number.
    low, high: ends of the numbers; log: whether these have a logarithmic scale.
    """

    name: str
    levels: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 1.0
    log: bool = False


@dataclass(frozen=True, slots=True)
class Parallel:
    """Hold trials as lines across upright axes.

    lines: a value for each axis, None where a trial has none; from the worst trial to the best.
    shades: what colours the lines, each in [0, 1].
    """

    title: str
    axes: tuple[Axis, ...]
    lines: tuple[tuple[float | None, ...], ...]
    shades: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """Hold one figure: panels side by side, its file name, its heading and alternative text."""

    name: str
    caption: str
    alt: str
    panels: tuple[Scatter | Bars | Heat | Parallel, ...]
