"""What the page's scripts draw from: trials by column and the parts of the analysis with a plot."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from lorasweep.analysis.scale import Scale
from lorasweep.analysis.summary import Analysis
from lorasweep.report.wording import level
from lorasweep.store.results import SweepResults, TrialResult

# What the figures read of the analysis; the page has the rest as text and tables.
_DRAWN = ("sensitivity", "ranking", "top", "interactions", "front", "curves", "programs")
_COLUMNS = (
    *("trial", "method", "status", "stage", "error", "seed", "number", "learning", "forgetting"),
    *("source_accuracy", "response_loss", "tokens", "wall_s"),
)
# A cell of a table made elsewhere may hold a book; the page shows names, and trials.csv has it all.
LONGEST = 300


def embed(
    parts: Sequence[tuple[SweepResults, Analysis]], document: Mapping[str, Any]
) -> tuple[str, int]:
    """Write the data as JSON that can stand in a script element, and count the trials.

    Whatever the text holds, it cannot end that element nor open another: `<`, `>` and `&` are
    written as escapes of JSON, and so is all that is not ASCII.
    """
    content = {
        "document": {key: document[key] for key in _DRAWN if key in document},
        "parts": [_part(part, analysis) for part, analysis in parts],
    }
    text = json.dumps(tidy(content), separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text, sum(len(part.trials) for part, _ in parts)


def tidy(value: Any) -> Any:
    """Cut long text, write numbers with seven digits, and put null where there is none."""
    if isinstance(value, str):
        return value if len(value) <= LONGEST else f"{value[: LONGEST - 1]}…"
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return int(value) if value.is_integer() and abs(value) < 1e15 else float(f"{value:.7g}")
    if isinstance(value, Mapping):
        return {tidy(str(key)): tidy(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [tidy(item) for item in value]
    return value


def _part(results: SweepResults, analysis: Analysis) -> dict[str, Any]:
    names = dict.fromkeys(
        (*results.axes, *(name for trial in results.trials for name in trial.hyperparameters))
    )
    base = results.base
    return {
        "domain": results.domain,
        "methods": analysis.methods,
        "base": base and {"learning": base.learning, "source_accuracy": base.source_accuracy},
        "scales": {
            method: [_scale(scale) for scale in scales.values()]
            for method, scales in analysis.scales.items()
        },
        "columns": {name: [getattr(t, name) for t in results.trials] for name in _COLUMNS},
        "hyperparameters": [
            {
                "name": name,
                "searched": name in results.axes,
                "values": [trial.hyperparameters.get(name) for trial in results.trials],
            }
            for name in names
        ],
        "spectra": _spectra(results.trials, analysis),
    }


def _scale(scale: Scale) -> dict[str, Any]:
    labels = scale.labels if scale.is_interval else [level(value) for value in scale.levels]
    return {
        "name": scale.name,
        "kind": scale.kind,
        "labels": labels,
        "levels": scale.levels,
        "edges": scale.edges,
    }


def _spectra(trials: Sequence[TrialResult], analysis: Analysis) -> list[dict[str, Any]]:
    """Give the matrices of each method's best trial, those in blocks."""
    best = {found.winner.trial: method for method, found in analysis.best.items()}
    return [
        {
            "method": best[trial.trial],
            "trial": trial.trial,
            "matrices": [
                {
                    "layer": row.layer,
                    "module": row.module,
                    "update": row.update,
                    "noise": row.noise,
                    "full": min(row.outputs, row.inputs),
                    "share": row.share,
                    "intruders": row.intruders,
                }
                for row in trial.spectrum
                if row.layer is not None
            ],
        }
        for trial in trials
        if trial.trial in best and trial.spectrum
    ]
