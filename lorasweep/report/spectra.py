"""The ranks of what finetuning added, as a table and a figure."""

from __future__ import annotations

from statistics import median

from lorasweep.analysis.summary import Analysis
from lorasweep.analysis.tradeoff.spectral import SpectralSummary
from lorasweep.report.picture import Picture, Point, Scatter
from lorasweep.report.wording import Markdown, enumerate_words, percent, table
from lorasweep.store.results import SweepResults


def spectrum_table(summary: SpectralSummary) -> Markdown:
    """Show the ranks of an update module by module, and then layer by layer."""
    groups = [
        ("all", summary.whole),
        *summary.by_module.items(),
        *(
            (f"layer {layer}" if layer is not None else "outside of layers", ranks)
            for layer, ranks in summary.by_layer.items()
        ),
    ]
    heads = ["", "matrices", "possible", "update", "base", "tuned", "noise", "base + noise"]
    rows = [
        [
            *(name, ranks.n, *(f"{rank:g}" for rank in (ranks.full, ranks.update, ranks.base))),
            *(f"{rank:g}" for rank in (ranks.tuned, ranks.noise, ranks.noisy)),
            *(f"{ranks.effective:.1f}", percent(ranks.share), ranks.intruders),
        ]
        for name, ranks in groups
    ]
    return table([*heads, "effective rank", "size over base", "intruders"], rows)


def draw_spectra(results: SweepResults, analysis: Analysis) -> Picture | None:
    """Show, layer by layer, the update's rank beside that of noise, of each method's best trial."""
    best = {b.winner.trial: method for method, b in analysis.best.items()}
    measured = [t for t in results.trials if t.trial in best and t.spectrum]
    rows = [(best[t.trial], row) for t in measured for row in t.spectrum if row.layer is not None]
    if not rows:
        return None
    modules = tuple(sorted({row.module for _, row in rows}))
    methods = tuple(dict.fromkeys(method for method, _ in rows))
    panel = Scatter(
        title="",
        x_label="layer",
        y_label="rank of the update over that of noise",
        points=tuple(
            Point(float(row.layer or 0), row.update / max(1, row.noise), row.module, method)
            for method, row in rows
        ),
        colour_name="module",
        colours=modules,
        marker_name="method",
        markers=methods,
    )
    said = [
        f"{method} {percent(median(r.update / max(1, r.noise) for m, r in rows if m == method))}"
        for method in methods
    ]
    return Picture(
        name="spectrum",
        caption="Rank that explains 90% of the update, over that of Gaussian noise, best trials",
        alt=f"Scatter of {len(rows)} matrices by layer; medians: {enumerate_words(said)}.",
        panels=(panel,),
    )
