"""Learning and forgetting over the duration of training."""

from __future__ import annotations

from collections.abc import Sequence

from lorasweep.analysis.result import Analysis
from lorasweep.analysis.tradeoff.curves import Curve, CurvePoint
from lorasweep.report.figures.trials import axis_over
from lorasweep.report.picture import LOOKS, Interval, Key, Line, Picture, Plane, Series, Table
from lorasweep.report.wording import level, number

_FIGURE = Picture(
    name="curves",
    section="outcome",
    title="Over the duration of training",
    missing="Curves over duration need one configuration trained for several durations.",
)


def curves(analysis: Analysis) -> Picture:
    """Show the curves that reach highest, one panel for each outcome."""
    highest = sorted(analysis.curves, key=lambda curve: -max(p.learning for p in curve.points))
    shown = highest[:LOOKS]
    if not shown:
        return _FIGURE
    panels = [_panel(shown, outcome) for outcome in ("learning", "forgetting")]
    left_out = len(highest) - len(shown)
    more = f" {left_out} configurations that stay lower are left out." if left_out else ""
    return _FIGURE.drawn(
        tuple(panel for panel in panels if panel.series),
        "How learning and forgetting go on with more training, seeds averaged; bars are "
        f"the range over several seeds.{more}",
        legend=tuple(
            Key(label=_name(curve), kind="point", look=look) for look, curve in enumerate(shown)
        ),
        table=_table(highest),
    )


def _settings(curve: Curve) -> str:
    return ", ".join(f"{name}={level(value)}" for name, value in curve.configuration.items())


def _name(curve: Curve) -> str:
    return f"{curve.method} {_settings(curve)}".strip()


def _table(curves: Sequence[Curve]) -> Table:
    """List every point of every curve, those that are drawn first."""
    outcomes = ("learning", "range over seeds", "forgetting", "range over seeds")
    return Table(
        heads=("method", "trials of", curves[0].duration, "n", *outcomes),
        rows=tuple(
            (
                *(curve.method, _settings(curve), level(point.at), str(point.n)),
                *(number(point.learning), _range(point.learning_low, point.learning_high)),
                *(number(point.forgetting), _range(point.forgetting_low, point.forgetting_high)),
            )
            for curve in curves
            for point in curve.points
        ),
        names=3,
    )


def _range(low: float | None, high: float | None) -> str:
    return f"{number(low)} to {number(high)}" if low is not None and high is not None else ""


def _outcome(point: CurvePoint, outcome: str) -> tuple[float | None, float | None, float | None]:
    """Look up an outcome, and its lowest and highest value over the seeds."""
    if outcome == "learning":
        return point.learning, point.learning_low, point.learning_high
    return point.forgetting, point.forgetting_low, point.forgetting_high


def _panel(curves: Sequence[Curve], outcome: str) -> Plane:
    series: list[Series] = []
    lines: list[Line] = []
    intervals: list[Interval] = []
    sentences: list[str] = []
    first_row = 0
    for look, curve in enumerate(curves):
        found = [
            (first_row + i, float(point.at), value, *bounds)
            for i, point in enumerate(curve.points)
            for value, *bounds in [_outcome(point, outcome)]
            if value is not None
        ]
        first_row += len(curve.points)
        if not found:
            continue
        rows, at, values, low, high = zip(*found, strict=True)
        series.append(Series(look=look, x=at, y=values, rows=rows, trials=(None,) * len(at)))
        lines.append(Line(points=tuple(zip(at, values, strict=True)), look=look, dash=look % 4))
        intervals += [
            Interval(look=look, x=x, low=below, high=above)
            for x, below, above in zip(at, low, high, strict=True)
            if below is not None and above is not None
        ]
        sentences.append(
            f"{_name(curve)}: {outcome} {number(values[0])} at {level(at[0])}, "
            f"{number(values[-1])} at {level(at[-1])}"
        )
    ends = [end for interval in intervals for end in (interval.low, interval.high)]
    duration = curves[0].duration
    return Plane(
        title=outcome,
        name=f"{outcome} over {duration}",
        alt=f"{'; '.join(sentences)}.",
        x=axis_over(duration, [x for own in series for x in own.x], log=None),
        y=axis_over(outcome, [*(y for own in series for y in own.y), *ends]),
        series=tuple(series),
        lines=tuple(lines),
        intervals=tuple(intervals),
    )
