import pytest
from PIL import Image

from lorasweep.report.draw import draw
from lorasweep.report.panels import MOST_OUTLINES
from lorasweep.report.picture import Axis, Bar, Bars, Heat, Parallel, Picture, Point, Scatter
from tests.report.pages import HOSTILE


def one_of(panel):
    return Picture("figure", "A caption", "What it shows.", (panel,))


def scatter(points, **further):
    return Scatter(
        title="lora",
        x_label="x",
        y_label="y",
        points=tuple(Point(x, y, "", "") for x, y in points),
        colour_name="",
        colours=("",),
        marker_name="",
        markers=("",),
        **further,
    )


def heat(columns, cells, low=0.0, high=1.0):
    rows = tuple(f"row {i}" for i in range(len(cells)))
    return Heat("best of lora", "rank", "targets", tuple(columns), rows, tuple(cells), low, high)


PANELS = {
    "one point": scatter([(0.0, 0.5)], line=((0.0, 0.5), (0.0, 0.5)), reach=(0.5, 0.5)),
    "only one number": scatter([(0.3, 0.5)] * 2),
    "many points": scatter([(i, i % 7) for i in range(1, MOST_OUTLINES + 2)], log_x=True),
    "lost": scatter([(1.0, 0.5)], lost=(2.0, 3.0), lost_name="no score"),
    "bars": Bars("lora", (Bar("lr", 0.5, 0.2, 0.8, 0.1),)),
    "cells": heat(["4", "16"], [(0.1, None), (0.2, 0.3)]),
    "equal cells": heat(["4"], [(0.5,)], 0.5, 0.5),
    "long names": heat([f"{name} {name}" for name in HOSTILE], [(0.1,) * len(HOSTILE)] * 2),
    "wide numbers": heat("abcdefghijkl", [(-1.2345e99,) * 12] * 12, -1.2345e99, 0.0),
    "lines": Parallel(
        "2 trials of lora",
        (
            Axis("lr", low=1e-5, high=1e-2, log=True),
            Axis("narrow", low=1.0, high=1.5, log=True),
            Axis("wide", low=1e-9, high=1e9, log=True),
            Axis("targets", levels=tuple(HOSTILE * 3)),
            Axis("same", low=3.0, high=3.0),
            Axis("learning", low=-0.5, high=0.5),
        ),
        ((1e-5, 1.0, 1e-9, None, 3.0, -0.5), (1e-2, 1.5, 1e9, 26.0, 3.0, 0.5)),
        (0.0, 1.0),
    ),
    "one axis": Parallel("1 trial", (Axis("learning"),), ((0.5,),), (1.0,)),
}


@pytest.mark.parametrize("panel", PANELS.values(), ids=PANELS.keys())
def test_any_panel_is_drawn_the_same_each_time(panel, tmp_path):
    first = draw(one_of(panel), tmp_path)
    again = [path.read_bytes() for path in first]
    assert [path.read_bytes() for path in draw(one_of(panel), tmp_path)] == again


def test_each_figure_is_drawn_twice(tmp_path):
    png, svg = draw(one_of(PANELS["bars"]), tmp_path)
    assert png.read_bytes().startswith(b"\x89PNG")
    assert svg.read_text(encoding="utf-8").startswith("<?xml")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figure.png", "figure.svg"]


@pytest.mark.parametrize("name", ["cells", "lines", "lost"])
def test_nothing_is_cut_off_at_the_border_and_the_ground_is_white(name, tmp_path):
    png, _ = draw(one_of(PANELS[name]), tmp_path)
    image = Image.open(png).convert("RGB")
    width, height = image.size
    border = [(x, y) for x in range(width) for y in (0, height - 1)]
    border += [(x, y) for y in range(height) for x in (0, width - 1)]
    assert {image.getpixel(place) for place in border} == {(255, 255, 255)}
