"""The ranks of what finetuning added, as a table by module and by layer."""

from __future__ import annotations

from lorasweep.analysis.tradeoff.spectral import OUTSIDE, SpectralSummary
from lorasweep.report.wording import Markdown, percent, table


def spectrum_table(summary: SpectralSummary) -> Markdown:
    """List the ranks of an update module by module, and then layer by layer."""
    groups = [
        ("all", summary.whole),
        *summary.by_module.items(),
        *(
            (f"layer {layer}" if layer != OUTSIDE else "outside of layers", ranks)
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
