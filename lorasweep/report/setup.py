"""How a sweep was made, and the commands that make it again."""

from __future__ import annotations

import shlex
from pathlib import Path

from lorasweep.analysis.result import Totals
from lorasweep.report.lanes import describe_lanes
from lorasweep.report.wording import Markdown, duration, number
from lorasweep.store.paths import SweepPaths
from lorasweep.store.results import SweepResults
from lorasweep.store.scores import Scores


def setup_of(results: SweepResults, totals: Totals) -> list[tuple[str, str]]:
    """Describe how the sweep was made, in pairs of words and values."""
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
        source = ", ".join(spec.evaluate.source) or "nothing"
        rows.append(("Source accuracy is measured by", source))
    for part in results.parts:
        if part.base is not None:
            of = f" ({part.domain})" if part.domain else ""
            rows.append((f"Base before tuning{of}", _scores(part.base)))
    rows += describe_lanes(results)
    if totals.wall_s or totals.tokens:
        rows.append(
            (
                "Budget spent",
                f"{duration(totals.wall_s)} summed over trials ({duration(totals.train_s)} in "
                f"training, {duration(totals.evaluate_s)} in evaluation), {totals.tokens:,} tokens",
            )
        )
    return rows


def _scores(base: Scores) -> str:
    return (
        f"learning {number(base.learning)}, source accuracy {number(base.source_accuracy)}, "
        f"response loss {number(base.response_loss)} nats per token"
    )


def commands_of(results: SweepResults) -> list[Markdown]:
    """List the commands that make the trials again and this report from them."""
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
