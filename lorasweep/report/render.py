"""The report's folder: Markdown, figures, all trials and the analysis for other programs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lorasweep.analysis.best import RULE
from lorasweep.analysis.document import to_json
from lorasweep.analysis.pareto import POOLED
from lorasweep.analysis.summary import Analysis, analyse
from lorasweep.report.draw import draw
from lorasweep.report.figures import Picture, pictures
from lorasweep.report.findings import answer, findings
from lorasweep.report.tables import (
    best_table,
    findings_table,
    front_table,
    level_table,
    sensitivity_table,
    status_table,
    trial_table,
)
from lorasweep.report.wording import Markdown, duration, escape, number, percent
from lorasweep.store.paths import SweepPaths, write_atomically
from lorasweep.store.records import LaneEnded
from lorasweep.store.results import SweepResults
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
    markdown: Path
    trials: Path
    analysis: Path
    figures: tuple[Path, ...]


def write_report(results: SweepResults, out: Path) -> ReportPaths:
    """Write the report of a sweep, finished or not, into a folder.

    The same trials give the same bytes; each file is replaced whole.
    """
    analysis = analyse(results)
    drawn = pictures(results, analysis)
    figures = [path for picture in drawn for path in draw(picture, out / "figures")]
    paths = ReportPaths(
        out, out / "report.md", out / "trials.csv", out / "analysis.json", tuple(figures)
    )
    write_atomically(paths.trials, format_table(results.trials))
    write_atomically(paths.analysis, to_json(results, analysis))
    # Last, so that the text never speaks of files that are not there yet.
    write_atomically(paths.markdown, render(results, analysis, drawn, out))
    return paths


def render(results: SweepResults, analysis: Analysis, drawn: Sequence[Picture], out: Path) -> str:
    """Write the report's text; `out` is where it will lie, to link the weights beside it."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("lorasweep.report"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        # Whatever the template prints is escaped here, so that no place can forget to.
        finalize=escape,
    )
    found = findings(results, analysis)
    pooled = [point for point in analysis.front if point.scope == POOLED]
    forgetting = all(point.forgetting is not None for point in pooled)
    text = environment.get_template("report.md.jinja").render(
        results=results,
        analysis=analysis,
        answer=answer(results, analysis),
        setup=_setup(results, analysis),
        statuses=status_table(analysis),
        rule=RULE,
        best=[
            {
                "method": method,
                "table": best_table(best, results.axes),
                "folder": _weights(method, out),
            }
            for method, best in analysis.best.items()
        ],
        findings=findings_table(found) if found else None,
        rankings=[
            {
                "ranking": ranking,
                "table": sensitivity_table(ranking) if ranking.rows else None,
                "design": _DESIGNS.get(ranking.design, ""),
                "unexplained": percent(ranking.unexplained),
            }
            for ranking in analysis.rankings.values()
        ],
        pictures=drawn,
        front=front_table(results, analysis),
        front_cost="forgetting more" if forgetting else "losing more source accuracy",
        levels=[
            {"method": method, "name": name, "table": level_table(name, levels)}
            for method, tables in analysis.levels.items()
            for name, levels in tables.items()
        ],
        trials=trial_table(results),
        commands=_commands(results),
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def _setup(results: SweepResults, analysis: Analysis) -> list[tuple[str, str]]:
    spec = results.spec
    rows = [("Trials from", results.origin), ("Searched", ", ".join(results.axes) or "nothing")]
    if spec is not None:
        revision = f" at {spec.model.revision}" if spec.model.revision else ""
        duration_text = (
            f"{spec.train.steps} optimizer steps a trial"
            if spec.train.steps
            else f"{spec.hyperparameters.epochs:g} epochs a trial, unless searched"
        )
        search = spec.search
        rows += [
            ("Model", f"{spec.model.path}{revision}"),
            ("Data", spec.data.path),
            ("Training", f"{spec.train.optimizer}, {spec.train.schedule}, {duration_text}"),
            ("Search", f"{search.algorithm}, stopping by {search.scheduler}, seed {spec.seed}"),
            ("Learning is measured by", ", ".join(spec.evaluate.learning)),
            ("Source accuracy is measured by", ", ".join(spec.evaluate.source)),
        ]
    if results.base is not None:
        base = results.base
        rows.append(
            (
                "Base before tuning",
                f"learning {number(base.learning)}, source accuracy "
                f"{number(base.source_accuracy)}, response loss {number(base.response_loss)} "
                "nats per token",
            )
        )
    rows += [(f"Lane {lane.lane}", _lane(lane)) for lane in results.lanes]
    totals = analysis.totals
    if totals.wall_s or totals.tokens:
        rows.append(
            (
                "Budget spent",
                f"{duration(totals.wall_s)} summed over trials ({duration(totals.train_s)} in "
                f"training, {duration(totals.evaluate_s)} in evaluation), {totals.tokens:,} tokens",
            )
        )
    return rows


def _lane(lane: LaneEnded) -> str:
    """Say how many trials shared a base, and why."""
    speeds = ", ".join(f"{speed:,.0f} with {n}" for n, speed in lane.tokens_per_s.items())
    measured = f" (tokens a second: {speeds})" if speeds else ""
    busy = "" if lane.occupancy is None else f"; {percent(lane.occupancy)} of them were filled"
    slots = "1 slot" if lane.slots == 1 else f"{lane.slots} slots"
    return f"{slots} on one base, {lane.reason}{measured}{busy}"


def _weights(method: str, out: Path) -> str | None:
    """Give the link to a method's best weights, where they lie beside the report's folder."""
    plain = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", method)
    folder = SweepPaths(out.parent).best(method)
    return f"../best/{method}/" if plain and folder.is_dir() else None


def _commands(results: SweepResults) -> list[Markdown]:
    """Give the commands that make the trials again and this report from them."""
    origin = shlex.quote(" ".join(results.origin.split()))
    if results.spec is None:
        space = shlex.quote(",".join(results.axes))
        return [Markdown(f"lorasweep report --table {origin} --space {space}")]
    sweep = shlex.quote(str(SweepPaths(Path(results.origin)).sweep))
    return [
        Markdown(f"lorasweep tune {sweep} --out results/{results.name}-again"),
        Markdown(f"lorasweep report {origin}"),
    ]
