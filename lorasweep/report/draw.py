"""Pictures drawn by matplotlib, without a display; the same picture gives the same bytes."""

from __future__ import annotations

import io
import logging
import math
import warnings
from pathlib import Path
from typing import Any

from lorasweep.report.panels import draw_panel
from lorasweep.report.panels.heat import is_slanted
from lorasweep.report.panels.style import key_line
from lorasweep.report.picture import Bars, Heat, Parallel, Picture

_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "lorasweep",  # without it the elements of an SVG get random names
    "svg.fonttype": "path",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E5E5E5",
    "axes.axisbelow": True,
}
_DPI = 150
_KEY_WIDTH = 3.2  # inches that an entry of a legend may take
_TONES = 256  # colours of a PNG: a palette makes the file a quarter as large


def draw(picture: Picture, folder: Path) -> tuple[Path, Path]:
    """Draw a picture to FILE.png and FILE.svg, each replaced as a whole."""
    # It complains about a home that cannot be written, and manages without one.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns, width, height = _shape(picture)
    rows = math.ceil(len(picture.panels) / columns)
    slots = max(len(p.bars) if isinstance(p, Bars) else 0 for p in picture.panels)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width * columns, height * rows), dpi=_DPI)
        canvas = FigureCanvasAgg(figure)
        axes = figure.subplots(rows, columns, squeeze=False)
        for index, panel in enumerate(picture.panels):
            draw_panel(axes[index // columns][index % columns], panel, slots)
        for index in range(len(picture.panels), rows * columns):
            axes[index // columns][index % columns].set_axis_off()
        if keys := [key_line(key) for key in picture.legend if key.kind != "ramp"]:
            figure.legend(
                handles=keys,
                loc="outside upper left",
                ncols=max(1, int(width * columns / _KEY_WIDTH)),
                frameon=False,
                fontsize=9,
            )
        with warnings.catch_warnings():
            # Names in a script that the font lacks are drawn as boxes; the tables have them.
            warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
            # Lay out once for both files, since that takes longest.
            ConstrainedLayoutEngine().execute(figure)
            pixels, outlines = io.BytesIO(), io.BytesIO()
            figure.savefig(pixels, format="rgba", dpi=_DPI)
            figure.savefig(outlines, format="svg", dpi=_DPI, metadata={"Date": None})
    image = _compress(pixels.getvalue(), canvas.get_width_height())
    return (
        _write(folder / f"{picture.file}.png", image),
        _write(folder / f"{picture.file}.svg", outlines.getvalue()),
    )


def _compress(pixels: bytes, size: tuple[int, int]) -> bytes:
    """Encode RGBA pixels as a PNG with a palette; `size` is width and height."""
    from PIL import Image  # a dependency of matplotlib, which writes its PNGs with it

    drawn = Image.frombytes("RGBA", size, pixels)
    few = drawn.convert("RGB").quantize(
        _TONES, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE
    )
    # Quantising merges the background with nearly white pixels; it must stay white.
    palette, corner = few.getpalette() or [], few.getpixel((0, 0))
    if isinstance(corner, int):
        palette[3 * corner : 3 * corner + 3] = [255] * 3
        few.putpalette(palette)
    content = io.BytesIO()
    few.save(content, format="png", dpi=(_DPI, _DPI))
    return content.getvalue()


def _shape(picture: Picture) -> tuple[int, float, float]:
    """Choose how many panels are in a row, and the width and height of one, in inches."""
    panels = picture.panels
    most = len(panels)
    if isinstance(panels[0], Bars):
        deepest = max(len(p.bars) for p in panels if isinstance(p, Bars))
        return min(3, most), 6.6, 1.4 + 0.42 * deepest
    if isinstance(panels[0], Heat):  # two belong together
        heats = [p for p in panels if isinstance(p, Heat)]
        below = 0.7 if any(is_slanted(heat) for heat in heats) else 0.0
        return min(2, most), 6.0, 1.2 + below + 0.42 * max(len(heat.cells) for heat in heats)
    if isinstance(panels[0], Parallel):
        return 1, 9.0, 3.2
    if picture.wide:
        return 1, 8.5, 5.0
    return min(3, most), 6.6 if most < 3 else 5.4, 4.2


def _write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    part.replace(path)
    return path
