"""Claims on which hyperparameter matters most, read from the ranking of LoRA's."""

from __future__ import annotations

import math

from lorasweep.analysis.claims.verdict import (
    BIDERMAN,
    UNIFIED,
    Comparison,
    Definition,
    Outcome,
    Region,
    cite,
    not_tested,
)
from lorasweep.analysis.evidence import Evidence
from lorasweep.analysis.intervals import Estimate
from lorasweep.analysis.scale import DURATIONS
from lorasweep.analysis.sensitivity.importance import Ranking, Sensitivity

_ORDER = ("lr", "targets", "rank")
_NEGLIGIBLE = 0.01
_FEWEST_RATES = 3  # fewer do not show that learning rises with the rate and falls again


def _rows(evidence: Evidence) -> tuple[Ranking | None, dict[str, Sensitivity]]:
    ranking = evidence.rankings.get("lora")
    rows = {} if ranking is None else {row.hyperparameter: row for row in ranking.rows}
    return ranking, rows


def _gap(ranking: Ranking, left: Sensitivity, right: Sensitivity) -> Comparison:
    """Compare two importances; where the ranking calls them tied the interval holds no gap too."""
    effect = left.importance - right.importance
    reach = math.hypot(left.high - left.low, right.high - right.low) / 2
    low, high = effect - reach, effect + reach
    # The ranking compares them draw by draw, which is sharper than two intervals side by side.
    tied = right.hyperparameter in left.tied_with or left.hyperparameter in right.tied_with
    if tied or left.rank == right.rank:
        low, high = min(low, 0.0), max(high, 0.0)
    estimate = Estimate(
        effect=effect,
        low=max(-1.0, low),
        high=min(1.0, high),
        n=ranking.configurations,
        n_of="configurations",
        basis=f"shares of the variance of learning, {ranking.design}",
    )
    what = f"importance, {left.hyperparameter} minus {right.hyperparameter}"
    return Comparison(what=what, estimate=estimate, region=Region(above=0.0))


def _few_rates(evidence: Evidence) -> Outcome | None:
    """Refuse to judge how much the learning rate matters where it was hardly varied."""
    column = evidence.table("lora").scored.columns.get("lr")
    if column is None or len(column.levels) >= _FEWEST_RATES:
        return None
    return not_tested(
        f"LoRA completed at {len(column.levels)} learning rates, and {_FEWEST_RATES} are needed to "
        "see how much they matter"
    )


def _in_order(evidence: Evidence) -> Outcome:
    if few := _few_rates(evidence):
        return few
    ranking, rows = _rows(evidence)
    lacking = [name for name in _ORDER if name not in rows]
    if ranking is None or lacking:
        reason = f" ({ranking.reason})" if ranking and ranking.reason else ""
        return not_tested(f"no ranking of {', '.join(lacking or _ORDER)} in LoRA{reason}")
    parts = [_gap(ranking, rows[a], rows[b]) for a, b in (("lr", "targets"), ("targets", "rank"))]
    return Outcome(tuple(parts))


def _lr_first(evidence: Evidence) -> Outcome:
    if few := _few_rates(evidence):
        return few
    ranking, rows = _rows(evidence)
    # How long a model is trained is a budget and not a setting to get right.
    others = [row for name, row in rows.items() if name not in {"lr", *DURATIONS}]
    if ranking is None or "lr" not in rows or not others:
        return not_tested("no ranking of lr and another hyperparameter of LoRA")
    return Outcome(tuple(_gap(ranking, rows["lr"], row) for row in others))


def _all_matter(evidence: Evidence) -> Outcome:
    if few := _few_rates(evidence):
        return few
    ranking, rows = _rows(evidence)
    wanted = [name for name in (*_ORDER, "alpha") if name in rows]
    if ranking is None or not set(_ORDER) <= set(wanted):
        return not_tested("no ranking of lr, targets and rank in LoRA")
    parts = []
    for name in wanted:
        row = rows[name]
        low = row.low if row.above_chance else min(row.low, _NEGLIGIBLE)
        estimate = Estimate(
            effect=row.importance,
            low=low,
            high=row.high,
            n=ranking.configurations,
            n_of="configurations",
            basis=f"share of the variance of learning, {ranking.design}",
        )
        region = Region(above=_NEGLIGIBLE)
        parts.append(Comparison(what=f"importance of {name}", estimate=estimate, region=region))
    return Outcome(tuple(parts))


_SEARCH = "Run a grid over lr, targets and rank with two seeds, or 40 random trials"

CLAIMS = (
    Definition(
        "lr-over-targets-over-rank",
        "The learning rate matters more than the target modules, and those more than the rank.",
        (
            cite(BIDERMAN, "v1", "sensitivity", "learning rate, then modules, then rank"),
            cite(BIDERMAN, "v2", "section 4.4, appendix B", "no strict order; alpha matters too"),
        ),
        "share of variance, the former minus the latter",
        "holds if both gaps are above 0 and the ranking calls neither a tie",
        _SEARCH,
        _in_order,
    ),
    Definition(
        "lr-most-sensitive",
        "The learning rate is the hyperparameter that matters most to LoRA.",
        (
            cite(UNIFIED, "", "abstract", "by far the most sensitive"),
            cite(BIDERMAN, "v1", "sensitivity", "first of three"),
        ),
        "share of variance, lr minus another hyperparameter",
        "holds if lr is above every other one and the ranking calls none a tie",
        _SEARCH,
        _lr_first,
    ),
    Definition(
        "lr-targets-rank-and-alpha-all-matter",
        "Learning rate, target modules, rank and alpha all matter.",
        (
            cite(BIDERMAN, "v1", "sensitivity", "rank matters least"),
            cite(BIDERMAN, "v2", "section 4.4", "all four matter, in no strict order"),
        ),
        "share of variance, the smallest of them",
        "holds if each is above 1% and stands out from chance",
        _SEARCH + "; alpha too",
        _all_matter,
    ),
)
