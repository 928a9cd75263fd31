"""The report of a sweep: the page, its Markdown, the figures, and the analysis for programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lorasweep.analysis.analyse import analyse
from lorasweep.report.content import content_of
from lorasweep.report.draw import draw
from lorasweep.report.figures import pictures
from lorasweep.report.html import render_page
from lorasweep.report.markdown import DomainReport, render_markdown
from lorasweep.report.setup import commands_of, setup_of
from lorasweep.store.paths import write_atomically
from lorasweep.store.results import SweepResults
from lorasweep.store.table import format_table


@dataclass(frozen=True, slots=True)
class ReportPaths:
    """Files of a report."""

    root: Path
    page: Path
    markdown: Path
    trials: Path
    analysis: Path
    figures: tuple[Path, ...]


def write_report(results: SweepResults, out: Path) -> ReportPaths:
    """Write the report of a sweep, finished or not, into a folder.

    The same trials give the same bytes; each file is replaced whole.
    """
    analysis = analyse(results)
    domains = []
    for part in results.parts:
        own = analysis.of_domain(part.domain)
        domains.append(DomainReport(part, own, content_of(part, own), pictures(part, own)))
    figures = [
        path
        for domain in domains
        for picture in domain.figures
        for path in draw(picture, out / "figures")
    ]
    paths = ReportPaths(
        root=out,
        page=out / "report.html",
        markdown=out / "report.md",
        trials=out / "trials.csv",
        analysis=out / "analysis.json",
        figures=tuple(figures),
    )
    write_atomically(paths.trials, format_table(results.trials))
    write_atomically(paths.analysis, analysis.to_json())
    setup, commands = setup_of(results, analysis.totals), commands_of(results)
    # Last, so that the text never names files that are not there yet.
    write_atomically(
        paths.markdown,
        render_markdown(
            results, domains, out, warnings=analysis.warnings, setup=setup, commands=commands
        ),
    )
    page = render_page(
        results,
        [domain.content for domain in domains],
        [domain.pictures for domain in domains],
        warnings=analysis.warnings,
        setup=setup,
        commands=commands,
    )
    write_atomically(paths.page, page)
    return paths
