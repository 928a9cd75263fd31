"""The analysis in sentences: an answer in three, and findings with n, effect and interval."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lorasweep.analysis.advice.recommend import Recommendation
from lorasweep.analysis.intervals import fisher_bounds, rank_correlation
from lorasweep.analysis.result import Analysis
from lorasweep.analysis.sensitivity.importance import Ranking, Sensitivity
from lorasweep.analysis.tradeoff.pareto import POOLED
from lorasweep.report.wording import UNKNOWN, enumerate_words, number, percent, settings
from lorasweep.store.best import Standing
from lorasweep.store.configurations import is_scored
from lorasweep.store.results import SweepResults

_INTERVAL = "90% interval"
_RANGE = "range over seeds"
_NOISE = "cannot tell its effect from chance"
_COMPARABLE = 0.5  # an interaction this large beside the largest main effect changes the answer
_UNSURE = "and more learning: cannot tell whether they go together"


@dataclass(frozen=True, slots=True)
class Finding:
    """Hold one finding.

    text: what was found, ties and doubts included.
    n: how many of `unit` it rests on.
    effect: its size as `measure` says; None where it cannot be told.
    low, high: bounds of the effect, of the kind that `basis` names; None where there are none.
    """

    text: str
    n: int
    unit: str
    measure: str
    effect: float | None
    low: float | None = None
    high: float | None = None
    basis: str = _INTERVAL

    @property
    def rests_on(self) -> str:
        """What it rests on, with its number."""
        return f"{self.n} {self.unit.removesuffix('s') if self.n == 1 else self.unit}"

    @property
    def has_interval(self) -> bool:
        """Whether both bounds are known."""
        return self.low is not None and self.high is not None

    @property
    def interval(self) -> str:
        """The bounds as text."""
        return f"{number(self.low)} to {number(self.high)}" if self.has_interval else UNKNOWN


def answer(results: SweepResults, analysis: Analysis) -> tuple[str, str, str]:
    """Answer the sweep's question: what to use, what matters, what it costs."""
    return _what_to_use(results, analysis), _what_matters(analysis), _what_it_costs(analysis)


def _what_to_use(results: SweepResults, analysis: Analysis) -> str:
    if not analysis.recommendation:
        if analysis.count("DIVERGED"):
            return "No trial has completed and some diverged, so nothing can be recommended."
        return "No trial has completed, so nothing can be recommended yet."
    parts = []
    for method, found in analysis.recommendation.items():
        parts.append(
            f"for {method} {settings(found.configuration, results.axes)}, which reached "
            f"learning {number(found.learning)} ({_seeds(found)})"
        )
    return f"Of what was tried, use {'; '.join(parts)}."


def _seeds(standing: Standing) -> str:
    if len(standing.scores) == 1:
        return "one seed"
    low, high = standing.spread
    return f"mean of {len(standing.scores)} seeds, {number(low)} to {number(high)}"


def _what_matters(analysis: Analysis) -> str:
    if not analysis.rankings:
        return "Which hyperparameter matters cannot be told, since there are no trials."
    first, *others = (_ranked(ranking) for ranking in analysis.rankings.values())
    return "; ".join([first, *(f"{other[0].lower()}{other[1:]}" for other in others)]) + "."


def _ranked(ranking: Ranking) -> str:
    """Say a method's ranking in one sentence, its full stop left to the caller."""
    shown = [row for row in ranking.rows if row.above_chance]
    hidden = [row.hyperparameter for row in ranking.rows if not row.above_chance]
    if not ranking.rows:
        return f"Which hyperparameter of {ranking.method} matters cannot be told ({ranking.reason})"
    together = _together(ranking)
    if not shown and together is not None:
        return (
            f"For {ranking.method}, over {ranking.configurations} configurations, no "
            f"hyperparameter alone stands out from chance, but {together}"
        )
    if not shown:
        return (
            f"Which hyperparameter of {ranking.method} matters cannot be told: no effect stands "
            f"out from chance in {ranking.configurations} configurations"
        )
    if len(ranking.rows) == 1:
        return (
            f"For {ranking.method} only {shown[0].hyperparameter} varied, and its effect on "
            f"learning stands out from chance in {ranking.configurations} configurations"
        )
    parts: list[str] = []
    for before, row in zip([None, *shown], shown, strict=False):
        share = f"{row.hyperparameter} ({percent(row.importance)}, {_bounds(row)})"
        tied = before is not None and before.hyperparameter in row.tied_with
        parts.append(share if before is None else f"{'tied with' if tied else 'then'} {share}")
    sentence = (
        f"For {ranking.method}, over {ranking.configurations} configurations, learning varied most "
        f"with {', '.join(parts)}"
    )
    if hidden:
        sentence += f", while no effect of {enumerate_words(hidden)} stands out from chance"
    return sentence if together is None else f"{sentence}; but {together}"


def _together(ranking: Ranking) -> str | None:
    """Say which pair explains about as much together as the strongest hyperparameter alone."""
    strongest = max((row.importance for row in ranking.rows if row.above_chance), default=0.0)
    for pair in ranking.interactions:  # by falling importance
        if pair.above_chance and pair.importance >= _COMPARABLE * strongest:
            return (
                f"{enumerate_words(pair.hyperparameters)} explain {percent(pair.importance)} "
                f"({percent(pair.low)} to {percent(pair.high)}) together, beyond what each does "
                "alone: what one does depends on the other"
            )
    return None


def _bounds(row: Sensitivity) -> str:
    return f"{percent(row.low)} to {percent(row.high)} of the variance"


def _what_it_costs(analysis: Analysis) -> str:
    pooled = [point for point in analysis.front if point.scope == POOLED]
    if not pooled:
        return "What it costs on the source domain is unknown, since that was not measured."
    first, last = pooled[0], pooled[-1]
    if last.forgetting is None or first.forgetting is None:
        measured = f"source accuracy {number(last.source_accuracy)}"
        least = f"source accuracy {number(first.source_accuracy)}"
    else:
        measured = f"forgetting {number(last.forgetting)}"
        least = f"forgetting {number(first.forgetting)}"
    if len(pooled) == 1:
        return (
            f"Trial {last.trial} learned most, {number(last.learning)}, and kept most of the "
            f"source domain too ({measured})."
        )
    return (
        f"The trial that learned most, {number(last.learning)}, came with {measured}; the one that "
        f"kept most of the source domain learned {number(first.learning)} with {least}, and "
        f"{len(pooled)} trials make up the front between them."
    )


def findings(results: SweepResults, analysis: Analysis) -> tuple[Finding, ...]:
    """List what the sweep shows and what it cannot tell."""
    found: list[Finding] = []
    for method in analysis.methods:
        if method in analysis.recommendation:
            found += _about_best(results, analysis.recommendation[method])
        found += _about_ranking(analysis.rankings[method])
        found += _about_trade(results, method)
        proxy = analysis.proxy[method]
        if proxy.n:
            what = f"{method}: low response loss, the stopping proxy,"
            found.append(_correlation(what, proxy.spearman, proxy.n))
    found += _about_methods(list(analysis.recommendation.values()))
    return tuple(found)


def _about_best(results: SweepResults, best: Recommendation) -> Iterator[Finding]:
    base = results.base.learning if results.base else None
    if base is not None:
        low, high = (score - base for score in best.spread)
        several = len(best.scores) > 1
        yield Finding(
            f"{best.method}: the best configuration learned more than the base model did."
            if best.learning > base
            else f"{best.method}: no configuration learned more than the base model.",
            len(best.scores),
            "seeds",
            "learning above the base",
            best.learning - base,
            low if several else None,
            high if several else None,
            _RANGE,
        )
    if best.runner_up is not None:
        what = f"{best.method}: the best configuration against the next best"
        yield _difference(what, best, best.runner_up)


def _difference(what: str, left: Standing, right: Standing) -> Finding:
    """Compare two configurations by their seeds; one seed each cannot tell them apart."""
    n = min(len(left.scores), len(right.scores))
    apart = left.spread[0] > right.spread[1]
    if n < 2:
        verdict = "cannot tell whether the lead is real, since one of them ran on one seed"
    elif apart:
        verdict = "every seed of the first beats every seed of the second"
    else:
        verdict = "a tie, their seeds overlap"
    bounds = (left.spread[0] - right.spread[1], left.spread[1] - right.spread[0])
    return Finding(
        f"{what}: {verdict}.",
        len(left.scores) + len(right.scores),
        "trials",
        "difference in learning",
        left.learning - right.learning,
        bounds[0] if n > 1 else None,
        bounds[1] if n > 1 else None,
        _RANGE,
    )


def _about_ranking(ranking: Ranking) -> Iterator[Finding]:
    if not ranking.rows:
        text = f"{ranking.method}: cannot rank the hyperparameters, {ranking.reason}."
        yield Finding(text, ranking.configurations, "configurations", "share of variance", None)
    for row in ranking.rows:
        name = f"{ranking.method}: {row.hyperparameter}"
        alone = len(ranking.rows) == 1
        if not row.above_chance:
            text = f"{name} has no effect that stands out from chance ({percent(row.chance)})."
        elif row.tied_with:
            text = f"{name} matters, in a tie with {enumerate_words(row.tied_with)}."
        else:
            text = f"{name} matters, and its rank {row.rank} is clear."
        n, unit = ranking.configurations, "configurations"
        if alone and not row.above_chance:
            yield Finding(f"{name} varied alone: {_NOISE}.", n, unit, "learning", None)
        elif not alone:  # the share of a single hyperparameter is always 1
            yield Finding(text, n, unit, "share of variance", row.importance, row.low, row.high)
        if row.above_chance:
            text = f"{name}: {row.best_level} learned more than {row.worst_level}."
            bounds = row.effect_low, row.effect_high
            yield Finding(text, n, unit, "learning", row.effect, *bounds)
    for pair in ranking.interactions:
        if pair.above_chance:
            yield Finding(
                f"{ranking.method}: {enumerate_words(pair.hyperparameters)} matter together: "
                "what one does depends on the other.",
                ranking.configurations,
                "configurations",
                "share of variance beyond each alone",
                pair.importance,
                pair.low,
                pair.high,
            )


def _about_trade(results: SweepResults, method: str) -> Iterator[Finding]:
    pairs = [
        (trial.learning, trial.forgetting)
        for trial in results.trials
        if trial.method == method and is_scored(trial)
    ]
    known = [(gain, cost) for gain, cost in pairs if gain is not None and cost is not None]
    if known:
        correlation = rank_correlation([gain for gain, _ in known], [cost for _, cost in known])
        yield _correlation(f"{method}: more forgetting", correlation, len(known))


def _correlation(what: str, correlation: float | None, n: int) -> Finding:
    """Phrase a rank correlation with learning, its interval by Fisher's transformation."""
    measure = "Spearman correlation"
    if correlation is None:
        text = f"{what} {_UNSURE}."
        return Finding(text, n, "trials", measure, None)
    low, high = fisher_bounds(correlation, n)
    verdict = (
        "went with more learning" if low > 0 else "went with less learning" if high < 0 else _UNSURE
    )
    return Finding(f"{what} {verdict}.", n, "trials", measure, correlation, low, high)


def _about_methods(found: Sequence[Recommendation]) -> Iterator[Finding]:
    ranked = sorted(found, key=lambda best: -best.learning)
    for left, right in pairwise(ranked):
        what = f"The best of {left.method} against the best of {right.method}"
        yield _difference(what, left, right)
