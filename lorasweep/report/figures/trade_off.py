"""Learning against forgetting, with the fronts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lorasweep.analysis.result import Analysis
from lorasweep.analysis.tradeoff.pareto import POOLED, FrontPoint
from lorasweep.report.figures.trials import Numbered, axis_over, learning, points, scored_trials
from lorasweep.report.picture import Key, Line, Picture, Plane, Ring
from lorasweep.report.wording import number, plural
from lorasweep.store.results import SweepResults, TrialResult

_FIGURE = Picture(
    name="trade-off",
    section="outcome",
    title="Learning against forgetting",
    missing="Learning against forgetting needs trials whose source accuracy was measured.",
    wide=True,
)


@dataclass(frozen=True, slots=True)
class _Height:
    """The y axis: forgetting, or source accuracy where forgetting is known of no trial.

    The fronts compare the same: source accuracies may be relative to several bases.
    """

    by_forgetting: bool

    @property
    def word(self) -> str:
        return "forgetting" if self.by_forgetting else "source accuracy"

    def of(self, trial: TrialResult | FrontPoint) -> float | None:
        return trial.forgetting if self.by_forgetting else trial.source_accuracy

    def base(self, results: SweepResults) -> tuple[float, float] | None:
        """Place the model before training, which by definition has forgotten nothing."""
        base = results.base
        if base is None or base.learning is None:
            return None
        y = 0.0 if self.by_forgetting else base.source_accuracy
        return None if y is None else (base.learning, y)


def trade_off(results: SweepResults, analysis: Analysis) -> Picture:
    """Show learning against forgetting, or against source accuracy where only that is known."""
    scored = scored_trials(results)
    height = _Height(any(trial.forgetting is not None for _, trial in scored))
    shown = [found for found in scored if height.of(found[1]) is not None]
    if not shown:
        return _FIGURE
    present = {trial.method for _, trial in shown}
    looks = {m: look for look, m in enumerate(analysis.methods) if m in present}
    pooled = _front(analysis, POOLED, height)
    lines = _lines(analysis, looks, height)
    base = height.base(results)
    legend = [
        *(Key(label=method, kind="point", look=look) for method, look in looks.items()),
        *(
            Key(label=name, kind="line", look=line.look, dash=line.dash)
            for name, line in lines.items()
        ),
        *([Key(label="base model", kind="base")] if base else []),
    ]
    return _FIGURE.drawn(
        (_panel(shown, looks, height, pooled, tuple(lines.values()), base),),
        _caption(pooled, height),
        legend=tuple(legend),
        trials=tuple(index for index, _ in sorted(shown, key=learning, reverse=True)),
    )


def _front(analysis: Analysis, scope: str, height: _Height) -> list[FrontPoint]:
    return [p for p in analysis.front if p.scope == scope and height.of(p) is not None]


def _lines(analysis: Analysis, looks: Mapping[str, int], height: _Height) -> dict[str, Line]:
    """Join each method's front, where there are several methods, and the pooled one."""
    found: dict[str, Line] = {}
    for method, look in looks.items() if len(looks) > 1 else ():
        front = _front(analysis, method, height)
        if len(front) > 1:
            joined = tuple((p.learning, height.of(p) or 0.0) for p in front)
            found[f"front of {method}"] = Line(points=joined, look=look, dash=1 + look % 3)
    pooled = _front(analysis, POOLED, height)
    if len(pooled) > 1:
        joined = tuple((p.learning, height.of(p) or 0.0) for p in pooled)
        found["pooled front"] = Line(points=joined)
    return found


def _caption(pooled: Sequence[FrontPoint], height: _Height) -> str:
    sentences = [f"Better is right and {'down' if height.by_forgetting else 'up'}."]
    if pooled:
        most = pooled[-1]
        sentences = [
            f"The best trial learned {number(most.learning)}, at {height.word} "
            f"{number(height.of(most))}; {plural(len(pooled), 'trial')} on the pooled front.",
            *sentences,
            "Circled trials are those that no other trial beats on both.",
        ]
    if unsure := sum(p.certain is False for p in pooled):
        sentences.append(f"{unsure} of them, circled with dashes, could be there by noise.")
    return " ".join(sentences)


def _panel(
    shown: Sequence[Numbered],
    looks: Mapping[str, int],
    height: _Height,
    pooled: Sequence[FrontPoint],
    lines: tuple[Line, ...],
    base: tuple[float, float] | None,
) -> Plane:
    gains = [learning(found) for found in shown]
    heights = [height.of(trial) or 0.0 for _, trial in shown]
    series = []
    for method, look in looks.items():
        own = [found for found in shown if found[1].method == method]
        x, y = [learning(found) for found in own], [height.of(trial) for _, trial in own]
        series.append(points(look, own, x, y))
    return Plane(
        title="",
        name=_FIGURE.title,
        alt=f"{plural(len(shown), 'trial')}: learning {number(min(gains))} to "
        f"{number(max(gains))}, {height.word} {number(min(heights))} to {number(max(heights))}; "
        f"{len(pooled)} on the front.",
        x=axis_over("learning (target-domain score)", [*gains, *(base or ())[:1]]),
        y=axis_over(
            f"{height.word} (positive is worse)" if height.by_forgetting else height.word,
            [*heights, *(base or ())[1:]],
        ),
        series=tuple(series),
        lines=lines,
        rings=tuple(
            Ring(x=p.learning, y=height.of(p) or 0.0, certain=p.certain is not False)
            for p in pooled
        ),
        base=base,
    )
