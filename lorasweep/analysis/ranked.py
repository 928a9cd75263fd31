"""How rankings, costs of levels and divergence stand in the document; None for unknown."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lorasweep.analysis.sensitivity.alpha_rules import WithinRule
from lorasweep.analysis.sensitivity.alternatives import Alternatives
from lorasweep.analysis.sensitivity.divergence import Divergence
from lorasweep.analysis.sensitivity.importance import Ranking, Sensitivity
from lorasweep.analysis.sensitivity.interactions import Interaction
from lorasweep.analysis.sensitivity.top import TopRanking


def lay_out_row(row: Sensitivity) -> dict[str, Any]:
    """Lay out how much one hyperparameter matters."""
    return {
        "hyperparameter": row.hyperparameter,
        "importance": row.importance,
        "low": row.low,
        "high": row.high,
        "rank": row.rank,
        "tied_with": list(row.tied_with),
        "rank_holds": row.holds,
        "above_next": row.above_next,
        "chance": row.chance,
        "above_chance": row.is_shown,
        "cost_of_wrong_level": row.cost_of_wrong_level,
        "cost_low": row.cost_low,
        "cost_high": row.cost_high,
        "best_level": row.best_level,
        "worst_level": row.worst_level,
    }


def lay_out_ranking(ranking: Ranking) -> dict[str, Any]:
    """Lay out how a ranking was made."""
    return {
        "method_of_ranking": ranking.design,
        "configurations": ranking.configurations,
        "forest_rows": ranking.forest_rows,
        "redrawn_samples": ranking.redrawn,
        "unexplained": ranking.unexplained if ranking.rows else None,
        "reason": ranking.reason,
    }


def lay_out_interaction(row: Interaction) -> dict[str, Any]:
    """Lay out what two hyperparameters do only together."""
    return {
        "hyperparameters": list(row.hyperparameters),
        "share": row.importance,
        "low": row.low,
        "high": row.high,
        "chance": row.chance,
        "above_chance": row.is_shown,
        "testable": row.is_testable,
    }


def lay_out_top(ranking: TopRanking) -> list[dict[str, Any]]:
    """Lay out what it takes to be among the best."""
    return [
        {
            "hyperparameter": row.hyperparameter,
            "importance": row.importance,
            "low": row.low,
            "high": row.high,
            "divergence": row.divergence,
            "chance": row.chance,
            "above_chance": row.is_shown,
            "quantile": ranking.quantile,
        }
        for row in ranking.rows
    ]


def lay_out_alternatives(found: Alternatives) -> dict[str, Any]:
    """Lay out what other levels of one hyperparameter reach."""
    return asdict(found)


def lay_out_divergence(found: Divergence) -> dict[str, Any]:
    """Lay out what diverged of one method."""
    return {
        "by_level": {name: [asdict(row) for row in rows] for name, rows in found.by_level.items()},
        "stable_rate": None if found.stable_rate is None else asdict(found.stable_rate),
        "moved_by": [
            {
                "hyperparameter": row.hyperparameter,
                "p_value": row.p_value,
                "moves": row.moves,
                "levels": [{"level": level, **asdict(rate)} for level, rate in row.levels],
            }
            for row in found.moved_by
        ],
    }


def lay_out_rule(found: WithinRule) -> dict[str, Any]:
    """Lay out the ranking under one rule for alpha."""
    return {
        "rule": found.rule,
        "configurations": found.configurations,
        "sensitivity": [lay_out_row(row) for row in found.ranking.rows],
        "reason": found.ranking.reason,
    }
