"""The completed configurations of one method as arrays, in an order that content decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lorasweep.analysis.scale import Scale
from lorasweep.spec.space import Level
from lorasweep.store.configurations import Configuration

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Noise:
    """Hold what seeds say of chance.

    variance: of a configuration's mean over its seeds, averaged over the configurations.
    df: degrees of freedom behind it, the seeds beyond the first of each configuration.
    """

    variance: float
    df: int


@dataclass(frozen=True, slots=True)
class Sample:
    """Hold configurations (rows) on the scales that vary among them (columns).

    points: coordinates; parts: index of the level, or of the part of an interval. Levels without an
        order of their own stand in the order of their scores, so that their names play no part.
    labels: of the parts, for each scale in the order of `parts`.
    scores: learning, averaged over seeds.
    noise: None where no configuration ran on several seeds, or they all agree.
    moved_along: scales left out because they vary only together with one that is kept.
    """

    scales: tuple[Scale, ...]
    points: Floats
    parts: Codes
    labels: tuple[tuple[str, ...], ...]
    scores: Floats
    noise: Noise | None = None
    moved_along: tuple[tuple[str, str], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Name the hyperparameters, column by column."""
        return tuple(scale.name for scale in self.scales)


def lay_out_sample(scored: Sequence[Configuration], scales: Mapping[str, Scale]) -> Sample:
    """Lay configurations out so that neither their order nor the names of levels play a part."""
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
    return Sample(
        scales=tuple(varied),
        points=points,
        parts=parts,
        labels=tuple(
            tuple(scale.labels[level] for level in ranked)
            for scale, ranked in zip(varied, order, strict=True)
        ),
        scores=np.array([learned[r] for r in rows], dtype=np.float64),
        noise=_noise([scored[r] for r in rows]),
        moved_along=moved,
    )


def _varies(scored: Sequence[Configuration], name: str) -> bool:
    values = {c.hyperparameters.get(name) for c in scored}
    return len(values) > 1 and None not in values


def _distinct(
    scales: Sequence[Scale], scored: Sequence[Configuration]
) -> tuple[list[Scale], tuple[tuple[str, str], ...]]:
    """Leave out a scale whose every value goes with one value of an earlier one and back."""
    kept: list[Scale] = []
    moved: list[tuple[str, str]] = []
    for scale in scales:
        own = {c.hyperparameters[scale.name] for c in scored}
        for other in kept:
            pairs = {(c.hyperparameters[scale.name], c.hyperparameters[other.name]) for c in scored}
            # In an interval each value may be there once, which says nothing.
            if len(pairs) == len(own) == len({b for _, b in pairs}) < max(len(scored), 3):
                moved.append((scale.name, other.name))
                break
        else:
            kept.append(scale)
    return kept, tuple(moved)


def _by_content(
    values: Sequence[Level], content: Sequence[tuple[float, ...]], scale: Scale
) -> list[int]:
    """Order levels by mean score, then by all that stands beside them; never by name."""
    rows: dict[Level, list[tuple[float, ...]]] = {level: [] for level in scale.levels}
    for value, row in zip(values, content, strict=True):
        rows[value].append(row)
    keys = []
    for index, level in enumerate(scale.levels):
        own = sorted(rows[level])
        mean = sum(row[0] for row in own) / len(own) if own else float("-inf")
        keys.append(((mean, own), index))
    return [index for _, index in sorted(keys)]


def _noise(scored: Sequence[Configuration]) -> Noise | None:
    squares, df, inverse = 0.0, 0, 0.0
    for configuration in scored:
        runs = configuration.replicates
        inverse += 1 / max(1, len(runs))
        if len(runs) > 1:
            centre = sum(runs) / len(runs)
            squares += sum((run - centre) ** 2 for run in runs)
            df += len(runs) - 1
    if df == 0 or squares == 0.0:
        return None
    return Noise(squares / df * inverse / len(scored), df)


def adjusted_means(parts: Codes, scores: Floats) -> list[dict[int, float]]:
    """Give for each scale the mean score at each level, the other scales' levels held equal.

    This is least squares on main effects. In a full factorial it gives the plain means; where a
    search has tried the levels unevenly it halves their error (planted effects, 20 to 100 trials).
    """
    members = []
    for column in parts.T:
        levels, codes = np.unique(column, return_inverse=True)
        members.append((levels, np.eye(len(levels))[codes]))
    centre = scores.mean()
    # The solution of least norm also answers where some combinations are missing.
    design = np.hstack([np.ones((len(scores), 1)), *(member for _, member in members)])
    weights = np.linalg.lstsq(design, scores - centre, rcond=None)[0][1:]
    means = []
    for levels, member in members:
        own, weights = np.split(weights, [len(levels)])
        base = centre - (member @ own).mean()
        means.append({int(lv): float(base + w) for lv, w in zip(levels, own, strict=True)})
    return means
