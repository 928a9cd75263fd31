"""The report as Markdown, for a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorasweep.analysis.advice.recommend import Recommendation
from lorasweep.analysis.result import Analysis
from lorasweep.analysis.tradeoff.pareto import POOLED
from lorasweep.report.content import DomainContent, kept_sentence
from lorasweep.report.picture import Picture
from lorasweep.report.programs import program_table
from lorasweep.report.spectra import spectrum_table
from lorasweep.report.tables import (
    MOST_ROWS,
    Table,
    best_table,
    claim_table,
    findings_table,
    front_table,
    sensitivity_table,
    trial_table,
    undecided_table,
)
from lorasweep.report.wording import Markdown, escape, number, percent, table
from lorasweep.store.best import RULE
from lorasweep.store.paths import SweepPaths
from lorasweep.store.results import SweepResults

_DESIGNS = {
    "anova": "Exact shares of the variance of learning over a full factorial (ANOVA).",
    "functional anova": (
        "Shares of the variance of learning by functional ANOVA: a random forest's estimate over "
        "the region in which trials completed."
    ),
}


@dataclass(frozen=True, slots=True)
class DomainReport:
    """All that report.md shows of one domain.

    analysis: of this domain alone.
    """

    results: SweepResults
    analysis: Analysis
    content: DomainContent
    pictures: tuple[Picture, ...]

    @property
    def figures(self) -> tuple[Picture, ...]:
        """Figures that have data."""
        return tuple(picture for picture in self.pictures if picture.panels)

    @property
    def missing(self) -> str:
        """Why the other figures have none."""
        return " ".join(picture.missing for picture in self.pictures if picture.missing)

    @property
    def claims(self) -> Table:
        """Published findings that these trials decide."""
        return claim_table(self.content.decided)

    @property
    def undecided(self) -> Table:
        """Published findings that they cannot decide."""
        return undecided_table(self.content.undecided)

    @property
    def findings(self) -> Table:
        """What the sweep shows, and what it rests on."""
        return findings_table(self.content.findings)

    @property
    def front(self) -> Table:
        """The front of all methods."""
        return front_table(self.results, self.analysis)

    @property
    def front_is_of_forgetting(self) -> bool:
        """Whether the front compares forgetting, and not source accuracy."""
        pooled = (point for point in self.analysis.front if point.scope == POOLED)
        return all(point.forgetting is not None for point in pooled)

    @property
    def trials(self) -> Table:
        """The trials, as many as a reader may scroll through."""
        return trial_table(self.results)

    @property
    def trials_left_out(self) -> int:
        """How many further trials there are."""
        return max(0, len(self.results.trials) - MOST_ROWS)


def render_markdown(
    results: SweepResults,
    domains: Sequence[DomainReport],
    out: Path,
    *,
    warnings: Iterable[str],
    setup: Iterable[tuple[str, str]],
    commands: Iterable[str],
) -> str:
    """Write the report's text.

    Args:
        out: folder of the report, to link the weights beside it.
        warnings: of the whole sweep.
        setup: how the sweep was made, in pairs of words and values.
        commands: those that make the trials again and this report from them.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("lorasweep.report"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        # Whatever the template prints is escaped here, so that no place can forget to.
        finalize=escape,
    )
    environment.filters |= {
        # A command stands in a fence, where nothing is escaped but the fence itself.
        "command": lambda text: Markdown(text.replace("```", "")),
        "markdown": lambda shown: table(shown.heads, shown.rows),
        "number": number,
        "percent": percent,
    }
    template = environment.get_template("domain.md.jinja")
    rendered = []
    for domain in domains:
        body = template.render(
            part=domain,
            rule=RULE,
            designs=_DESIGNS,
            best=[
                (
                    found,
                    best_table(found, domain.results.axes),
                    _weights(found, domain, out),
                    kept_sentence(domain.results, found.trial),
                )
                for found in domain.analysis.recommendation.values()
            ],
            rankings=[
                (ranking, sensitivity_table(ranking))
                for ranking in domain.analysis.rankings.values()
            ],
            programs=program_table(domain.analysis),
            spectra=_spectra(domain.analysis),
        )
        if domain.results.domain:  # its headings stand below the domain's own
            body = re.sub(r"^#", "##", body, flags=re.MULTILINE)
        rendered.append((domain.content, Markdown(body)))
    text = environment.get_template("report.md.jinja").render(
        results=results,
        domains=rendered,
        warnings=list(warnings),
        setup=list(setup),
        commands=list(commands),
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def _spectra(analysis: Analysis) -> list[tuple[str, str, Markdown]]:
    """List the spectra of each method's best trial, with its method."""
    by_trial = {summary.trial: summary for summary in analysis.spectra}
    return [
        (method, found.trial, spectrum_table(by_trial[found.trial]))
        for method, found in analysis.recommendation.items()
        if found.trial in by_trial
    ]


def _weights(found: Recommendation, domain: DomainReport, out: Path) -> str | None:
    """Link a method's best weights, where they lie beside the report's folder."""
    method, sweep = found.method, SweepPaths(out.parent)
    folder = sweep.best(method, domain.results.domain)
    name = sweep.best_trial(method, domain.results.domain)
    plain = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", method)
    if not plain or not folder.is_dir():
        return None
    if name.is_file() and name.read_text(encoding="utf-8").strip() != found.trial:
        return None  # the weights of an earlier best, since this one's could not be copied
    return f"../{folder.relative_to(out.parent)}/"
