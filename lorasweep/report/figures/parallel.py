"""Every trial as a line across its settings: parallel coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lorasweep.analysis.result import Analysis
from lorasweep.analysis.scale import Scale
from lorasweep.report.figures.trials import RAMP, Numbered, labels, learning, scored_trials
from lorasweep.report.picture import Axis, Parallel, Picture
from lorasweep.report.wording import enumerate_words, level, number, plural, settings
from lorasweep.spec.space import Level
from lorasweep.store.results import SweepResults, TrialResult

_MOST_NAMED = 3  # levels that the alternative text lists
_FIGURE = Picture(
    name="parallel-coordinates",
    section="sensitivity",
    title="Every trial across its settings",
    missing="Parallel coordinates need two hyperparameters and two completed trials.",
    wide=True,
)


def parallel_coordinates(results: SweepResults, analysis: Analysis) -> Picture:
    """Show each completed trial from its settings to what it learned, one panel for each method."""
    panels: list[Parallel] = []
    listed: list[int] = []
    for method in analysis.methods:
        scales = tuple(analysis.scales[method].values())
        # The best last, and so on top, where it is seen.
        ranked = sorted(scored_trials(results, method), key=learning)
        if len(scales) < 2 or len(ranked) < 2:
            continue
        panels.append(_panel(method, scales, ranked))
        listed += reversed(panels[-1].trials)
    if not panels:
        return _FIGURE
    return _FIGURE.drawn(
        panels,
        "Each line is one trial from its settings to what it learned on the right; the "
        "strongest colour learned most.",
        legend=RAMP,
        trials=tuple(listed),
    )


def _panel(method: str, scales: Sequence[Scale], ranked: Sequence[Numbered]) -> Parallel:
    trials = [trial for _, trial in ranked]
    low, high = learning(ranked[0]), learning(ranked[-1])
    return Parallel(
        title=f"{method}, {plural(len(ranked), 'trial')}",
        name=f"All trials across their settings: {method}",
        alt=_summary(method, scales, trials),
        axes=(*(_axis(scale) for scale in scales), Axis(label="learning", low=low, high=high)),
        values=(
            *(_values(scale, trials) for scale in scales),
            tuple(learning(found) for found in ranked),
        ),
        trials=tuple(index for index, _ in ranked),
    )


def _axis(scale: Scale) -> Axis:
    if not scale.is_interval:
        return Axis(label=scale.name, levels=labels(scale))
    return Axis(label=scale.name, low=scale.edges[0], high=scale.edges[-1], log=scale.kind == "log")


def _values(scale: Scale, trials: Sequence[TrialResult]) -> tuple[float | None, ...]:
    """Place each trial on an axis: by the value itself, or by the position of its level."""
    values = [trial.hyperparameters.get(scale.name) for trial in trials]
    if scale.is_interval:
        return tuple(None if value is None else float(value) for value in values)
    places: Mapping[Level, float] = {value: float(i) for i, value in enumerate(scale.levels)}
    return tuple(None if value is None else places[value] for value in values)


def _summary(method: str, scales: Sequence[Scale], ranked: Sequence[TrialResult]) -> str:
    """Describe what the best trial and the best tenth have in common."""
    best = ranked[-1]
    names = [scale.name for scale in scales]
    sentences = (
        f"{method}, {plural(len(ranked), 'trial')}: the best, learning {number(best.learning)}, "
        f"has {settings(best.hyperparameters, names)}; the worst learned "
        f"{number(ranked[0].learning)}."
    )
    if len(ranked) < 20:
        return sentences
    tenth = ranked[-(len(ranked) // 10) :]
    spans = [span for scale in scales if (span := _span(scale, tenth))]
    return f"{sentences} The best tenth have {enumerate_words(spans)}."


def _span(scale: Scale, trials: Sequence[TrialResult]) -> str:
    """Name the levels of a hyperparameter that these trials have."""
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
