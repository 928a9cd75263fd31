"""The scored configurations of one method as factors, in an order that their content decides.

Variance is divided among `Factors`, and scores are compared in a `Table` (`table.py`). One layout
cannot serve both. Shares of variance refer to the space that was searched: only its hyperparameters
count, and only where every configuration has them; a range is cut into equal parts, however it was
sampled. Comparisons hold all else equal: every hyperparameter that differs is a column, alpha by
its rule, with a level for missing values, and configurations that diverged keep their rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lorasweep.analysis.design import Codes
from lorasweep.analysis.intervals import Floats
from lorasweep.analysis.noise import variance_of_means
from lorasweep.analysis.scale import Scale
from lorasweep.spec.space import Level
from lorasweep.store.configurations import Configuration


@dataclass(frozen=True)
class Factors:
    """Configurations (rows) on the scales that vary among them (columns), with their scores.

    points: coordinates; parts: index of the level, or of the part of an interval. Levels without an
        order of their own are ordered by their scores, so that their names play no part.
    labels: of the parts, for each scale in the order of `parts`.
    scores: learning, averaged over seeds.
    noise: variance of a score by repeated seeds, and its degrees of freedom; None where unknown.
    moved_along: scales left out because they vary only together with one that is kept.
    """

    scales: tuple[Scale, ...]
    points: Floats
    parts: Codes
    labels: tuple[tuple[str, ...], ...]
    scores: Floats
    noise: tuple[float, int] | None = None
    moved_along: tuple[tuple[str, str], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Hyperparameters, column by column."""
        return tuple(scale.name for scale in self.scales)

    @cached_property
    def codes(self) -> Codes:
        """Index of each distinct coordinate, column by column."""
        return np.stack(
            [np.unique(column, return_inverse=True)[1] for column in self.points.T], axis=1
        )

    def take(self, rows: Codes) -> Factors:
        """Select configurations; the noise of seeds is left out."""
        return Factors(
            self.scales, self.points[rows], self.parts[rows], self.labels, self.scores[rows]
        )


def lay_out_factors(scored: Sequence[Configuration], scales: Mapping[str, Scale]) -> Factors:
    """Arrange configurations so that neither their order nor the names of levels matter.

    Redraws and forests depend on the order of rows. Sorted by content, the same trials give the
    same numbers however they are listed, and whatever their levels are called.
    """
    varied, moved = _distinct([s for name, s in scales.items() if _varies(scored, name)], scored)
    learned = [c.learning or 0.0 for c in scored]
    coordinates: list[list[float]] = []
    order: list[Sequence[int]] = []
    numbers = [s for s in varied if s.kind != "text"]
    content = [
        (score, *(s.coordinate(c.hyperparameters[s.name]) for s in numbers))
        for score, c in zip(learned, scored, strict=True)
    ]
    for scale in varied:
        values = [c.hyperparameters[scale.name] for c in scored]
        if scale.kind == "text":
            ranked = _by_content(values, content, scale)
            place = {scale.levels[level]: i for i, level in enumerate(ranked)}
            coordinates.append([float(place[value]) for value in values])
            order.append(ranked)
        else:
            coordinates.append([scale.coordinate(value) for value in values])
            order.append(range(len(scale.labels)))
    # Redraws pair random numbers with rows, so rows are sorted by what they hold.
    rows = sorted(
        range(len(scored)), key=lambda r: (learned[r], *(column[r] for column in coordinates))
    )
    points = np.array(coordinates, dtype=np.float64).reshape(len(varied), len(scored)).T[rows]
    parts = np.empty(points.shape, dtype=np.int64)
    for i, scale in enumerate(varied):
        column = points[:, i]
        if scale.is_interval:
            column = np.array(
                [scale.part(scored[r].hyperparameters[scale.name]) for r in rows], dtype=np.float64
            )
        parts[:, i] = column
    return Factors(
        scales=tuple(varied),
        points=points,
        parts=parts,
        labels=tuple(
            tuple(scale.labels[level] for level in ranked)
            for scale, ranked in zip(varied, order, strict=True)
        ),
        scores=np.array([learned[r] for r in rows], dtype=np.float64),
        noise=variance_of_means([scored[r] for r in rows]),
        moved_along=moved,
    )


def _varies(scored: Sequence[Configuration], name: str) -> bool:
    values = {c.hyperparameters.get(name) for c in scored}
    return len(values) > 1 and None not in values


def _distinct(
    scales: Sequence[Scale], scored: Sequence[Configuration]
) -> tuple[list[Scale], tuple[tuple[str, str], ...]]:
    """Leave out a scale whose every value goes with one value of an earlier one and back.

    Their effects cannot be separated; a fit of both would split one effect between them.
    """
    kept: list[Scale] = []
    moved: list[tuple[str, str]] = []
    for scale in scales:
        own = {c.hyperparameters[scale.name] for c in scored}
        for other in kept:
            pairs = {(c.hyperparameters[scale.name], c.hyperparameters[other.name]) for c in scored}
            # In a sample of an interval each value occurs once, so equal counts show nothing.
            if len(pairs) == len(own) == len({b for _, b in pairs}) < max(len(scored), 3):
                moved.append((scale.name, other.name))
                break
        else:
            kept.append(scale)
    return kept, tuple(moved)


def _by_content(
    values: Sequence[Level], content: Sequence[tuple[float, ...]], scale: Scale
) -> list[int]:
    """Order levels by mean score, then by all that was tried with them; never by name."""
    rows: dict[Level, list[tuple[float, ...]]] = {level: [] for level in scale.levels}
    for value, row in zip(values, content, strict=True):
        rows[value].append(row)
    keys = []
    for index, level in enumerate(scale.levels):
        own = sorted(rows[level])
        mean = sum(row[0] for row in own) / len(own) if own else float("-inf")
        keys.append(((mean, own), index))
    return [index for _, index in sorted(keys)]
