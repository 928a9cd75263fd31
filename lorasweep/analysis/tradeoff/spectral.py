"""Ranks of a trial's update, summarised by module and by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from lorasweep.analysis.types import Result
from lorasweep.store.records import MatrixSpectrum
from lorasweep.store.results import TrialResult

# Rounding has full rank: where it makes more of an update than this, the ranks are its own. Saved
# in bfloat16, an update of rank 8 seemed to have rank 232 of 768 where rounding could make all of
# it, and 8 where a tenth. The entropy rank is off long before: 126 where a hundredth.
ROUNDED = 0.05
OUTSIDE = "outside"


def is_rounded(matrices: Sequence[MatrixSpectrum]) -> bool:
    """Check whether rounding makes up so much of an update that its ranks are meaningless."""
    return bool(matrices) and median(matrix.rounding for matrix in matrices) > ROUNDED


class RankSummary(Result):
    """Medians over some matrices, and the sum of their intruders.

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


class SpectralSummary(Result):
    """Spectra of one trial's update, summarised over its matrices.

    by_module: in the order of the names.
    by_layer: by the number of the block, in order; `outside` of blocks comes last.
    """

    domain: str
    trial: str
    whole: RankSummary
    by_module: Mapping[str, RankSummary]
    by_layer: Mapping[str, RankSummary]


def summarise_spectrum(trial: TrialResult) -> SpectralSummary | None:
    """Summarise the matrices of a trial's update; None where they were not measured.

    Medians and not means, since the first and the last layers differ from those between
    (Biderman et al. 2024, v2, section 6).
    """
    rows = trial.spectrum
    if not rows:
        return None
    modules = sorted({row.module for row in rows})
    layers = sorted({row.layer for row in rows}, key=lambda n: (n is None, n or 0))
    return SpectralSummary(
        domain=trial.domain,
        trial=trial.trial,
        whole=_summary(rows),
        by_module={name: _summary([r for r in rows if r.module == name]) for name in modules},
        by_layer={
            OUTSIDE if number is None else str(number): _summary(
                [row for row in rows if row.layer == number]
            )
            for number in layers
        },
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
