"""Learning by the levels of two hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from lorasweep.analysis.result import Analysis
from lorasweep.analysis.scale import Scale
from lorasweep.report.figures.trials import (
    RAMP,
    Numbered,
    labels,
    learning,
    scored_trials,
)
from lorasweep.report.picture import Axis, Cell, Heat, Picture, Table
from lorasweep.report.wording import number, plural
from lorasweep.store.results import SweepResults

_MOST_LEVELS = 12  # whose cells still hold their values
_FIGURE = Picture(
    name="heat-map",
    section="sensitivity",
    title="Two choices together",
    missing="A heat map needs two hyperparameters with several levels and completed trials.",
)


@dataclass(frozen=True)
class _Pair:
    """The trials with one pair of levels, at their place in the grid."""

    row: int
    column: int
    trials: Sequence[Numbered]

    @cached_property
    def best(self) -> float:
        return max(learning(found) for found in self.trials)

    @cached_property
    def mean(self) -> float:
        return sum(learning(found) for found in self.trials) / len(self.trials)


def heat_map(results: SweepResults, analysis: Analysis) -> Picture:
    """Show the best and the mean trial of each pair of levels, two panels for each method."""
    panels: list[Heat] = []
    sentences: list[str] = []
    rows: list[tuple[str, ...]] = []
    for method in analysis.methods:
        chosen = _choose(analysis.scales[method])
        if chosen is None:
            continue
        down, across = chosen
        pairs = _pairs(down, across, scored_trials(results, method))
        if not pairs:
            continue
        grid = _Grid(method, down, across, pairs, first_row=len(rows))
        panels += [grid.panel("best"), grid.panel("mean")]
        best = max(pairs, key=lambda pair: pair.best)
        sentences.append(f"For {method} the best trial has {grid.place(best)}.")
        rows += grid.rows()
    if not panels:
        return _FIGURE
    return _FIGURE.drawn(
        panels,
        f"{' '.join(sentences)} Left the best trial of each pair, which shows what is "
        "possible; right the mean, which shows what is safe.",
        legend=RAMP,
        table=Table(
            heads=("method", "level", "with level", "n", "best learning", "mean learning"),
            rows=tuple(rows),
            names=3,
        ),
    )


def _choose(scales: Mapping[str, Scale]) -> tuple[Scale, Scale] | None:
    """Choose targets and rank, or the first two that have several levels but not too many."""
    usable = {name: s for name, s in scales.items() if 1 < len(s.labels) <= _MOST_LEVELS}
    if "targets" in usable and "rank" in usable:
        return usable["targets"], usable["rank"]
    first = list(usable.values())[:2]
    return (first[0], first[1]) if len(first) == 2 else None


def _pairs(down: Scale, across: Scale, trials: Sequence[Numbered]) -> list[_Pair]:
    """Bring trials together by the parts of both scales, row by row."""
    found: dict[tuple[int, int], list[Numbered]] = {}
    for index, trial in trials:
        levels = trial.hyperparameters
        if down.name in levels and across.name in levels:
            place = down.part(levels[down.name]), across.part(levels[across.name])
            found.setdefault(place, []).append((index, trial))
    return [_Pair(i, j, own) for (i, j), own in sorted(found.items())]


@dataclass(frozen=True, slots=True)
class _Grid:
    """The pairs of levels of one method; `first_row` is where its rows of the table begin."""

    method: str
    down: Scale
    across: Scale
    pairs: Sequence[_Pair]
    first_row: int

    def place(self, pair: _Pair) -> str:
        return (
            f"{self.down.name} {labels(self.down)[pair.row]} with "
            f"{self.across.name} {labels(self.across)[pair.column]}"
        )

    def rows(self) -> list[tuple[str, ...]]:
        """List every pair of levels, also those without a trial."""
        filled = {(pair.row, pair.column): pair for pair in self.pairs}
        rows = []
        for i, line in enumerate(labels(self.down)):
            for j, column in enumerate(labels(self.across)):
                pair = filled.get((i, j))
                scores = (pair.best, pair.mean) if pair else (None, None)
                rows.append(
                    (
                        *(self.method, f"{self.down.name} {line}", f"{self.across.name} {column}"),
                        str(len(pair.trials) if pair else 0),
                        *(number(score) for score in scores),
                    )
                )
        return rows

    def panel(self, what: str) -> Heat:
        width = len(labels(self.across))
        cells: list[list[Cell | None]] = [[None] * width for _ in labels(self.down)]
        for pair in self.pairs:
            best, _ = max(pair.trials, key=learning)
            cells[pair.row][pair.column] = Cell(
                value=pair.best if what == "best" else pair.mean,
                trial=best,
                row=self.first_row + pair.row * width + pair.column,
            )
        return Heat(
            title=f"{what} of {self.method}",
            name=f"{self.down.name} by {self.across.name}, {what} learning, {self.method}",
            alt=self._best() if what == "best" else self._safest(),
            x=Axis(label=self.across.name, levels=labels(self.across)),
            y=Axis(label=self.down.name, levels=labels(self.down)),
            cells=tuple(tuple(line) for line in cells),
            # The same for both panels, so that a mean is as dark as a best trial of that value.
            low=min(pair.mean for pair in self.pairs),
            high=max(pair.best for pair in self.pairs),
        )

    def _best(self) -> str:
        best = max(self.pairs, key=lambda pair: pair.best)
        empty = len(labels(self.down)) * len(labels(self.across)) - len(self.pairs)
        none = f"; pairs without a completed trial: {empty}" if empty else ""
        return f"{self.method}: the best trial, {number(best.best)}, has {self.place(best)}{none}."

    def _safest(self) -> str:
        safe = max(self.pairs, key=lambda pair: pair.mean)
        return (
            f"{self.method}: the highest mean, {number(safe.mean)} of "
            f"{plural(len(safe.trials), 'trial')}, has {self.place(safe)}."
        )
