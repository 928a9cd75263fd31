"""The report's folder: a page, Markdown, figures, all trials, the analysis for other programs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorasweep.analysis.document import describe, to_json
from lorasweep.analysis.summary import Analysis, analyse
from lorasweep.analysis.tradeoff.pareto import POOLED
from lorasweep.report.draw import draw
from lorasweep.report.evidence import evidence_tables
from lorasweep.report.figures import pictures
from lorasweep.report.findings import answer, findings
from lorasweep.report.html import render_page
from lorasweep.report.lanes import describe_lanes
from lorasweep.report.picture import Picture
from lorasweep.report.programs import program_table
from lorasweep.report.spectra import spectrum_table
from lorasweep.report.tables import (
    MOST_ROWS,
    best_table,
    claim_table,
    findings_table,
    front_table,
    level_table,
    sensitivity_table,
    status_table,
    trial_table,
    undecided_table,
)
from lorasweep.report.wording import Markdown, duration, escape, number, percent, table
from lorasweep.store.best import RULE
from lorasweep.store.paths import SweepPaths, write_atomically
from lorasweep.store.results import SweepResults
from lorasweep.store.scores import Scores
from lorasweep.store.table import format_table

_DESIGNS = {
    "anova": "Exact shares of the variance of learning over a full factorial (ANOVA).",
    "functional anova": (
        "Shares of the variance of learning by functional ANOVA, a random forest's estimate over "
        "the region in which trials completed."
    ),
}


@dataclass(frozen=True, slots=True)
class ReportPaths:
    """Name what was written."""

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
    parts = [(part, analyse(part)) for part in results.parts]
    document = describe(results, parts)
    drawn = [pictures(part, analysis) for part, analysis in parts]
    figures = [
        path
        for own in drawn
        for picture in own
        if picture.panels
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
    write_atomically(paths.analysis, to_json(document))
    # Last, so that the text never speaks of files that are not there yet.
    write_atomically(paths.markdown, render(results, parts, drawn, document, out))
    page = render_page(
        results,
        parts,
        document,
        drawn,
        setup=_setup(results, parts),
        commands=_commands(results),
    )
    write_atomically(paths.page, page)
    return paths


def render(
    results: SweepResults,
    parts: Sequence[tuple[SweepResults, Analysis]],
    drawn: Sequence[Sequence[Picture]],
    document: Mapping[str, Any],
    out: Path,
) -> str:
    """Write the report's text; `out` is where it will lie, to link the weights beside it.

    Args:
        parts: the results and their analysis, domain by domain; drawn: the figures of each.
        document: the analysis as plain values.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("lorasweep.report"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        # Whatever the template prints is escaped here, so that no place can forget to.
        finalize=escape,
    )
    # A command stands in a fence, where nothing is escaped but the fence itself.
    environment.filters["command"] = lambda text: Markdown(text.replace("```", ""))
    domain = environment.get_template("domain.md.jinja")
    rendered = []
    for (part, analysis), own in zip(parts, drawn, strict=True):
        body = domain.render(_domain(part, analysis, own, document, out))
        if part.domain:  # its headings stand below the domain's own
            body = re.sub(r"^#", "##", body, flags=re.MULTILINE)
        rendered.append(
            {"domain": part.domain, "answer": answer(part, analysis), "body": Markdown(body)}
        )
    text = environment.get_template("report.md.jinja").render(
        results=results,
        parts=rendered,
        setup=_setup(results, parts),
        commands=_commands(results),
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def _domain(
    results: SweepResults,
    analysis: Analysis,
    drawn: Sequence[Picture],
    document: Mapping[str, Any],
    out: Path,
) -> dict[str, Any]:
    """Collect what the report says of one domain."""
    found = findings(results, analysis)
    pooled = [point for point in analysis.front if point.scope == POOLED]
    forgetting = all(point.forgetting is not None for point in pooled)
    return {
        "analysis": analysis,
        "statuses": status_table(analysis),
        "rule": RULE,
        "best": [
            {
                "method": method,
                "table": best_table(best, results.axes),
                "folder": _weights(best.winner.trial, method, results.domain, out),
                "advice": analysis.advice.get(method),
            }
            for method, best in analysis.best.items()
        ],
        "claims": claim_table(analysis.claims),
        "undecided": undecided_table(analysis.claims),
        "evidence": [
            {"caption": shown.caption, "table": table(shown.heads, shown.rows)}
            for shown in evidence_tables(results, analysis, document)
        ],
        "findings": findings_table(found) if found else None,
        "rankings": [
            {
                "ranking": ranking,
                "table": sensitivity_table(ranking) if ranking.rows else None,
                "design": _DESIGNS.get(ranking.design, ""),
                "unexplained": percent(ranking.unexplained),
            }
            for ranking in analysis.rankings.values()
        ],
        "pictures": [
            {
                "picture": picture,
                "table": table(picture.table.heads, picture.table.rows)
                if picture.table and not picture.tabled
                else None,
            }
            for picture in drawn
            if picture.panels
        ],
        "missing": [picture.missing for picture in drawn if picture.missing],
        "front": front_table(results, analysis),
        "front_cost": "forgetting more" if forgetting else "losing more source accuracy",
        "programs": program_table(analysis),
        "spectra": [
            {
                "method": method,
                "trial": best.winner.trial,
                "table": spectrum_table(analysis.spectra[best.winner.trial]),
            }
            for method, best in analysis.best.items()
            if best.winner.trial in analysis.spectra
        ],
        "levels": [
            {"method": method, "name": name, "table": level_table(name, levels)}
            for method, tables in analysis.levels.items()
            for name, levels in tables.items()
        ],
        "trials": trial_table(results),
        "left_out": max(0, len(results.trials) - MOST_ROWS),
    }


def _setup(
    results: SweepResults, parts: Sequence[tuple[SweepResults, Analysis]]
) -> list[tuple[str, str]]:
    """Say in pairs of words and values how the sweep was made."""
    spec = results.spec
    rows = [("Trials from", results.origin), ("Searched", ", ".join(results.axes) or "nothing")]
    if spec is not None:
        revision = f" at {spec.model.revision}" if spec.model.revision else ""
        duration_text = (
            f"{spec.train.steps} optimizer steps a trial"
            if spec.train.steps
            else f"{spec.hyperparameters.epochs:g} epochs a trial, unless searched"
        )
        rows += [
            ("Model", f"{spec.model.path}{revision}"),
            ("Training", f"{spec.train.optimizer}, {spec.train.schedule}, {duration_text}"),
        ]
        for study in spec.studies:
            of = f" ({study.study_name})" if len(spec.studies) > 1 else ""
            search = study.search
            rows += [
                (f"Data{of}", study.data.path),
                (
                    f"Search{of}",
                    f"{search.algorithm}, stopping by {search.scheduler}, seed {study.seed}",
                ),
                (f"Learning is measured by{of}", ", ".join(study.evaluate.learning)),
            ]
        rows.append(("Source accuracy is measured by", ", ".join(spec.evaluate.source)))
    for part, _ in parts:
        if part.base is not None:
            of = f" ({part.domain})" if part.domain else ""
            rows.append((f"Base before tuning{of}", _scores(part.base)))
    rows += describe_lanes(results)
    totals = [analysis.totals for _, analysis in parts]
    tokens, wall_s = sum(t.tokens for t in totals), sum(t.wall_s for t in totals)
    if wall_s or tokens:
        train_s, evaluate_s = sum(t.train_s for t in totals), sum(t.evaluate_s for t in totals)
        rows.append(
            (
                "Budget spent",
                f"{duration(wall_s)} summed over trials ({duration(train_s)} in training, "
                f"{duration(evaluate_s)} in evaluation), {tokens:,} tokens",
            )
        )
    return rows


def _scores(base: Scores) -> str:
    return (
        f"learning {number(base.learning)}, source accuracy {number(base.source_accuracy)}, "
        f"response loss {number(base.response_loss)} nats per token"
    )


def _weights(trial: str, method: str, domain: str, out: Path) -> str | None:
    """Give the link to a method's best weights, where they lie beside the report's folder."""
    paths = SweepPaths(out.parent)
    folder, name = paths.best(method, domain), paths.best_trial(method, domain)
    plain = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", method)
    if not plain or not folder.is_dir():
        return None
    if name.is_file() and name.read_text(encoding="utf-8").strip() != trial:
        return None  # an earlier best's, since this one's could not be copied
    return f"../{folder.relative_to(out.parent)}/"


def _commands(results: SweepResults) -> list[Markdown]:
    """Give the commands that make the trials again and this report from them."""
    if results.sweeps:
        folders = " ".join(shlex.quote(sweep.origin) for sweep in results.sweeps)
        return [Markdown(f"lorasweep report {folders}")]
    origin = shlex.quote(" ".join(results.origin.split()))
    if results.spec is None:
        space = shlex.quote(",".join(results.axes))
        return [Markdown(f"lorasweep report --table {origin} --space {space}")]
    sweep = shlex.quote(str(SweepPaths(Path(results.origin)).sweep))
    return [
        Markdown(f"lorasweep tune {sweep} --out results/{results.name}-again"),
        Markdown(f"lorasweep report {origin}"),
    ]
