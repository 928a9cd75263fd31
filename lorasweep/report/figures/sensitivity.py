"""Which hyperparameters matter: alone, near the top, and two together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count

from lorasweep.analysis.result import Analysis
from lorasweep.analysis.sensitivity.importance import Ranking, Sensitivity
from lorasweep.report.picture import Axis, Bar, Bars, Picture, Table
from lorasweep.report.wording import UNKNOWN, number, percent, plural

_MOST_BARS = 12  # pairs of hyperparameters are many; the table has them all

RANKING_HEADS = (
    *("hyperparameter", "rank", "share of variance", "90% interval", "by chance up to"),
    *("rank holds in", "best minus worst level", "90% interval of that"),
    *("best level", "worst level"),
)


def ranking_cells(row: Sensitivity) -> tuple[str, ...]:
    """Write one row of a ranking, under `RANKING_HEADS`."""
    tied = f" (tie with {', '.join(row.tied_with)})" if row.tied_with else ""
    return (
        row.hyperparameter,
        f"{row.rank}{tied}" if row.above_chance else "cannot tell",
        *(percent(row.importance), between(row.low, row.high), percent(row.chance)),
        *(percent(row.rank_probability), number(row.effect)),
        f"{number(row.effect_low)} to {number(row.effect_high)}",
        *(row.best_level, row.worst_level),
    )


def between(low: float, high: float) -> str:
    """Write the bounds of a share."""
    return f"{percent(low)} to {percent(high)}"


def sensitivity(analysis: Analysis) -> Picture:
    """Show how much of the variance of learning each hyperparameter explains."""
    title = "Which hyperparameters move learning"
    # A single hyperparameter has the whole variance to itself, which needs no bar.
    ranked = [ranking for ranking in analysis.rankings.values() if len(ranking.rows) > 1]
    if not ranked:
        return Picture(
            name="sensitivity",
            section="sensitivity",
            title=title,
            missing="A ranking of hyperparameters needs several of them and enough completed "
            "trials.",
        )
    rows: list[tuple[str, ...]] = []
    panels = []
    for ranking in ranked:
        bars = []
        for row in ranking.rows:
            bars.append(
                Bar(
                    label=row.hyperparameter,
                    value=row.importance,
                    low=row.low,
                    high=row.high,
                    chance=row.chance,
                    certain=row.above_chance,
                    row=len(rows),
                )
            )
            rows.append((ranking.method, *ranking_cells(row)))
        design = f"{ranking.design}, {plural(ranking.configurations, 'configuration')}"
        panels.append(
            _panel(
                f"{ranking.method}: {design}",
                f"Sensitivity of {ranking.method}",
                ranking.method,
                "share of the variance of learning",
                bars,
            )
        )
    return Picture(
        name="sensitivity",
        section="sensitivity",
        title=title,
        caption=f"{' '.join(_first(ranking) for ranking in ranked)} Whiskers hold the middle 90% "
        "of redrawn samples; the dashed tick is what chance alone can reach, and a pale bar with a "
        "dashed outline is not above it.",
        panels=tuple(panels),
        table=Table(heads=("method", *RANKING_HEADS), rows=tuple(rows), names=2),
        tabled=True,
    )


def _first(ranking: Ranking) -> str:
    sure = [row for row in ranking.rows if row.above_chance]
    if not sure:
        return f"For {ranking.method}, no effect stands out from chance."
    return (
        f"For {ranking.method}, {sure[0].hyperparameter} comes first with "
        f"{percent(sure[0].importance)} ({between(sure[0].low, sure[0].high)})."
    )


def _panel(title: str, name: str, method: str, axis: str, bars: Sequence[Bar]) -> Bars:
    sentences = [
        f"{bar.label} {percent(bar.value)}"
        + (
            f" ({between(bar.low, bar.high)})"
            if bar.low is not None and bar.high is not None
            else ""
        )
        for bar in bars
    ]
    most = max(1.0, *(bar.high or bar.value for bar in bars))
    return Bars(
        title=title,
        name=name,
        alt=f"{method}: {', '.join(sentences)}.",
        x=Axis(label=axis, high=most),
        bars=tuple(bars),
    )


def top(analysis: Analysis) -> Picture:
    """Show what sets the best trials apart from the rest."""
    rows = count()
    return _shares(
        Picture(
            name="top",
            section="sensitivity",
            title="What it takes to be among the best",
            missing="What sets the best trials apart needs several hyperparameters and enough "
            "completed trials.",
            caption="Another question than the variance over all trials: which hyperparameters set "
            "the best trials apart from the rest.",
        ),
        "hyperparameter",
        "importance near the top",
        {
            method: [
                Bar(
                    label=row.hyperparameter,
                    value=row.importance,
                    low=row.low,
                    high=row.high,
                    chance=None,  # that of a ranking near the top is a divergence, not a share
                    certain=row.above_chance,
                    row=next(rows),
                )
                for row in ranking.rows
            ]
            for method, ranking in analysis.top.items()
        },
    )


def interactions(analysis: Analysis) -> Picture:
    """Show what two hyperparameters explain only together."""
    rows = count()
    return _shares(
        Picture(
            name="interactions",
            section="sensitivity",
            title="Which hyperparameters work together",
            missing="What two hyperparameters do together needs more completed trials.",
            caption="The share of the variance of learning that two hyperparameters explain only "
            "together, beyond what each does alone.",
        ),
        "hyperparameters",
        "share of the variance",
        {
            method: [
                Bar(
                    label=" \N{MULTIPLICATION SIGN} ".join(row.hyperparameters),
                    value=row.importance,
                    low=row.low,
                    high=row.high,
                    chance=row.chance,
                    certain=row.above_chance,
                    row=next(rows),
                )
                for row in ranking.interactions
            ]
            for method, ranking in analysis.rankings.items()
        },
    )


def _shares(frame: Picture, what: str, axis: str, found: Mapping[str, Sequence[Bar]]) -> Picture:
    """Complete a picture with one panel of bars for each method that has any."""
    shown = {method: bars for method, bars in found.items() if bars}
    if not shown:
        return frame.model_copy(update={"caption": ""})
    panels = tuple(
        _panel(method, f"{frame.title}: {method}", method, axis, bars[:_MOST_BARS])
        for method, bars in shown.items()
    )
    rows = tuple(
        (
            *(method, bar.label, percent(bar.value)),
            UNKNOWN if bar.low is None or bar.high is None else between(bar.low, bar.high),
            *([] if bar.chance is None else [percent(bar.chance)]),
        )
        for method, bars in shown.items()
        for bar in bars
    )
    heads = (
        "method",
        what,
        axis,
        "90% interval",
        *(["by chance up to"] if len(rows[0]) > 4 else []),
    )
    return frame.model_copy(
        update={
            "missing": "",
            "panels": panels,
            "table": Table(heads=heads, rows=rows, names=2),
        }
    )
