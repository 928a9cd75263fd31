"""The analysis as JSON for other programs; a change of meaning raises the schema version."""

from __future__ import annotations

import json
from typing import Any

from lorasweep.analysis.best import RULE, Best, Standing
from lorasweep.analysis.importance import Ranking, Sensitivity
from lorasweep.analysis.levels import LevelSummary
from lorasweep.analysis.summary import Analysis
from lorasweep.store.results import SweepResults

SCHEMA_VERSION = 1


def describe(results: SweepResults, analysis: Analysis) -> dict[str, Any]:
    """Lay the analysis out as plain values; what is unknown is null, and there is no NaN."""
    return {
        "schema_version": SCHEMA_VERSION,
        "name": results.name,
        "question": results.question,
        "axes": list(results.axes),
        "state": results.state,
        "trials": {"total": len(results.trials), "by_method": analysis.statuses},
        "base": results.base.model_dump() if results.base else None,
        "sensitivity": {m: [_row(row) for row in r.rows] for m, r in analysis.rankings.items()},
        "ranking": {method: _ranking(r) for method, r in analysis.rankings.items()},
        "levels": {
            method: {name: [_level(level) for level in rows] for name, rows in tables.items()}
            for method, tables in analysis.levels.items()
        },
        "front": [
            {
                "scope": point.scope,
                "trial": point.trial,
                "method": point.method,
                "learning": point.learning,
                "forgetting": point.forgetting,
                "source_accuracy": point.source_accuracy,
            }
            for point in analysis.front
        ],
        "recommendation": {method: _recommendation(b) for method, b in analysis.best.items()},
        "proxy": {
            method: {"n": proxy.n, "spearman": proxy.correlation}
            for method, proxy in analysis.proxy.items()
        },
        "totals": {
            "wall_s": analysis.totals.wall_s,
            "train_s": analysis.totals.train_s,
            "evaluate_s": analysis.totals.evaluate_s,
            "tokens": analysis.totals.tokens,
        },
        "warnings": list(analysis.warnings),
    }


def to_json(results: SweepResults, analysis: Analysis) -> str:
    """Write the analysis as JSON text."""
    document = describe(results, analysis)
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _row(row: Sensitivity) -> dict[str, Any]:
    return {
        "hyperparameter": row.hyperparameter,
        "importance": row.importance,
        "low": row.low,
        "high": row.high,
        "rank": row.rank,
        "tied_with": list(row.tied_with),
        "rank_holds": row.holds,
        "chance": row.chance,
        "above_chance": row.is_shown,
        "cost_of_wrong_level": row.cost_of_wrong_level,
        "cost_low": row.cost_low,
        "cost_high": row.cost_high,
        "best_level": row.best_level,
        "worst_level": row.worst_level,
    }


def _ranking(ranking: Ranking) -> dict[str, Any]:
    return {
        "method_of_ranking": ranking.design,
        "configurations": ranking.configurations,
        "redrawn_samples": ranking.redrawn,
        "unexplained": ranking.unexplained if ranking.rows else None,
        "reason": ranking.reason,
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
