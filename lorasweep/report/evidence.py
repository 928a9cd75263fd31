"""The tables of evidence that stand in Markdown where the page has plots and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lorasweep.analysis.summary import Analysis
from lorasweep.report.content import content_of
from lorasweep.report.plain import Table, interval, lay_out
from lorasweep.report.wording import level
from lorasweep.spec.studies import study_name
from lorasweep.store.results import SweepResults


def evidence_tables(
    results: SweepResults, analysis: Analysis, document: Mapping[str, Any]
) -> Iterator[Table]:
    """Give one domain's tables beyond the ranking, the levels and the trials.

    Args:
        document: the analysis as plain values.
    """
    content = content_of(results, analysis, document)
    for method in analysis.methods:
        study = study_name(method, results.domain)
        for key, caption in (
            ("interactions", "what two hyperparameters explain only together"),
            ("top", "what mattered for being among the best"),
        ):
            rows = (document.get(key) or {}).get(study) or []
            if rows:
                yield lay_out(f"{method}: {caption}", [_share(row) for row in rows])
    yield from content["tables"]
    yield from content["fronts"]
    rows = [
        {
            "method": curve.method,
            "trials of": ", ".join(f"{k}={level(v)}" for k, v in curve.configuration.items()),
            curve.duration: level(point.at),
            "seeds": point.n,
            "learning": point.learning,
            "forgetting": point.forgetting,
        }
        for curve in analysis.curves
        for point in curve.points
    ]
    if rows:
        yield lay_out("Learning and forgetting over duration", rows)


def _share(row: Mapping[str, Any]) -> dict[str, Any]:
    names = row.get("hyperparameters") or [row.get("hyperparameter")]
    return {
        "hyperparameters": " x ".join(str(name) for name in names),
        "share": row.get("share", row.get("importance")),
        "90% interval": interval(row),
    }
