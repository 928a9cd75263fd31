"""How the search went, trial by trial."""

from __future__ import annotations

from collections.abc import Sequence

from lorasweep.analysis.result import Analysis
from lorasweep.report.figures.trials import Numbered, axis_over, learning, points, scored_trials
from lorasweep.report.picture import Axis, Line, Pairs, Picture, Plane
from lorasweep.report.wording import number, plural
from lorasweep.store.configurations import is_scored
from lorasweep.store.results import SweepResults

_FIGURE = Picture(
    name="history",
    section="history",
    title="How the search went",
    missing="The history of the search begins with its first completed trial.",
)


def history(results: SweepResults, analysis: Analysis) -> Picture:
    """Show learning over the trial number with the best so far, one panel for each method."""
    ended = [
        (index, trial)
        for index, trial in enumerate(results.trials)
        if trial.stage == "search" and trial.status not in {"RUNNING", "PENDING"}
    ]
    # A table may lack numbers; its rows then stand in their order.
    numbered = len({trial.number for _, trial in ended}) > len(ended) / 4
    y = axis_over("learning", [learning(found) for found in scored_trials(results)])
    panels: list[Plane] = []
    sentences: list[str] = []
    for look, method in enumerate(analysis.methods):
        own = [found for found in ended if found[1].method == method]
        placed = [(found[1].number if numbered else row, found) for row, found in enumerate(own)]
        placed.sort(key=lambda pair: pair[0])
        scored = [(float(at), learning(found)) for at, found in placed if is_scored(found[1])]
        if not scored:
            continue
        panels.append(_panel(method, look, placed, scored, y))
        at, best = max(scored, key=lambda pair: pair[1])
        sentences.append(
            f"{method} found its best, {number(best)}, at trial number {at:.0f} of {len(own)}."
        )
    if not panels:
        return _FIGURE
    lost = any(not is_scored(trial) for _, trial in ended)
    crosses = "; crosses are trials without a score: pruned, diverged or failed" if lost else ""
    return _FIGURE.drawn(
        panels,
        f"{' '.join(sentences)} The line is the best so far{crosses}.",
        trials=tuple(index for index, _ in ended),
    )


def _panel(
    method: str,
    look: int,
    placed: Sequence[tuple[int, Numbered]],
    scored: Sequence[tuple[float, float]],
    y: Axis,
) -> Plane:
    at, best = max(scored, key=lambda pair: pair[1])
    trials = [found for _, found in placed]
    return Plane(
        title=method,
        name=f"Best so far: {method}",
        alt=f"{method}, {plural(len(placed), 'trial')}: the best, learning {number(best)}, is "
        f"number {at:.0f}; {len(placed) - len(scored)} without a score.",
        x=axis_over("trial number", [float(at) for at, _ in placed], whole=True),
        y=y,
        series=(
            points(
                look,
                trials,
                [float(at) for at, _ in placed],
                [trial.learning if is_scored(trial) else None for _, trial in trials],
            ),
        ),
        lines=(Line(points=_best_so_far(scored, placed[-1][0]), steps=True),),
        strip="no score",
    )


def _best_so_far(scored: Sequence[tuple[float, float]], end: float) -> Pairs:
    """Find where the best score rises, and draw it on to the last trial."""
    rises = [scored[0]]
    for at, score in scored[1:]:
        if score > rises[-1][1]:
            rises.append((at, score))
    return (*rises, (end, rises[-1][1]))
