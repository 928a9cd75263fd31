"""The analysis in sentences: the answer, and findings with n, effect and interval."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lorasweep.analysis.advice.recommend import Recommendation
from lorasweep.analysis.intervals import INTERVAL, fisher_bounds, rank_correlation
from lorasweep.analysis.result import Analysis
from lorasweep.analysis.sensitivity.importance import Ranking, Sensitivity
from lorasweep.analysis.tradeoff.pareto import POOLED
from lorasweep.report.wording import (
    UNKNOWN,
    enumerate_words,
    number,
    percent,
    sentence,
    settings,
)
from lorasweep.store.best import Standing
from lorasweep.store.configurations import is_scored
from lorasweep.store.results import SweepResults

_RANGE = "range over seeds"
_COMPARABLE = 0.5  # an interaction this large beside the largest main effect changes the answer


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding, with what it rests on.

    text: what was found, ties and doubts included.
    n: how many of `unit` it rests on.
    effect: its size, of what `measure` names; None where it is unknown.
    low, high: bounds of the effect, of the kind that `basis` names; None where there are none.
    """

    text: str
    n: int
    unit: str
    measure: str
    effect: float | None
    low: float | None = None
    high: float | None = None
    basis: str = INTERVAL

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
    """Answer the sweep's question: what to use, what matters, what is forgotten."""
    return _what_to_use(results, analysis), _what_matters(analysis), _what_is_forgotten(analysis)


def _what_to_use(results: SweepResults, analysis: Analysis) -> str:
    if not analysis.recommendation:
        if analysis.count("DIVERGED"):
            return "No trial has completed and some diverged, so nothing can be recommended."
        return "No trial has completed, so nothing can be recommended yet."
    parts = [
        f"for {method} use {settings(found.configuration, results.axes)} (learning "
        f"{number(found.learning)}, {_seeds(found)})"
        for method, found in analysis.recommendation.items()
    ]
    return sentence("; ".join(parts))


def _seeds(standing: Standing) -> str:
    if len(standing.scores) == 1:
        return "one seed"
    low, high = standing.spread
    return f"mean of {len(standing.scores)} seeds, {number(low)} to {number(high)}"


def _what_matters(analysis: Analysis) -> str:
    if not analysis.rankings:
        return "There are no trials yet, so no hyperparameter can be ranked."
    first, *others = (_ranked(ranking) for ranking in analysis.rankings.values())
    return "; ".join([first, *(f"{other[0].lower()}{other[1:]}" for other in others)]) + "."


def _ranked(ranking: Ranking) -> str:
    """Summarise a method's ranking in one sentence, without the full stop."""
    shown = [row for row in ranking.rows if row.above_chance]
    hidden = [row.hyperparameter for row in ranking.rows if not row.above_chance]
    if not ranking.rows:
        return f"The hyperparameters of {ranking.method} cannot be ranked ({ranking.reason})"
    together = _together(ranking)
    if not shown and together is not None:
        return (
            f"For {ranking.method}, over {ranking.configurations} configurations, no "
            f"hyperparameter has an effect of its own above chance, but {together}"
        )
    if not shown:
        return (
            f"No hyperparameter of {ranking.method} has an effect above chance in "
            f"{ranking.configurations} configurations"
        )
    if len(ranking.rows) == 1:
        return (
            f"For {ranking.method} only {shown[0].hyperparameter} varied; its effect on learning "
            f"is above chance in {ranking.configurations} configurations"
        )
    parts: list[str] = []
    for before, row in zip([None, *shown], shown, strict=False):
        share = f"{row.hyperparameter} ({percent(row.importance)}, {_bounds(row)})"
        tied = before is not None and before.hyperparameter in row.tied_with
        parts.append(share if before is None else f"{'tied with' if tied else 'then'} {share}")
    ranked = (
        f"For {ranking.method}, over {ranking.configurations} configurations, learning varied most "
        f"with {', '.join(parts)}"
    )
    if hidden:
        effects = "the effect of" if len(hidden) == 1 else "the effects of"
        verb = "is" if len(hidden) == 1 else "are"
        ranked += f", while {effects} {enumerate_words(hidden)} {verb} not above chance"
    return ranked if together is None else f"{ranked}; but {together}"


def _together(ranking: Ranking) -> str | None:
    """Describe the pair whose interaction explains about as much as the strongest main effect."""
    strongest = max((row.importance for row in ranking.rows if row.above_chance), default=0.0)
    for pair in ranking.interactions:  # by falling importance
        if pair.above_chance and pair.importance >= _COMPARABLE * strongest:
            return (
                f"{enumerate_words(pair.hyperparameters)} interact: together they explain "
                f"{percent(pair.importance)} ({percent(pair.low)} to {percent(pair.high)}) of the "
                "variance beyond what each explains alone"
            )
    return None


def _bounds(row: Sensitivity) -> str:
    return f"{percent(row.low)} to {percent(row.high)} of the variance"


def _what_is_forgotten(analysis: Analysis) -> str:
    pooled = [point for point in analysis.front if point.scope == POOLED]
    if not pooled:
        return "Forgetting is unknown, since the source domain was not measured."
    first, last = pooled[0], pooled[-1]
    if last.forgetting is None or first.forgetting is None:
        measured = f"source accuracy {number(last.source_accuracy)}"
        least = f"source accuracy {number(first.source_accuracy)}"
    else:
        measured = f"forgetting {number(last.forgetting)}"
        least = f"forgetting {number(first.forgetting)}"
    if len(pooled) == 1:
        return (
            f"Trial {last.trial} learned most ({number(last.learning)}) and also kept most of the "
            f"source domain ({measured})."
        )
    return (
        f"The trial that learned most ({number(last.learning)}) has {measured}; the one that kept "
        f"most of the source domain learned {number(first.learning)} and has {least}. The front "
        f"has {len(pooled)} trials."
    )


def findings(results: SweepResults, analysis: Analysis) -> tuple[Finding, ...]:
    """List what the sweep shows, and what it leaves open."""
    found: list[Finding] = []
    for method in analysis.methods:
        if method in analysis.recommendation:
            found += _about_best(results, analysis.recommendation[method])
        found += _about_ranking(analysis.rankings[method])
        found += _about_trade(results, method)
        proxy = analysis.proxy[method]
        if proxy.n:
            found.append(_correlation(method, "lower response loss", proxy.spearman, proxy.n))
    found += _about_methods(list(analysis.recommendation.values()))
    return tuple(found)


def _about_best(results: SweepResults, best: Recommendation) -> Iterator[Finding]:
    base = results.base.learning if results.base else None
    if base is not None:
        low, high = (score - base for score in best.spread)
        several = len(best.scores) > 1
        yield Finding(
            f"{best.method}: the best configuration learned more than the base model."
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
        what = f"{best.method}: the best configuration against the runner-up"
        yield _difference(what, best, best.runner_up)


def _difference(what: str, left: Standing, right: Standing) -> Finding:
    """Compare two configurations by their seeds; one seed each cannot tell them apart."""
    n = min(len(left.scores), len(right.scores))
    apart = left.spread[0] > right.spread[1]
    if n < 2:
        verdict = "the lead may be noise, since one of them ran on a single seed"
    elif apart:
        verdict = "every seed of the first scored higher than every seed of the second"
    else:
        verdict = "a tie, since their seeds overlap"
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
        text = f"{ranking.method}: the hyperparameters cannot be ranked, {ranking.reason}."
        yield Finding(text, ranking.configurations, "configurations", "share of variance", None)
    for row in ranking.rows:
        name = f"{ranking.method}: {row.hyperparameter}"
        alone = len(ranking.rows) == 1
        if not row.above_chance:
            text = f"{name} has no effect above chance (up to {percent(row.chance)})."
        elif row.tied_with:
            tied = enumerate_words(row.tied_with)
            text = f"{name} has an effect above chance, tied with {tied}."
        else:
            text = f"{name} has an effect above chance, number {row.rank} of {len(ranking.rows)}."
        n, unit = ranking.configurations, "configurations"
        if alone and not row.above_chance:
            text = f"{name}, the only one that varied, has no effect above chance."
            yield Finding(text, n, unit, "learning", None)
        elif not alone:  # the share of a single hyperparameter is always 1
            yield Finding(text, n, unit, "share of variance", row.importance, row.low, row.high)
        if row.above_chance:
            text = f"{name}: {row.best_level} scored higher than {row.worst_level}."
            bounds = row.effect_low, row.effect_high
            yield Finding(text, n, unit, "learning", row.effect, *bounds)
    for pair in ranking.interactions:
        if pair.above_chance:
            both = enumerate_words(pair.hyperparameters)
            yield Finding(
                f"{ranking.method}: {both} interact: the effect of one depends on the other.",
                ranking.configurations,
                "configurations",
                "share of variance beyond main effects",
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
    known = [(own, lost) for own, lost in pairs if own is not None and lost is not None]
    if known:
        correlation = rank_correlation([own for own, _ in known], [lost for _, lost in known])
        yield _correlation(method, "more forgetting", correlation, len(known))


def _correlation(method: str, what: str, correlation: float | None, n: int) -> Finding:
    """Phrase a rank correlation with learning, its interval by Fisher's transformation."""
    low, high = (None, None) if correlation is None else fisher_bounds(correlation, n)
    if low is not None and low > 0:
        text = f"{method}: trials with {what} learned more."
    elif high is not None and high < 0:
        text = f"{method}: trials with {what} learned less."
    else:
        text = f"{method}: trials with {what} learned neither clearly more nor clearly less."
    return Finding(text, n, "trials", "Spearman correlation", correlation, low, high)


def _about_methods(found: Sequence[Recommendation]) -> Iterator[Finding]:
    ranked = sorted(found, key=lambda best: -best.learning)
    for left, right in pairwise(ranked):
        what = f"The best of {left.method} against the best of {right.method}"
        yield _difference(what, left, right)
