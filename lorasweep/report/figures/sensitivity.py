"""Which hyperparameters matter: alone, near the top, and two together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count

from lorasweep.analysis.intervals import INTERVAL
from lorasweep.analysis.result import Analysis
from lorasweep.analysis.sensitivity.importance import Ranking, Sensitivity
from lorasweep.analysis.sensitivity.interactions import Interaction
from lorasweep.analysis.sensitivity.top import TopImportance
from lorasweep.report.picture import Axis, Bar, Bars, Picture, Table
from lorasweep.report.wording import UNKNOWN, number, percent, plural

_SENSITIVITY = Picture(
    name="sensitivity",
    section="sensitivity",
    title="Which hyperparameters move learning",
    missing="A ranking of hyperparameters needs several of them and enough completed trials.",
    tabled=True,
)
_TOP = Picture(
    name="top",
    section="sensitivity",
    title="What it takes to be among the best",
    missing="A ranking near the top needs several hyperparameters and more completed trials.",
)
_INTERACTIONS = Picture(
    name="interactions",
    section="sensitivity",
    title="Which hyperparameters work together",
    missing="Interactions of two hyperparameters need more completed trials.",
)
_TIMES = "\N{MULTIPLICATION SIGN}"
_MOST_BARS = 12  # pairs of hyperparameters are many; the table has them all

RANKING_HEADS = (
    *("hyperparameter", "rank", "share of variance", INTERVAL, "by chance up to"),
    *("rank holds in", "best minus worst level", f"{INTERVAL} of that"),
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


def _bar(
    label: str, share: Sensitivity | TopImportance | Interaction, chance: float | None, row: int
) -> Bar:
    return Bar(
        label=label,
        value=share.importance,
        low=share.low,
        high=share.high,
        chance=chance,
        certain=share.above_chance,
        row=row,
    )


def sensitivity(analysis: Analysis) -> Picture:
    """Show how much of the variance of learning each hyperparameter explains."""
    # A single hyperparameter has the whole variance to itself, which needs no bar.
    ranked = [ranking for ranking in analysis.rankings.values() if len(ranking.rows) > 1]
    if not ranked:
        return _SENSITIVITY
    place = count()
    panels = [
        _panel(
            f"{r.method}: {r.design}, {plural(r.configurations, 'configuration')}",
            f"Sensitivity of {r.method}",
            r.method,
            "share of the variance of learning",
            [_bar(row.hyperparameter, row, row.chance, next(place)) for row in r.rows],
        )
        for r in ranked
    ]
    rows = tuple((r.method, *ranking_cells(row)) for r in ranked for row in r.rows)
    return _SENSITIVITY.drawn(
        panels,
        f"{' '.join(_first(ranking) for ranking in ranked)} Whiskers hold the middle 90% of "
        "redrawn samples; the dashed tick is what chance alone can reach, and a pale bar with a "
        "dashed outline is not above it.",
        table=Table(heads=("method", *RANKING_HEADS), rows=rows, names=2),
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
    place = count()
    return _shares(
        _TOP,
        "Another question than the variance over all trials: which hyperparameters set the best "
        "trials apart from the rest.",
        ("hyperparameter", "importance near the top"),
        {
            # What chance reaches near the top is known as a divergence, not as a share.
            method: [_bar(r.hyperparameter, r, None, next(place)) for r in ranking.rows]
            for method, ranking in analysis.top.items()
        },
    )


def interactions(analysis: Analysis) -> Picture:
    """Show what two hyperparameters explain only together."""
    place = count()
    return _shares(
        _INTERACTIONS,
        "The share of the variance of learning that two hyperparameters explain only together, "
        "beyond what each does alone.",
        ("hyperparameters", "share of the variance"),
        {
            method: [
                _bar(f" {_TIMES} ".join(r.hyperparameters), r, r.chance, next(place))
                for r in ranking.interactions
            ]
            for method, ranking in analysis.rankings.items()
        },
    )


def _shares(
    figure: Picture, caption: str, heads: tuple[str, str], found: Mapping[str, Sequence[Bar]]
) -> Picture:
    """Draw one panel of bars for each method that has any; `heads` are of names and shares."""
    shown = {method: bars for method, bars in found.items() if bars}
    if not shown:
        return figure
    rows = tuple(
        (
            *(method, bar.label, percent(bar.value)),
            UNKNOWN if bar.low is None or bar.high is None else between(bar.low, bar.high),
            *([] if bar.chance is None else [percent(bar.chance)]),
        )
        for method, bars in shown.items()
        for bar in bars
    )
    has_chance = len(rows[0]) > 4
    return figure.drawn(
        [
            _panel(method, f"{figure.title}: {method}", method, heads[1], bars[:_MOST_BARS])
            for method, bars in shown.items()
        ],
        caption,
        table=Table(
            heads=("method", *heads, INTERVAL, *(["by chance up to"] if has_chance else [])),
            rows=rows,
            names=2,
        ),
    )
