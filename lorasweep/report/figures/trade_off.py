"""Learning against forgetting, with the fronts."""

from __future__ import annotations

from collections.abc import Sequence

from lorasweep.analysis.result import Analysis
from lorasweep.analysis.tradeoff.pareto import POOLED, FrontPoint
from lorasweep.report.figures.trials import (
    axis_over,
    learning,
    method_keys,
    points,
    scored_trials,
)
from lorasweep.report.picture import Key, Line, Picture, Plane, Ring
from lorasweep.report.wording import number, plural
from lorasweep.store.results import SweepResults, TrialResult

_TITLE = "Learning against forgetting"


def trade_off(results: SweepResults, analysis: Analysis) -> Picture:
    """Show learning against forgetting, or against source accuracy where only that is known.

    Forgetting is what the fronts compare: source accuracies may stem from several bases.
    """
    scored = scored_trials(results)
    forgets = any(trial.forgetting is not None for _, trial in scored)
    word = "forgetting" if forgets else "source accuracy"

    def height(trial: TrialResult | FrontPoint) -> float | None:
        return trial.forgetting if forgets else trial.source_accuracy

    shown = [found for found in scored if height(found[1]) is not None]
    if not shown:
        return Picture(
            name="trade-off",
            section="outcome",
            title=_TITLE,
            missing="Learning against forgetting needs trials whose source accuracy was measured.",
        )
    looks = {method: look for look, method in enumerate(analysis.methods)}
    present = {trial.method for _, trial in shown}
    fronts = {
        scope: [p for p in analysis.front if p.scope == scope and height(p) is not None]
        for scope in (*(m for m in analysis.methods if m in present), POOLED)
    }
    pooled = fronts.pop(POOLED)
    lines = [
        Line(points=_joined(front, forgets), look=looks[m], dash=1 + looks[m] % 3)
        for m, front in fronts.items()
        if len(fronts) > 1 and len(front) > 1
    ]
    names = [f"front of {m}" for m, front in fronts.items() if len(fronts) > 1 and len(front) > 1]
    if len(pooled) > 1:
        lines.append(Line(points=_joined(pooled, forgets)))
        names.append("pooled front")
    start = _base(results, forgets=forgets)
    gains = [learning(found) for found in shown]
    costs = [height(trial) or 0.0 for _, trial in shown]
    unsure = sum(p.certain is False for p in pooled)
    caption = [
        f"The most learned was {number(pooled[-1].learning)}, at {word} "
        f"{number(height(pooled[-1]))}; {plural(len(pooled), 'trial')} on the pooled front."
        if pooled
        else "",
        "Better is right and down." if forgets else "Better is right and up.",
        "Circled trials are those that no other trial beats on both.",
        f"{unsure} of them, circled with dashes, could be there by noise." if unsure else "",
    ]
    legend = [
        *method_keys(analysis.methods, present),
        *(
            Key(label=name, kind="line", look=line.look, dash=line.dash)
            for name, line in zip(names, lines, strict=True)
        ),
        *([Key(label="base model", kind="base")] if start else []),
    ]
    return Picture(
        name="trade-off",
        section="outcome",
        title=_TITLE,
        caption=" ".join(filter(None, caption)),
        legend=tuple(legend),
        panels=(
            Plane(
                title="",
                name=_TITLE,
                alt=f"{plural(len(shown), 'trial')}: learning {number(min(gains))} to "
                f"{number(max(gains))}, {word} {number(min(costs))} to {number(max(costs))}; "
                f"{len(pooled)} on the front.",
                x=axis_over("learning (target-domain score)", [*gains, *(start or ())[:1]]),
                y=axis_over(
                    "forgetting (positive is worse)" if forgets else word,
                    [*costs, *(start or ())[1:]],
                ),
                series=tuple(
                    points(
                        look,
                        own,
                        [learning(found) for found in own],
                        [height(trial) for _, trial in own],
                    )
                    for method, look in looks.items()
                    if (own := [found for found in shown if found[1].method == method])
                ),
                lines=tuple(lines),
                rings=tuple(
                    Ring(x=p.learning, y=height(p) or 0.0, certain=p.certain is not False)
                    for p in pooled
                ),
                base=start,
            ),
        ),
        wide=True,
        trials=tuple(index for index, _ in sorted(shown, key=learning, reverse=True)),
    )


def _joined(front: Sequence[FrontPoint], forgets: bool) -> tuple[tuple[float, float], ...]:
    return tuple(
        (p.learning, (p.forgetting if forgets else p.source_accuracy) or 0.0) for p in front
    )


def _base(results: SweepResults, *, forgets: bool) -> tuple[float, float] | None:
    """Place the model before training, which by definition has forgotten nothing."""
    base = results.base
    if base is None or base.learning is None:
        return None
    if forgets:
        return base.learning, 0.0
    return None if base.source_accuracy is None else (base.learning, base.source_accuracy)
