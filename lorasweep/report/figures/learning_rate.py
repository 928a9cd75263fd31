"""Learning over the learning rate, with the trials that diverged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lorasweep.analysis.result import Analysis
from lorasweep.analysis.scale import Scale
from lorasweep.report.figures.trials import (
    Grouping,
    Numbered,
    axis_over,
    group_by,
    learning,
    points,
    scored_trials,
)
from lorasweep.report.picture import LOOKS, Axis, Key, Line, Picture, Plane, Series
from lorasweep.report.wording import level, number, plural
from lorasweep.store.configurations import is_scored
from lorasweep.store.results import SweepResults, TrialResult

_FIGURE = Picture(
    name="learning-rate",
    section="sensitivity",
    title="Learning over the learning rate",
    missing="Learning over the learning rate needs completed trials at two rates or more.",
)


class _Looks:
    """The look of each level of one hyperparameter, the same in all panels and methods."""

    def __init__(self) -> None:
        self.name = ""
        self._looks: dict[str, int] = {}

    def label(self, series: Grouping | None, trial: TrialResult) -> str:
        """Name what a trial's colour stands for; empty where it stands for nothing."""
        if series is not None:
            return f"{series.scale.name} {series.label(trial)}"
        return f"without {self.name}" if self.name else ""

    def look(self, label: str) -> int:
        """Look up the colour of a label, or take the next one."""
        return self._looks.setdefault(label, min(len(self._looks), LOOKS - 1))

    def keys(self) -> tuple[Key, ...]:
        """Explain the colours that stand for something."""
        return tuple(
            Key(label=label, kind="point", look=look)
            for label, look in self._looks.items()
            if label
        )


def learning_rate(results: SweepResults, analysis: Analysis) -> Picture:
    """Show learning over the learning rate, or over the first other axis with an order.

    One panel for each method and set of targets; a look for each rank, or for each level of the
    next hyperparameter.
    """
    looks = _Looks()
    y = axis_over("learning", [learning(found) for found in scored_trials(results)])
    panels: list[Plane] = []
    listed: list[Numbered] = []
    sentences: list[str] = []
    for method in analysis.methods:
        scales = analysis.scales[method]
        scale = _x_scale(scales)
        if scale is None:
            continue
        having = [
            (index, trial)
            for index, trial in enumerate(results.trials)
            if trial.method == method and scale.name in trial.hyperparameters
        ]
        scored = [found for found in having if is_scored(found[1])]
        lost = [found for found in having if found[1].status == "DIVERGED"]
        if len({trial.hyperparameters[scale.name] for _, trial in scored}) < 2:
            continue
        facets = group_by(scales, ["targets"], [*scored, *lost])
        taken = {scale.name, "targets"} if facets else {scale.name}
        wanted = [looks.name] if looks.name else [n for n in ("rank", *scales) if n not in taken]
        series = group_by(scales, wanted, [*scored, *lost])
        if series is not None:
            looks.name = series.scale.name
            for label in series.labels:
                looks.look(f"{looks.name} {label}")
        x = _x_axis(scale, having)
        for facet, here in _facets(facets, [*scored, *lost]).items():
            of = f"{method}, targets {facet}" if facet else method
            panels.append(_panel(of, scale, here, series, looks, (x, y)))
        listed += [*scored, *lost]
        best = max(scored, key=learning)
        sentences.append(
            f"For {method} the best trial, {number(learning(best))}, has {scale.name} "
            f"{level(best[1].hyperparameters[scale.name])}; {len(lost)} of {len(having)} diverged."
        )
    if not panels:
        return _FIGURE
    if any(trial.status == "DIVERGED" for _, trial in listed):
        sentences.append("Crosses below the plane are trials that diverged.")
    if any(panel.lines for panel in panels):
        sentences.append("Lines join the best trial at each value.")
    return _FIGURE.drawn(
        panels,
        " ".join(sentences),
        legend=looks.keys(),
        trials=tuple(index for index, _ in listed),
    )


def _facets(grouping: Grouping | None, trials: list[Numbered]) -> dict[str, list[Numbered]]:
    """Divide trials among the panels of a method; all in one, without a name, if not grouped."""
    if grouping is None:
        return {"": trials}
    found: dict[str, list[Numbered]] = {label: [] for label in grouping.labels}
    for index, trial in trials:
        found[grouping.label(trial)].append((index, trial))
    return found


def _x_scale(scales: Mapping[str, Scale]) -> Scale | None:
    """Choose the learning rate, or the first hyperparameter with an order."""
    ordered = [scale for scale in scales.values() if scale.kind != "text"]
    rates = [scale for scale in ordered if scale.name == "lr"]
    return next(iter([*rates, *ordered]), None)


def _x(scale: Scale, found: Numbered) -> float:
    return float(found[1].hyperparameters[scale.name])


def _x_axis(scale: Scale, having: Sequence[Numbered]) -> Axis:
    values = [_x(scale, found) for found in having]
    is_rate = scale.name == "lr"
    return axis_over(
        "learning rate (lr)" if is_rate else scale.name,
        values,
        log=True if is_rate else None,
        whole=all(value.is_integer() for value in values),
    )


def _panel(
    of: str,
    scale: Scale,
    here: Sequence[Numbered],
    grouping: Grouping | None,
    looks: _Looks,
    axes: tuple[Axis, Axis],
) -> Plane:
    groups: dict[int, list[Numbered]] = {}
    for found in here:
        groups.setdefault(looks.look(looks.label(grouping, found[1])), []).append(found)
    scored = [found for found in here if is_scored(found[1])]
    reached = "learning not measured"
    if scored:
        best = max(scored, key=learning)
        worst = min(scored, key=learning)
        reached = (
            f"learning {number(learning(worst))} to {number(learning(best))}, the best at "
            f"{scale.name} {level(best[1].hyperparameters[scale.name])}"
        )
    return Plane(
        title=of,
        name=f"Learning over {scale.name}: {of}",
        alt=f"{of}: {plural(len(scored), 'trial')}, {reached}; {len(here) - len(scored)} diverged.",
        x=axes[0],
        y=axes[1],
        series=tuple(_series(look, scale, own) for look, own in sorted(groups.items())),
        lines=() if scale.is_interval else _ridges(scale, groups),
        strip="diverged",
    )


def _series(look: int, scale: Scale, trials: Sequence[Numbered]) -> Series:
    y = [trial.learning if is_scored(trial) else None for _, trial in trials]
    return points(look, trials, [_x(scale, found) for found in trials], y)


def _ridges(scale: Scale, groups: Mapping[int, Sequence[Numbered]]) -> tuple[Line, ...]:
    """Join the best trial at each value, look by look."""
    lines = []
    for look, trials in sorted(groups.items()):
        best: dict[float, float] = {}
        for found in trials:
            if is_scored(found[1]):
                x = _x(scale, found)
                best[x] = max(best.get(x, learning(found)), learning(found))
        if len(best) > 1:
            lines.append(Line(points=tuple(sorted(best.items())), look=look, dash=look % 4))
    return tuple(lines)
