"""Compare all trials of a sweep, finished or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeVar

from lorasweep.analysis.advice.caution import warn_of_domain, warn_of_sweep
from lorasweep.analysis.advice.recommend import recommend
from lorasweep.analysis.claims import judge_claims
from lorasweep.analysis.evidence import collect
from lorasweep.analysis.intervals import rank_correlation
from lorasweep.analysis.result import (
    BY_DOMAIN,
    BY_STUDY,
    Analysis,
    Budget,
    Proxy,
    ScoreNoise,
    Totals,
)
from lorasweep.analysis.scale import scales
from lorasweep.analysis.sensitivity.alpha_rules import rank_within_alpha_rules
from lorasweep.analysis.sensitivity.alternatives import compare_levels
from lorasweep.analysis.sensitivity.divergence import summarise_divergence
from lorasweep.analysis.sensitivity.importance import rank_hyperparameters
from lorasweep.analysis.sensitivity.levels import summarise_levels
from lorasweep.analysis.sensitivity.top import rank_near_top
from lorasweep.analysis.tradeoff.curves import trace_curves
from lorasweep.analysis.tradeoff.hypervolume import measure_hypervolumes
from lorasweep.analysis.tradeoff.pareto import contenders, fronts
from lorasweep.analysis.tradeoff.programs import compare_programs
from lorasweep.analysis.tradeoff.spectral import summarise_spectrum
from lorasweep.analysis.types import Result
from lorasweep.spec.studies import study_name
from lorasweep.store.best import find_best
from lorasweep.store.configurations import configurations, methods
from lorasweep.store.results import SweepResults, TrialResult

_Value = TypeVar("_Value")
_Row = TypeVar("_Row", bound=Result)


def analyse(results: SweepResults) -> Analysis:
    """Compare all trials of a sweep; those of different domains are not compared."""
    parts = [_analyse_domain(results, part) for part in results.parts]
    joined = {
        **{name: {k: v for p in parts for k, v in getattr(p, name).items()} for name in BY_STUDY},
        **{name: tuple(row for p in parts for row in getattr(p, name)) for name in BY_DOMAIN},
    }
    warnings = (*warn_of_sweep(results), *(w for part in parts for w in part.warnings))
    return parts[0].model_copy(update={**joined, "warnings": tuple(dict.fromkeys(warnings))})


def _analyse_domain(results: SweepResults, part: SweepResults) -> Analysis:
    by_method = {
        method: tuple(trial for trial in part.trials if trial.method == method)
        for method in methods(part.trials)
    }
    laid_out = {method: scales(part, trials) for method, trials in by_method.items()}
    grouped = configurations(part.trials)
    own = {method: [c for c in grouped if c.method == method] for method in by_method}
    rankings = {m: rank_hyperparameters(m, own[m], laid_out[m]) for m in by_method}
    found = {best.method: best for best in find_best(grouped)}
    best = {method: found[method] for method in by_method if method in found}
    evidence = collect(part, grouped, rankings)

    def by_study(values: Mapping[str, _Value]) -> dict[str, _Value]:
        return {study_name(method, part.domain): value for method, value in values.items()}

    return Analysis(
        name=results.name,
        question=results.question,
        axes=results.axes,
        domains=tuple(part.domain for part in results.parts if part.domain),
        state=results.state,
        base=results.base,
        bases=results.bases,
        statuses=by_study(
            {m: dict(Counter(t.status for t in trials)) for m, trials in by_method.items()}
        ),
        scales=by_study(laid_out),
        rankings=by_study(rankings),
        by_alpha_rule=by_study(
            {m: rank_within_alpha_rules(m, own[m], laid_out[m], rankings[m]) for m in by_method}
        ),
        top=by_study({m: rank_near_top(m, own[m], laid_out[m]) for m in by_method}),
        alternatives=by_study({m: compare_levels(own[m], laid_out[m]) for m in by_method}),
        divergence=by_study(
            {m: summarise_divergence(t, laid_out[m]) for m, t in by_method.items()}
        ),
        levels=by_study({m: summarise_levels(t, laid_out[m]) for m, t in by_method.items()}),
        recommendation=by_study(recommend(evidence, best, laid_out)),
        proxy=by_study({method: _proxy(trials) for method, trials in by_method.items()}),
        noise=tuple(
            ScoreNoise(
                domain=part.domain,
                outcome="learning" if outcome == "learning" else "forgetting",
                **dict(noise),
            )
            for outcome, noise in evidence.noise.items()
        ),
        curves=trace_curves(part.trials),
        front=fronts(part.trials, evidence.noise),
        contenders=contenders(part.trials, evidence.noise),
        hypervolumes=measure_hypervolumes(part.trials, evidence.noise),
        matched_comparisons=_in_domain(evidence.matched, part.domain),
        claims=judge_claims(evidence),
        programs=_in_domain(compare_programs(part, best), part.domain),
        spectra=tuple(
            summary for t in part.trials if (summary := summarise_spectrum(t)) is not None
        ),
        budget=_budget(results),
        totals=_totals(results.trials),
        warnings=warn_of_domain(part, by_method, laid_out, rankings, best),
    )


def _in_domain(rows: Sequence[_Row], domain: str) -> tuple[_Row, ...]:
    return tuple(row.model_copy(update={"domain": domain}) for row in rows)


def _proxy(trials: Sequence[TrialResult]) -> Proxy:
    pairs = [
        (-trial.response_loss, trial.learning)
        for trial in trials
        if trial.status == "COMPLETE"
        and trial.learning is not None
        and trial.response_loss is not None
    ]
    correlation = rank_correlation([loss for loss, _ in pairs], [score for _, score in pairs])
    return Proxy(n=len(pairs), spearman=correlation)


def _totals(trials: Sequence[TrialResult]) -> Totals:
    return Totals(
        wall_s=sum(trial.wall_s for trial in trials),
        train_s=sum(trial.train_s for trial in trials),
        evaluate_s=sum(trial.evaluate_s for trial in trials),
        tokens=sum(trial.tokens for trial in trials),
    )


def _budget(results: SweepResults) -> Budget:
    finished = [trial for trial in results.trials if trial.status not in {"RUNNING", "PENDING"}]
    spent = sum(trial.wall_s for trial in finished)
    planned = results.trials_planned
    left = None if planned is None else max(0, planned - len(finished))
    return Budget(
        trials_planned=planned,
        trials_finished=len(finished),
        trials_left=left,
        wall_s_spent=spent,
        wall_s_left=left * spent / len(finished) if left is not None and finished else None,
    )
