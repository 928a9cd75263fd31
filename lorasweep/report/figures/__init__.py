"""The figures: each made once, from trials and analysis, for report.md and for the page."""

from __future__ import annotations

from urllib.parse import quote

from lorasweep.analysis.result import Analysis
from lorasweep.report.figures.curves import curves
from lorasweep.report.figures.diversity import diversity
from lorasweep.report.figures.heat_map import heat_map
from lorasweep.report.figures.history import history
from lorasweep.report.figures.learning_rate import learning_rate
from lorasweep.report.figures.parallel import parallel_coordinates
from lorasweep.report.figures.sensitivity import interactions, sensitivity, top
from lorasweep.report.figures.spectrum import spectrum
from lorasweep.report.figures.trade_off import trade_off
from lorasweep.report.picture import Picture
from lorasweep.store.results import SweepResults

_MOST_PANELS = 24


def pictures(results: SweepResults, analysis: Analysis) -> tuple[Picture, ...]:
    """Make every figure of a sweep, or of one of its domains; one without data says why."""
    found = (
        sensitivity(analysis),
        top(analysis),
        interactions(analysis),
        learning_rate(results, analysis),
        heat_map(results, analysis),
        parallel_coordinates(results, analysis),
        trade_off(results, analysis),
        curves(analysis),
        history(results, analysis),
        spectrum(results, analysis),
        diversity(results, analysis),
    )
    # A table may name a domain like a path.
    prefix = f"{quote(results.domain, safe='').replace('%', '_')}-" if results.domain else ""
    return tuple(
        _cut(picture).model_copy(update={"file": f"{prefix}{picture.name}"}) for picture in found
    )


def _cut(picture: Picture) -> Picture:
    """Leave out panels that no image has room for; a table may hold any number of methods."""
    if (more := len(picture.panels) - _MOST_PANELS) <= 0:
        return picture
    caption = f"{picture.caption} {more} further panels are left out."
    return picture.model_copy(update={"caption": caption, "panels": picture.panels[:_MOST_PANELS]})
