"""The ranks of what finetuning added to each matrix."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from lorasweep.analysis.result import Analysis
from lorasweep.report.figures.trials import axis_over
from lorasweep.report.picture import LOOKS, Key, Picture, Plane, Series, Table
from lorasweep.report.wording import percent
from lorasweep.store.records import MatrixSpectrum
from lorasweep.store.results import SweepResults

_FIGURE = Picture(
    name="spectrum",
    section="spectrum",
    title="The rank of what was added",
    missing="No spectrum was measured of what training added to the weights.",
    tabled=True,  # hundreds of matrices; report.md has their medians by module and layer
)


def spectrum(results: SweepResults, analysis: Analysis) -> Picture:
    """Show the rank of the update layer by layer, of each method's best trial."""
    best = {found.trial: method for method, found in analysis.recommendation.items()}
    found = [
        (best[trial.trial], trial.trial, own)
        for trial in results.trials
        if trial.trial in best and (own := [row for row in trial.spectrum if row.layer is not None])
    ]
    if not found:
        return _FIGURE
    rows = [row for _, _, own in found for row in own]
    modules = sorted({row.module for row in rows})
    looks = {module: min(look, LOOKS - 1) for look, module in enumerate(modules)}
    x = axis_over("layer", [float(row.layer or 0) for row in rows], whole=True)
    y = axis_over("rank of the update", [float(row.update) for row in rows], log=None)
    panels = []
    sentences = []
    first = 0
    for method, trial, own in found:
        sentences.append(_summary(method, own))
        ranks = [row.update for row in own]
        panels.append(
            Plane(
                title=f"{method}, trial {trial}",
                name=f"Rank of the update by layer: {method}",
                alt=f"{method}: {len(own)} matrices, ranks {min(ranks)} to {max(ranks)}.",
                x=x,
                y=y,
                series=_series(own, looks, first),
            )
        )
        first += len(own)
    return _FIGURE.drawn(
        panels,
        "The smallest rank that explains 90% of an update, matrix by matrix, of each "
        f"method's best trial. {' '.join(sentences)}",
        legend=tuple(Key(label=m, kind="point", look=look) for m, look in looks.items()),
        table=Table(
            heads=(
                *("method", "module", "layer", "rank of the update", "of noise as large"),
                *("possible", "size over base", "intruders"),
            ),
            rows=tuple(
                (
                    *(method, row.module, str(row.layer), str(row.update), str(row.noise)),
                    *(str(min(row.outputs, row.inputs)), percent(row.share), str(row.intruders)),
                )
                for method, _, own in found
                for row in own
            ),
            names=3,
        ),
    )


def _series(
    rows: Sequence[MatrixSpectrum], looks: dict[str, int], first: int
) -> tuple[Series, ...]:
    """Bring the matrices together by module; `first` is their first row in the table."""
    groups: dict[int, list[tuple[int, MatrixSpectrum]]] = {}
    for place, row in enumerate(rows, start=first):
        groups.setdefault(looks[row.module], []).append((place, row))
    return tuple(
        Series(
            look=look,
            x=tuple(float(row.layer or 0) for _, row in own),
            y=tuple(float(row.update) for _, row in own),
            trials=(None,) * len(own),
            rows=tuple(place for place, _ in own),
        )
        for look, own in sorted(groups.items())
    )


def _summary(method: str, rows: Sequence[MatrixSpectrum]) -> str:
    possible = median(row.update / max(1, min(row.outputs, row.inputs)) for row in rows)
    noise = median(row.update / max(1, row.noise) for row in rows)
    return (
        f"The median matrix of {method} needs rank {median(row.update for row in rows):g}, "
        f"{percent(possible)} of what its shape allows and {percent(noise)} of what Gaussian noise "
        "as large needs."
    )
