"""How the search went, trial by trial, as a figure."""

from __future__ import annotations

from collections.abc import Sequence

from lorasweep.analysis.summary import Analysis
from lorasweep.report.picture import Picture, Point, Scatter
from lorasweep.report.wording import number
from lorasweep.store.configurations import is_scored
from lorasweep.store.results import SweepResults, TrialResult


def draw_history(results: SweepResults, analysis: Analysis) -> Picture | None:
    """Show learning over the trial number with the best so far, one panel for each method."""
    ended = [
        t for t in results.trials if t.stage == "search" and t.status not in {"RUNNING", "PENDING"}
    ]
    scores = [trial.learning or 0.0 for trial in results.trials if is_scored(trial)]
    # A table may say no numbers; its rows then stand in their order.
    numbered = len({trial.number for trial in ended}) > len(ended) / 4
    panels: list[Scatter] = []
    said: list[str] = []
    for method in analysis.methods:
        own = [trial for trial in ended if trial.method == method]
        placed = [(float(t.number if numbered else row), t) for row, t in enumerate(own)]
        placed.sort(key=lambda pair: pair[0])
        scored = [(place, trial.learning or 0.0) for place, trial in placed if is_scored(trial)]
        if not scored:
            continue
        lost = tuple(place for place, trial in placed if not is_scored(trial))
        panels.append(
            Scatter(
                title=method,
                x_label="trial number",
                y_label="learning (target-domain score)",
                points=tuple(Point(*pair, "", "") for pair in scored),
                colour_name="",
                colours=("",),
                marker_name="",
                markers=("",),
                line=_best_so_far(scored, placed[-1][0]),
                line_name="best so far",
                lost=lost,
                lost_name="no score",
                reach=(min(scores), max(scores)),
            )
        )
        said.append(_said(method, placed, scored, len(lost)))
    if not panels:
        return None
    return Picture(
        name="history",
        caption="Learning in the order of the search; the line is the best so far, crosses were "
        "pruned, diverged or failed",
        alt=f"Learning over the trial number. {' '.join(said)}",
        panels=tuple(panels),
    )


def _best_so_far(
    scored: Sequence[tuple[float, float]], end: float
) -> tuple[tuple[float, float], ...]:
    """Give the corners of the steps on which the best score rises, up to the last trial."""
    corners = [scored[0]]
    for place, learning in scored[1:]:
        best = corners[-1][1]
        if learning > best:
            corners += [(place, best), (place, learning)]
    return (*corners, (end, corners[-1][1]))


def _said(
    method: str,
    placed: Sequence[tuple[float, TrialResult]],
    scored: Sequence[tuple[float, float]],
    lost: int,
) -> str:
    at, best = max(scored, key=lambda pair: pair[1])
    trials = "1 trial" if len(placed) == 1 else f"{len(placed):,} trials"
    return (
        f"{method}, {trials}: the best, learning {number(best)}, is number {at:.0f}; {lost} "
        "without a score."
    )
