"""The ranks of what finetuning added, brought together by module and by layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from lorasweep.store.records import MatrixSpectrum

# Rounding has full rank: where it makes more of an update than this, the ranks are its own. Saved
# in bfloat16, an update of rank 8 seemed to have rank 232 of 768 where rounding could make all of
# it, and 8 where a tenth. The entropy rank is off long before: 126 where a hundredth.
ROUNDED = 0.05


def is_rounded(matrices: Sequence[MatrixSpectrum]) -> bool:
    """Tell whether rounding makes so much of an update that its ranks say nothing."""
    return bool(matrices) and median(matrix.rounding for matrix in matrices) > ROUNDED


@dataclass(frozen=True, slots=True)
class RankSummary:
    """Hold the medians over some matrices, and their intruders together.

    n: how many matrices.
    full: the largest rank that they could have, the smaller side of each.
    update, base, tuned, noise, noisy: ranks that explain 90% of the squared singular values, of
        what `MatrixSpectrum` says.
    effective: entropy rank of the update.
    share: norm of the update over that of the base.
    intruders: the sum over the matrices.
    """

    n: int
    full: float
    update: float
    base: float
    tuned: float
    noise: float
    noisy: float
    effective: float
    share: float
    intruders: int


@dataclass(frozen=True, slots=True)
class SpectralSummary:
    """Hold the summaries of an update, or of several.

    by_module: in the order of the names.
    by_layer: in the order of the blocks; None, for what is outside of blocks, comes last.
    """

    whole: RankSummary
    by_module: Mapping[str, RankSummary]
    by_layer: Mapping[int | None, RankSummary]


def summarise(matrices: Iterable[MatrixSpectrum]) -> SpectralSummary | None:
    """Summarise the matrices of one trial, or of several alike; None where there are none.

    Medians and not means, since the first and the last layers differ from those between
    (Biderman et al. 2024, v2, section 6).
    """
    rows = tuple(matrices)
    if not rows:
        return None
    modules = sorted({row.module for row in rows})
    layers = sorted({row.layer for row in rows}, key=lambda n: (n is None, n or 0))
    return SpectralSummary(
        whole=_summary(rows),
        by_module={name: _summary([r for r in rows if r.module == name]) for name in modules},
        by_layer={number: _summary([r for r in rows if r.layer == number]) for number in layers},
    )


def _summary(rows: Sequence[MatrixSpectrum]) -> RankSummary:
    return RankSummary(
        n=len(rows),
        full=median(min(row.outputs, row.inputs) for row in rows),
        update=median(row.update for row in rows),
        base=median(row.base for row in rows),
        tuned=median(row.tuned for row in rows),
        noise=median(row.noise for row in rows),
        noisy=median(row.noisy for row in rows),
        effective=median(row.effective for row in rows),
        share=median(row.share for row in rows),
        intruders=sum(row.intruders for row in rows),
    )
