"""The analysis as JSON for other programs; a change of meaning raises the schema version.

What each field means stands in docs/analysis.md, and its form in `analysis.schema.json`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lorasweep.analysis.outcome import (
    lay_out_advice,
    lay_out_at_equal,
    lay_out_budget,
    lay_out_claim,
    lay_out_curve,
    lay_out_hypervolume,
    lay_out_noise,
)
from lorasweep.analysis.ranked import (
    lay_out_alternatives,
    lay_out_divergence,
    lay_out_interaction,
    lay_out_ranking,
    lay_out_row,
    lay_out_rule,
    lay_out_top,
)
from lorasweep.analysis.sensitivity.levels import LevelSummary
from lorasweep.analysis.summary import Analysis
from lorasweep.analysis.tradeoff.programs import Programs
from lorasweep.analysis.tradeoff.spectral import SpectralSummary
from lorasweep.spec.studies import study_name
from lorasweep.store.best import RULE, Best, Standing
from lorasweep.store.results import SweepResults

SCHEMA_VERSION = 1
MOST_NAMED = 20


def describe(
    results: SweepResults, parts: Sequence[tuple[SweepResults, Analysis]]
) -> dict[str, Any]:
    """Lay the analysis out as plain values; what is unknown is null, and there is no NaN.

    What stands by method stands by domain and method, as in `code/full`, where the sweep has
    several domains; the fronts name their domain.
    """
    totals = [analysis.totals for _, analysis in parts]
    rankings, advice = _all(parts, "rankings"), _all(parts, "advice")
    document = {
        "schema_version": SCHEMA_VERSION,
        "name": results.name,
        "question": results.question,
        "axes": list(results.axes),
        "domains": [part.domain for part, _ in parts if part.domain],
        "state": results.state,
        "trials": {"total": len(results.trials), "by_method": _all(parts, "statuses")},
        "base": results.base.model_dump() if results.base else None,
        "bases": {domain: scores.model_dump() for domain, scores in results.bases.items()},
        "sensitivity": {m: [lay_out_row(row) for row in r.rows] for m, r in rankings.items()},
        "ranking": {m: lay_out_ranking(r) for m, r in rankings.items()},
        "interactions": {
            m: [lay_out_interaction(row) for row in r.interactions] for m, r in rankings.items()
        },
        "top": {m: lay_out_top(r) for m, r in _all(parts, "top").items()},
        "by_alpha_rule": {
            m: [lay_out_rule(rule) for rule in rules]
            for m, rules in _all(parts, "by_alpha_rule").items()
        },
        "alternatives": {
            m: [lay_out_alternatives(row) for row in rows]
            for m, rows in _all(parts, "alternatives").items()
        },
        "divergence": {m: lay_out_divergence(d) for m, d in _all(parts, "divergence").items()},
        "levels": {
            method: {name: [_level(level) for level in rows] for name, rows in tables.items()}
            for method, tables in _all(parts, "levels").items()
        },
        "front": [
            {
                "scope": point.scope,
                "domain": part.domain,
                "trial": point.trial,
                "method": point.method,
                "learning": point.learning,
                "forgetting": point.forgetting,
                "source_accuracy": point.source_accuracy,
                "certain": point.certain,
            }
            for part, analysis in parts
            for point in analysis.front
        ],
        "contenders": [
            {"scope": scope, "domain": part.domain, "n": len(trials), "trials": trials[:MOST_NAMED]}
            for part, analysis in parts
            for scope, trials in analysis.contenders.items()
        ],
        "noise": [
            {"domain": part.domain, "outcome": outcome, **lay_out_noise(noise)}
            for part, analysis in parts
            for outcome, noise in analysis.noise.items()
        ],
        "curves": [
            {"domain": part.domain, **lay_out_curve(curve)}
            for part, analysis in parts
            for curve in analysis.curves
        ],
        "hypervolume": [
            {"domain": part.domain, **lay_out_hypervolume(row)}
            for part, analysis in parts
            for row in analysis.hypervolumes
        ],
        "equal": [
            {"domain": part.domain, **lay_out_at_equal(row)}
            for part, analysis in parts
            for row in analysis.at_equal
        ],
        "claims": [lay_out_claim(claim) for _, analysis in parts for claim in analysis.claims],
        "recommendation": {
            m: {**_recommendation(best), **lay_out_advice(advice[m])}
            for m, best in _all(parts, "best").items()
        },
        "budget": lay_out_budget(results),
        "programs": [
            {"domain": part.domain, **_programs(row)}
            for part, analysis in parts
            for row in analysis.programs
        ],
        "spectra": [
            {"domain": part.domain, "trial": trial, **_spectrum(summary)}
            for part, analysis in parts
            for trial, summary in analysis.spectra.items()
        ],
        "proxy": {
            method: {"n": proxy.n, "spearman": proxy.correlation}
            for method, proxy in _all(parts, "proxy").items()
        },
        "totals": {
            "wall_s": sum(total.wall_s for total in totals),
            "train_s": sum(total.train_s for total in totals),
            "evaluate_s": sum(total.evaluate_s for total in totals),
            "tokens": sum(total.tokens for total in totals),
        },
        "warnings": list(
            dict.fromkeys(sentence for _, analysis in parts for sentence in analysis.warnings)
        ),
    }
    finite: dict[str, Any] = _finite(document)
    return finite


def _finite(value: Any) -> Any:
    """Put null in the place of what JSON cannot say, wherever it stands."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def to_json(document: Mapping[str, Any]) -> str:
    """Write what `describe` gave as JSON text."""
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _all(parts: Sequence[tuple[SweepResults, Analysis]], what: str) -> dict[str, Any]:
    """Bring together what the parts have by method."""
    return {
        study_name(method, part.domain): value
        for part, analysis in parts
        for method, value in getattr(analysis, what).items()
    }


def _programs(row: Programs) -> dict[str, Any]:
    content = asdict(row)
    for kind in ("exact", "whitespace", "syntax"):
        content[kind] = getattr(row, kind).model_dump()
    return content


def _spectrum(summary: SpectralSummary) -> dict[str, Any]:
    return {
        "whole": asdict(summary.whole),
        "by_module": {name: asdict(ranks) for name, ranks in summary.by_module.items()},
        "by_layer": {str(layer): asdict(ranks) for layer, ranks in summary.by_layer.items()},
    }


def _level(level: LevelSummary) -> dict[str, Any]:
    return {
        "level": level.level,
        "n": level.n,
        "best": level.best,
        "mean": level.mean_learning,
        "mean_source_accuracy": level.mean_source_accuracy,
        "mean_forgetting": level.mean_forgetting,
        "pruned": level.pruned,
        "diverged": level.diverged,
        "failed": level.failed,
        "running": level.running,
    }


def _standing(standing: Standing) -> dict[str, Any]:
    return {
        "trial": standing.trial,
        "configuration": dict(standing.configuration),
        "learning": standing.learning,
        "forgetting": standing.forgetting,
        "source_accuracy": standing.source_accuracy,
        "seeds": list(standing.seeds),
        "scores": list(standing.scores),
        "lost": standing.lost,
    }


def _recommendation(best: Best) -> dict[str, Any]:
    return {
        **_standing(best.winner),
        "rule": RULE,
        "runner_up": _standing(best.runner_up) if best.runner_up else None,
        "unconfirmed": _standing(best.unconfirmed) if best.unconfirmed else None,
    }
