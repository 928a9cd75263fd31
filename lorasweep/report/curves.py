"""Learning and forgetting over duration, as a figure."""

from __future__ import annotations

from lorasweep.analysis.summary import Analysis
from lorasweep.analysis.tradeoff.curves import Curve
from lorasweep.report.picture import Picture, Point, Scatter
from lorasweep.report.wording import level

MOST_CURVES = 8  # that a reader can tell apart by their colours


def draw_curves(analysis: Analysis) -> Picture | None:
    """Show the curves that reach highest, one panel for each outcome."""
    highest = sorted(analysis.curves, key=lambda curve: -max(p.learning for p in curve.points))
    shown = highest[:MOST_CURVES]
    if not shown:
        return None
    panels = [_panel(shown, "learning"), _panel(shown, "forgetting")]
    left_out = len(highest) - len(shown)
    more = f"; {left_out} that stay lower are left out" if left_out else ""
    return Picture(
        name="curves",
        caption=f"Learning and forgetting over {shown[0].duration}, seeds averaged{more}",
        alt="; ".join(_said(curve) for curve in shown) + ".",
        panels=tuple(panel for panel in panels if panel.points),
    )


def _name(curve: Curve) -> str:
    settings = " ".join(f"{name}={level(value)}" for name, value in curve.configuration.items())
    return f"{curve.method} {settings}".strip()


def _panel(curves: list[Curve], outcome: str) -> Scatter:
    points = [
        Point(float(point.at), float(value), _name(curve), curve.method)
        for curve in curves
        for point in curve.points
        if (value := getattr(point, outcome)) is not None
    ]
    durations = [point.x for point in points]
    return Scatter(
        title="",
        x_label=curves[0].duration,
        y_label=outcome,
        points=tuple(points),
        colour_name="trials of",
        colours=tuple(dict.fromkeys(_name(curve) for curve in curves)),
        marker_name="method",
        markers=tuple(dict.fromkeys(curve.method for curve in curves)),
        log_x=bool(durations) and min(durations) > 0 and max(durations) >= 10 * min(durations),
    )


def _said(curve: Curve) -> str:
    first, last = curve.points[0], curve.points[-1]
    return (
        f"{_name(curve)}: learning {first.learning:.3f} at {level(first.at)} and "
        f"{last.learning:.3f} at {level(last.at)}"
    )
