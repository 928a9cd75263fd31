"""The completed configurations of one method as arrays, in an order that content decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lorasweep.analysis.anova import Codes, Floats
from lorasweep.analysis.configurations import Configuration
from lorasweep.analysis.scale import Scale


@dataclass(frozen=True, slots=True)
class Sample:
    """Hold configurations (rows) on the scales that vary among them (columns).

    points: coordinates; parts: index of the level, or of the part of an interval.
    scores: learning, averaged over seeds.
    """

    scales: tuple[Scale, ...]
    points: Floats
    parts: Codes
    scores: Floats


def lay_out_sample(scored: Sequence[Configuration], scales: Mapping[str, Scale]) -> Sample:
    """Lay configurations out so that neither their order nor the names of levels play a part."""
    varied = [
        scale
        for name, scale in scales.items()
        if all(name in c.hyperparameters for c in scored)
        and len({c.hyperparameters[name] for c in scored}) > 1
    ]
    ordered = [scale for scale in varied if scale.kind != "text"]
    named = [scale for scale in varied if scale.kind == "text"]
    scored = sorted(
        scored,
        key=lambda c: (
            c.learning or 0.0,
            *(scale.coordinate(c.hyperparameters[scale.name]) for scale in ordered),
            *(str(c.hyperparameters[scale.name]) for scale in named),
        ),
    )
    rows = [[c.hyperparameters[scale.name] for scale in varied] for c in scored]
    shape = (len(rows), len(varied))
    points = [[s.coordinate(v) for s, v in zip(varied, row, strict=True)] for row in rows]
    parts = [[s.part(v) for s, v in zip(varied, row, strict=True)] for row in rows]
    return Sample(
        tuple(varied),
        np.array(points, dtype=np.float64).reshape(shape),
        np.array(parts, dtype=np.int64).reshape(shape),
        np.array([c.learning for c in scored], dtype=np.float64),
    )


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
    # The solution of least norm also answers where a redrawn sample misses some combinations.
    design = np.hstack([np.ones((len(scores), 1)), *(member for _, member in members)])
    weights = np.linalg.lstsq(design, scores - centre, rcond=None)[0][1:]
    means = []
    for levels, member in members:
        own, weights = np.split(weights, [len(levels)])
        base = centre - (member @ own).mean()
        means.append({int(lv): float(base + w) for lv, w in zip(levels, own, strict=True)})
    return means
