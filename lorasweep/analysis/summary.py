"""Everything the report needs to know about a sweep, from its trials alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lorasweep.analysis.advice.advise import Advice, advise
from lorasweep.analysis.advice.caution import warn
from lorasweep.analysis.claims import judge_claims
from lorasweep.analysis.claims.verdict import Claim
from lorasweep.analysis.evidence import collect
from lorasweep.analysis.intervals import rank_correlation
from lorasweep.analysis.noise import Noise
from lorasweep.analysis.scale import Scale, scales
from lorasweep.analysis.sensitivity.alpha_rules import WithinRule, rank_within_alpha_rules
from lorasweep.analysis.sensitivity.alternatives import Alternatives, compare_levels
from lorasweep.analysis.sensitivity.divergence import Divergence, summarise_divergence
from lorasweep.analysis.sensitivity.importance import Ranking, rank_hyperparameters
from lorasweep.analysis.sensitivity.levels import LevelSummary, summarise_levels
from lorasweep.analysis.sensitivity.top import TopRanking, rank_near_top
from lorasweep.analysis.tradeoff.curves import Curve, trace_curves
from lorasweep.analysis.tradeoff.equal import AtEqual
from lorasweep.analysis.tradeoff.hypervolume import Hypervolume, measure_hypervolumes
from lorasweep.analysis.tradeoff.pareto import FrontPoint, contenders, fronts
from lorasweep.analysis.tradeoff.programs import Programs, compare_programs
from lorasweep.analysis.tradeoff.spectral import SpectralSummary, summarise
from lorasweep.store.best import Best, find_best
from lorasweep.store.configurations import configurations, methods
from lorasweep.store.results import SweepResults, TrialResult

__all__ = ["Analysis", "Proxy", "Totals", "analyse"]


@dataclass(frozen=True, slots=True)
class Proxy:
    """Hold how well the stopping proxy ranked the trials of a method.

    correlation: Spearman's, of low response loss with high learning; None below four trials or
        where either does not vary.
    n: completed trials with both.
    """

    n: int
    correlation: float | None


@dataclass(frozen=True, slots=True)
class Totals:
    """Hold what the trials took: wall seconds, the training and evaluation in them, and tokens."""

    wall_s: float
    train_s: float
    evaluate_s: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Analysis:
    """Hold the comparison of all trials of a sweep, or of one of its domains.

    statuses: trials by method and status; only what occurs.
    by_alpha_rule: rankings within each rule by which alpha follows the rank.
    top: what it takes to be among the best; alternatives: what other levels reach.
    noise: of one trial's `learning` and `cost`.
    contenders: by scope, trials off the front that noise alone may keep from it.
    advice: what each recommendation comes with.
    programs: rows of the comparison of what was run, empty where nothing was.
    spectra: of each trial whose update was measured.
    """

    methods: tuple[str, ...]
    statuses: Mapping[str, Mapping[str, int]]
    scales: Mapping[str, Mapping[str, Scale]]
    rankings: Mapping[str, Ranking]
    by_alpha_rule: Mapping[str, tuple[WithinRule, ...]]
    top: Mapping[str, TopRanking]
    alternatives: Mapping[str, tuple[Alternatives, ...]]
    divergence: Mapping[str, Divergence]
    levels: Mapping[str, Mapping[str, tuple[LevelSummary, ...]]]
    best: Mapping[str, Best]
    advice: Mapping[str, Advice]
    noise: Mapping[str, Noise]
    curves: tuple[Curve, ...]
    front: tuple[FrontPoint, ...]
    contenders: Mapping[str, tuple[str, ...]]
    hypervolumes: tuple[Hypervolume, ...]
    at_equal: tuple[AtEqual, ...]
    claims: tuple[Claim, ...]
    proxy: Mapping[str, Proxy]
    totals: Totals
    programs: tuple[Programs, ...]
    spectra: Mapping[str, SpectralSummary]
    warnings: tuple[str, ...]

    def count(self, status: str) -> int:
        """Count the trials of all methods with a status."""
        return sum(counts.get(status, 0) for counts in self.statuses.values())


def _proxy(trials: Sequence[TrialResult]) -> Proxy:
    pairs = [
        (-trial.response_loss, trial.learning)
        for trial in trials
        if trial.status == "COMPLETE"
        and trial.learning is not None
        and trial.response_loss is not None
    ]
    return Proxy(len(pairs), rank_correlation([p for p, _ in pairs], [q for _, q in pairs]))


def analyse(results: SweepResults) -> Analysis:
    """Compare all trials of a sweep, finished or not."""
    by_method = {
        method: tuple(trial for trial in results.trials if trial.method == method)
        for method in methods(results.trials)
    }
    laid_out = {method: scales(results, trials) for method, trials in by_method.items()}
    grouped = configurations(results.trials)
    own = {method: [c for c in grouped if c.method == method] for method in by_method}
    rankings = {m: rank_hyperparameters(m, own[m], laid_out[m]) for m in by_method}
    found = {best.method: best for best in find_best(grouped)}
    best = {method: found[method] for method in by_method if method in found}
    evidence = collect(results, grouped, rankings)
    return Analysis(
        methods=tuple(by_method),
        statuses={m: dict(Counter(t.status for t in trials)) for m, trials in by_method.items()},
        scales=laid_out,
        rankings=rankings,
        by_alpha_rule={
            m: rank_within_alpha_rules(m, own[m], laid_out[m], rankings[m]) for m in by_method
        },
        top={m: rank_near_top(m, own[m], laid_out[m]) for m in by_method},
        alternatives={m: compare_levels(own[m], laid_out[m]) for m in by_method},
        divergence={m: summarise_divergence(t, laid_out[m]) for m, t in by_method.items()},
        levels={m: summarise_levels(t, laid_out[m]) for m, t in by_method.items()},
        best=best,
        advice=advise(evidence, best, laid_out),
        noise=evidence.noise,
        curves=trace_curves(results.trials),
        front=fronts(results.trials, evidence.noise),
        contenders=contenders(results.trials, evidence.noise),
        hypervolumes=measure_hypervolumes(results.trials, evidence.noise),
        at_equal=evidence.at_equal,
        claims=judge_claims(evidence),
        proxy={method: _proxy(trials) for method, trials in by_method.items()},
        totals=Totals(
            wall_s=sum(trial.wall_s for trial in results.trials),
            train_s=sum(trial.train_s for trial in results.trials),
            evaluate_s=sum(trial.evaluate_s for trial in results.trials),
            tokens=sum(trial.tokens for trial in results.trials),
        ),
        programs=compare_programs(results, best),
        spectra={
            trial.trial: summary
            for trial in results.trials
            if (summary := summarise(trial.spectrum)) is not None
        },
        warnings=warn(results, by_method, laid_out, rankings, best),
    )
