"""Learning by the levels of two hyperparameters, as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lorasweep.analysis.scale import Scale
from lorasweep.analysis.summary import Analysis
from lorasweep.report.picture import Heat, Picture
from lorasweep.report.wording import level, number
from lorasweep.store.configurations import is_scored
from lorasweep.store.results import SweepResults, TrialResult

_MOST_LEVELS = 12  # whose cells still hold their values


@dataclass(frozen=True, slots=True)
class _Cell:
    """Hold the learning of the trials with one pair of levels: of the best, and on average."""

    row: str
    column: str
    best: float
    mean: float
    n: int


def draw_heat(results: SweepResults, analysis: Analysis) -> Picture | None:
    """Show the best and the mean trial of each pair of levels, two panels for each method."""
    panels: list[Heat] = []
    said: list[str] = []
    for method in analysis.methods:
        chosen = _pair(analysis.scales[method])
        own = [t for t in results.trials if t.method == method and is_scored(t)]
        if chosen is None or not (cells := _cells(*chosen, own)):
            continue
        down, across = chosen
        panels += [_panel(method, down, across, cells, what) for what in ("best", "mean")]
        said.append(_said(method, down, across, list(cells.values())))
    if not panels:
        return None
    return Picture(
        name="heat-map",
        caption="Two choices together: left the best trial of each pair, which shows what is "
        "possible; right the mean, which shows what is safe",
        alt=f"Heat maps of learning. {' '.join(said)}",
        panels=tuple(panels),
    )


def _pair(scales: Mapping[str, Scale]) -> tuple[Scale, Scale] | None:
    """Choose targets and rank, or the first two that have several levels but not too many."""
    usable = {name: s for name, s in scales.items() if 1 < len(s.labels) <= _MOST_LEVELS}
    if "targets" in usable and "rank" in usable:
        return usable["targets"], usable["rank"]
    first = list(usable.values())[:2]
    return (first[0], first[1]) if len(first) == 2 else None


def _labels(scale: Scale) -> tuple[str, ...]:
    return scale.labels if scale.is_interval else tuple(level(value) for value in scale.levels)


def _cells(
    down: Scale, across: Scale, trials: Sequence[TrialResult]
) -> dict[tuple[int, int], _Cell]:
    """Bring trials together by the parts of both scales, row and column."""
    found: dict[tuple[int, int], list[float]] = {}
    for trial in trials:
        levels = trial.hyperparameters
        if down.name in levels and across.name in levels and trial.learning is not None:
            place = down.part(levels[down.name]), across.part(levels[across.name])
            found.setdefault(place, []).append(trial.learning)
    rows, columns = _labels(down), _labels(across)
    return {
        (i, j): _Cell(rows[i], columns[j], max(scores), sum(scores) / len(scores), len(scores))
        for (i, j), scores in sorted(found.items())
    }


def _panel(
    method: str, down: Scale, across: Scale, cells: Mapping[tuple[int, int], _Cell], what: str
) -> Heat:
    rows, columns = _labels(down), _labels(across)
    values = {place: getattr(cell, what) for place, cell in cells.items()}
    return Heat(
        title=f"{what} of {method}",
        x_label=across.name,
        y_label=down.name,
        columns=columns,
        rows=rows,
        cells=tuple(
            tuple(values.get((i, j)) for j in range(len(columns))) for i in range(len(rows))
        ),
        # The same for both panels, so that a mean is as dark as a best trial of that value.
        low=min(cell.mean for cell in cells.values()),
        high=max(cell.best for cell in cells.values()),
    )


def _said(method: str, down: Scale, across: Scale, cells: Sequence[_Cell]) -> str:
    best = max(cells, key=lambda cell: cell.best)
    safe = max(cells, key=lambda cell: cell.mean)

    def place(cell: _Cell) -> str:
        return f"{down.name} {cell.row} with {across.name} {cell.column}"

    trials = "trial" if safe.n == 1 else "trials"
    empty = len(down.labels) * len(across.labels) - len(cells)
    none = f"; pairs without a completed trial: {empty}" if empty else ""
    return (
        f"{method}: the best trial, {number(best.best)}, has {place(best)}; the highest mean, "
        f"{number(safe.mean)} of {safe.n} {trials}, has {place(safe)}{none}."
    )
