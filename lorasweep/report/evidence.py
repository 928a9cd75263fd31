"""The tables of evidence that stand in Markdown where the page has plots and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lorasweep.analysis.summary import Analysis
from lorasweep.report.content import content_of
from lorasweep.report.plain import Table
from lorasweep.store.results import SweepResults


def evidence_tables(
    results: SweepResults, analysis: Analysis, document: Mapping[str, Any]
) -> Iterator[Table]:
    """Give one domain's tables beyond the ranking, the levels and the trials.

    Args:
        document: the analysis as plain values.
    """
    content = content_of(results, analysis, document)
    yield from content["tables"]
    yield from content["fronts"]
