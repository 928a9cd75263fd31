"""Every trial as a line across its settings, as a figure of parallel coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lorasweep.analysis.scale import Scale
from lorasweep.analysis.summary import Analysis
from lorasweep.report.picture import Axis, Parallel, Picture
from lorasweep.report.wording import enumerate_words, level, number, settings
from lorasweep.spec.space import Level
from lorasweep.store.configurations import is_scored
from lorasweep.store.results import SweepResults, TrialResult

MOST_LINES = 150  # of a method; more would only cover each other
_MOST_NAMED = 3  # levels that the alternative text lists


def draw_parallel(results: SweepResults, analysis: Analysis) -> Picture | None:
    """Show each completed trial from its settings to what it learned, one panel for each method."""
    panels: list[Parallel] = []
    said: list[str] = []
    drawn, known = 0, 0
    for method in analysis.methods:
        scales = tuple(analysis.scales[method].values())
        own = [t for t in results.trials if t.method == method and is_scored(t)]
        if len(scales) < 2 or len(own) < 2:
            continue
        # The best last, and so on top, where it is seen.
        ranked = sorted(own, key=lambda t: t.learning or 0.0)
        shown = _spread(ranked)
        panels.append(_panel(method, scales, ranked, shown))
        said.append(_said(method, scales, ranked))
        drawn, known = drawn + len(shown), known + len(ranked)
    if not panels:
        return None
    sample = (
        f"; {drawn:,} of {known:,} trials are drawn, evenly from the worst to the best"
        if drawn < known
        else ""
    )
    return Picture(
        name="parallel-coordinates",
        caption="Each line is one trial from its settings to what it learned on the right, the "
        f"darker the more{sample}",
        alt=f"Parallel coordinates. {' '.join(said)}",
        panels=tuple(panels),
    )


def _spread(ranked: Sequence[TrialResult]) -> list[TrialResult]:
    """Take trials at equal distances in their order, the first and the last among them."""
    if len(ranked) <= MOST_LINES:
        return list(ranked)
    step = (len(ranked) - 1) / (MOST_LINES - 1)
    return [ranked[round(step * place)] for place in range(MOST_LINES)]


def _panel(
    method: str,
    scales: Sequence[Scale],
    ranked: Sequence[TrialResult],
    shown: Sequence[TrialResult],
) -> Parallel:
    low, high = ranked[0].learning or 0.0, ranked[-1].learning or 0.0
    places = [
        {} if scale.is_interval else {value: float(i) for i, value in enumerate(scale.levels)}
        for scale in scales
    ]
    return Parallel(
        title=f"{len(ranked):,} trials of {method}",
        axes=(*(_axis(scale) for scale in scales), Axis("learning", low=low, high=high)),
        lines=tuple(
            (
                *(_value(trial, scale, place) for scale, place in zip(scales, places, strict=True)),
                trial.learning,
            )
            for trial in shown
        ),
        shades=tuple(
            ((trial.learning or 0.0) - low) / (high - low) if high > low else 1.0 for trial in shown
        ),
    )


def _axis(scale: Scale) -> Axis:
    if not scale.is_interval:
        return Axis(scale.name, levels=tuple(level(value) for value in scale.levels))
    return Axis(scale.name, low=scale.edges[0], high=scale.edges[-1], log=scale.kind == "log")


def _value(trial: TrialResult, scale: Scale, places: Mapping[Level, float]) -> float | None:
    value = trial.hyperparameters.get(scale.name)
    if value is None:
        return None
    return float(value) if scale.is_interval else places[value]


def _said(method: str, scales: Sequence[Scale], ranked: Sequence[TrialResult]) -> str:
    """Say what the best trial and the best tenth have in common."""
    best = ranked[-1]
    names = [scale.name for scale in scales]
    told = (
        f"{method}, {len(ranked):,} trials: the best, learning {number(best.learning)}, has "
        f"{settings(best.hyperparameters, names)}; the worst learned {number(ranked[0].learning)}."
    )
    tenth = ranked[-(len(ranked) // 10) :]
    if len(ranked) < 20:
        return told
    spans = [span for scale in scales if (span := _span(scale, tenth))]
    return f"{told} The best tenth have {enumerate_words(spans)}."


def _span(scale: Scale, trials: Sequence[TrialResult]) -> str:
    """Say which levels of a hyperparameter these trials have."""
    having = [t.hyperparameters[scale.name] for t in trials if scale.name in t.hyperparameters]
    if not having:
        return ""
    if scale.is_interval:
        numbers = [float(value) for value in having]
        return f"{scale.name} {level(min(numbers))} to {level(max(numbers))}"
    present = [level(value) for value in scale.levels if value in set(having)]
    if len(present) > _MOST_NAMED:
        return f"{scale.name} of {len(present)} levels"
    return f"{scale.name} {enumerate_words(present)}"
