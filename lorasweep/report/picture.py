"""What a figure is made of: points in a plane, bars, panels side by side."""

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
    line: points joined in order; base: the model before tuning; lost: x of diverged trials.
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
class Picture:
    """Hold one figure: panels side by side, its file name, its heading and alternative text."""

    name: str
    caption: str
    alt: str
    panels: tuple[Scatter | Bars, ...]
