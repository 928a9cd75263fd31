import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from lorasweep.report.draw import draw
from lorasweep.report.panels import draw_panel
from lorasweep.report.panels.style import MOST_OUTLINES
from lorasweep.report.picture import (
    Axis,
    Bar,
    Bars,
    Cell,
    Heat,
    Interval,
    Key,
    Line,
    Parallel,
    Picture,
    Plane,
    Ring,
    Series,
)
from tests.report.pages import HOSTILE

NAMES = {"title": "lora", "name": "A plot", "alt": "What it shows."}


def one_of(panel):
    return Picture(
        name="figure",
        file="figure",
        section="outcome",
        title="A figure",
        caption="A caption.",
        panels=(panel,),
        legend=(
            Key(label="a point $x$", kind="point", look=9),
            Key(label="a front", kind="line", dash=5),
            Key(label="base model", kind="base"),
            Key(label="low to high", kind="ramp"),
        ),
    )


def plane(points, *, log=False, **further):
    x = [x for x, _ in points]
    y = [y for _, y in points if y is not None]
    return Plane(
        **NAMES,
        x=Axis(label="x", low=min(x), high=max(x), log=log),
        y=Axis(label="y", low=min(y), high=max(y)),
        series=(Series(look=0, x=tuple(x), y=tuple(y for _, y in points)),),
        **further,
    )


def heat(columns, cells, low=0.0, high=1.0):
    return Heat(
        **NAMES,
        x=Axis(label="rank", levels=tuple(columns)),
        y=Axis(label="targets", levels=tuple(f"row {i}" for i in range(len(cells)))),
        cells=tuple(
            tuple(None if v is None else Cell(value=v, trial=0, row=0) for v in line)
            for line in cells
        ),
        low=low,
        high=high,
    )


def bar(value, low, high, chance, certain=True):
    return Bar(label="lr", value=value, low=low, high=high, chance=chance, certain=certain, row=0)


PANELS = {
    "one point": plane([(0.0, 0.5)], lines=(Line(points=((0.0, 0.5), (0.0, 0.5)), steps=True),)),
    "only one number": plane([(0.3, 0.5)] * 2),
    "many points": plane([(i, i % 7) for i in range(1, MOST_OUTLINES + 2)], log=True),
    "lost": plane([(1.0, 0.5), (2.0, None), (3.0, None)], strip="no score"),
    "everything": plane(
        [(1.0, 0.5), (2.0, 0.7)],
        lines=(Line(points=((1.0, 0.5), (2.0, 0.7)), look=12, dash=2),),
        intervals=(Interval(look=1, x=1.0, low=0.4, high=0.6),),
        rings=(Ring(x=1.0, y=0.5, certain=False), Ring(x=2.0, y=0.7, certain=True)),
        base=(1.5, 0.6),
    ),
    "bars": Bars(**NAMES, x=Axis(label="share"), bars=(bar(0.5, 0.2, 0.8, 0.1),)),
    "bars beside their intervals": Bars(
        **NAMES,
        x=Axis(label="share", high=1.2),
        bars=(bar(0.5, 0.6, 1.2, 1.5, certain=False), bar(0.1, None, None, None)),
    ),
    "cells": heat(["4", "16"], [(0.1, None), (0.2, 0.3)]),
    "equal cells": heat(["4"], [(0.5,)], 0.5, 0.5),
    "long names": heat([f"{name} {name}" for name in HOSTILE], [(0.1,) * len(HOSTILE)] * 2),
    "wide numbers": heat("abcdefghijkl", [(-1.2345e99,) * 12] * 12, -1.2345e99, 0.0),
    "lines": Parallel(
        **NAMES,
        axes=(
            Axis(label="lr", low=1e-5, high=1e-2, log=True),
            Axis(label="narrow", low=1.0, high=1.5, log=True),
            Axis(label="wide", low=1e-9, high=1e9, log=True),
            Axis(label="targets", levels=tuple(HOSTILE * 3)),
            Axis(label="same", low=3.0, high=3.0),
            Axis(label="learning", low=-0.5, high=0.5),
        ),
        values=((1e-5, 1e-2), (1.0, 1.5), (1e-9, 1e9), (None, 26.0), (3.0, 3.0), (-0.5, 0.5)),
        trials=(0, 1),
    ),
    "many lines": Parallel(
        **NAMES,
        axes=(Axis(label="lr", low=0, high=9), Axis(label="learning", low=0, high=9e9)),
        values=((5.0,) * (MOST_OUTLINES + 1), tuple(map(float, range(MOST_OUTLINES + 1)))),
        trials=tuple(range(MOST_OUTLINES + 1)),
    ),
    "one axis": Parallel(**NAMES, axes=(Axis(label="learning"),), values=((0.5,),), trials=(0,)),
}


@pytest.mark.parametrize("panel", PANELS.values(), ids=PANELS.keys())
def test_any_panel_is_drawn_the_same_each_time(panel, tmp_path):
    first = draw(one_of(panel), tmp_path)
    again = [path.read_bytes() for path in first]
    assert [path.read_bytes() for path in draw(one_of(panel), tmp_path)] == again


def test_the_image_has_every_mark_of_a_plane():
    points = [(1.0, 0.5), (2.0, 0.7), (3.0, None), (4.0, 0.1)]
    figure = Figure()
    axes = figure.subplots()
    draw_panel(axes, plane(points, strip="no score"), 0)
    first, second = axes.lines
    assert np.asarray(first.get_xdata()).tolist() == [1.0, 2.0, 4.0]
    assert np.asarray(first.get_ydata()).tolist() == [0.5, 0.7, 0.1]
    assert np.asarray(second.get_xdata()).tolist() == [3.0]


def test_an_image_of_very_many_trials_has_a_line_for_some_and_a_note():
    axes = Figure().subplots()
    count = 7001
    panel = Parallel(
        **NAMES,
        axes=(Axis(label="lr", low=0, high=9), Axis(label="learning", low=0, high=count - 1)),
        values=((5.0,) * count, tuple(map(float, range(count)))),
        trials=tuple(range(count)),
    )
    draw_panel(axes, panel, 0)
    (lines,) = axes.collections
    paths = lines.get_paths()
    assert len(paths) == 150
    ends = [np.asarray(path.vertices)[-1, 1] for path in paths]
    assert (ends[0], ends[-1]) == pytest.approx((0.03, 0.97))
    assert np.diff(ends) == pytest.approx(0.94 / 149, rel=0.03)
    note = "150 of 7,001 trials are drawn, evenly from the worst to the best"
    assert note in [text.get_text() for text in axes.texts]


def test_each_figure_is_drawn_twice(tmp_path):
    png, svg = draw(one_of(PANELS["bars"]), tmp_path)
    assert png.read_bytes().startswith(b"\x89PNG")
    assert svg.read_text(encoding="utf-8").startswith("<?xml")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figure.png", "figure.svg"]


@pytest.mark.parametrize("name", ["cells", "lines", "lost", "everything"])
def test_nothing_is_cut_off_at_the_border_and_the_ground_is_white(name, tmp_path):
    png, _ = draw(one_of(PANELS[name]), tmp_path)
    image = Image.open(png).convert("RGB")
    width, height = image.size
    border = [(x, y) for x in range(width) for y in (0, height - 1)]
    border += [(x, y) for y in range(height) for x in (0, width - 1)]
    assert {image.getpixel(place) for place in border} == {(255, 255, 255)}
