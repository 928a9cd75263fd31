"""Recommendation for each method: its best configuration, how good it is, and what to try next."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from lorasweep.analysis.advice.caution import edge
from lorasweep.analysis.advice.command import extended_range, space_with, train_command
from lorasweep.analysis.evidence import Evidence
from lorasweep.analysis.intervals import SEED, Estimate, Floats, middle
from lorasweep.analysis.scale import Scale
from lorasweep.analysis.types import Number, Result
from lorasweep.store.best import RULE, Best, Standing
from lorasweep.store.configurations import is_scored
from lorasweep.store.results import TrialResult

_DRAWS = 400
_FEWEST = 8


class Step(Result):
    """One thing to try next.

    action: `extend` a range, `confirm` on further seeds, `search` on, or `stop`.
    hyperparameter, side: of a range that the best lies at the end of.
    options: what to add to the command line; None where there is nothing to add.
    """

    action: Literal["extend", "confirm", "search", "stop"]
    text: str
    hyperparameter: str | None = None
    side: str | None = None
    options: str | None = None


class MoreTrials(Result):
    """Whether more trials would help, by what the second half of these gained.

    verdict: `unlikely to help` where the interval of the gain lies below the smallest difference
        that matters, `may help` where it lies above, else `cannot tell`.
    gain: best learning expected of all trials minus that of half of them.
    """

    verdict: Literal["unlikely to help", "may help", "cannot tell"]
    reason: str
    gain: Estimate | None = None


class ExpectedLearning(Result):
    """Learning expected of a configuration, corrected for its being the best of many.

    basis: how it was estimated.
    """

    learning: float
    low: Number
    high: Number
    basis: str


class Recommendation(Standing):
    """A method's best configuration, what it was chosen over, and what to try next.

    rule: how it was chosen.
    lead: expected learning minus that of the runner-up; None without one or where the noise is
        unknown.
    why: why this configuration and not the runner-up.
    command: trains it alone; None for a method that lorasweep cannot train.
    """

    method: str
    rule: str = RULE
    runner_up: Standing | None
    higher_on_fewer_seeds: Standing | None
    expected: ExpectedLearning
    lead: Estimate | None
    why: str
    command: str | None
    more_trials: MoreTrials
    steps: tuple[Step, ...]


def recommend(
    evidence: Evidence, best: Mapping[str, Best], scales: Mapping[str, Mapping[str, Scale]]
) -> dict[str, Recommendation]:
    """Recommend a configuration of every method that has a best one."""
    return {method: _recommend(evidence, own, scales[method]) for method, own in best.items()}


def _recommend(evidence: Evidence, best: Best, scales: Mapping[str, Scale]) -> Recommendation:
    results, winner = evidence.results, best.winner
    expected = expected_of(evidence, best.method, winner)
    lead = _lead(evidence, best, expected)
    more_trials = gain_of_more_trials(
        [t for t in results.trials if t.method == best.method and t.stage == "search"],
        evidence.margin,
        is_grid=evidence.results.has_grid(best.method),
    )
    return Recommendation(
        **dict(winner),
        method=best.method,
        runner_up=best.runner_up,
        higher_on_fewer_seeds=best.higher_on_fewer_seeds,
        expected=ExpectedLearning(
            learning=expected.effect, low=expected.low, high=expected.high, basis=expected.basis
        ),
        lead=lead,
        why=_why(best, lead, evidence.margin),
        command=train_command(results, best.method, winner.configuration),
        more_trials=more_trials,
        steps=tuple(_steps(evidence, best, scales, lead, more_trials)),
    )


def expected_of(evidence: Evidence, method: str, standing: Standing) -> Estimate:
    """Look up the learning expected of a configuration, with its interval."""
    rows = evidence.table(method).scored.rows
    index = next(
        i
        for i, row in enumerate(rows)
        if row.configuration.hyperparameters == standing.configuration
    )
    return evidence.expected[method].at(index)


def _lead(evidence: Evidence, best: Best, expected: Estimate) -> Estimate | None:
    """Compare the winner with the runner-up by what both are expected to score."""
    if best.runner_up is None or expected.low is None:
        return None
    other = expected_of(evidence, best.method, best.runner_up)
    model = evidence.expected[best.method]
    if other.low is None or model.df == 0:
        return None
    # Both intervals are symmetric and of the same degrees of freedom: half widths add as squares.
    reach = [(e.high or 0.0) - (e.low or 0.0) for e in (expected, other)]
    return _around(expected.effect - other.effect, math.hypot(*reach) / 2, expected)


def _around(effect: float, reach: float, like: Estimate) -> Estimate:
    update = {"effect": effect, "low": effect - reach, "high": effect + reach}
    return like.model_copy(update=update)


def _why(best: Best, lead: Estimate | None, margin: float) -> str:
    winner, other = best.winner, best.runner_up
    if other is None:
        return "it is the only configuration that completed"
    more = len(winner.seeds) - len(other.seeds)
    gap = winner.learning - other.learning
    if more > 0:
        said = f"it completed on {len(winner.seeds)} seeds, and the runner-up on {len(other.seeds)}"
    elif abs(gap) <= 1e-12:
        said = "at equal learning it kept more of the source domain, or came first"
    else:
        said = f"its mean learning is higher by {gap:.3g}"
    if lead is None:
        return f"{said}; how much of that is noise is unknown"
    if lead.low is not None and lead.low > 0:
        return f"{said}, and its expected learning is higher by more than noise"
    if lead.high is not None and lead.low is not None and -margin < lead.low < lead.high < margin:
        return f"{said}; the difference is too small to matter, so either will do"
    return f"{said}; the difference may be noise, so treat the two as tied"


def gain_of_more_trials(
    trials: Sequence[TrialResult], margin: float, *, is_grid: bool
) -> MoreTrials:
    """Estimate how much the second half of the trials has gained.

    The expected best of m draws from the n scores is the sum of the ordered scores weighted by
    (i/n)^m - ((i-1)/n)^m (Dodge et al. 2019, "Show Your Work", section 3.1). It grows ever more
    slowly, so the next doubling gains at most what the last one did where trials are drawn alike; a
    search that learns from its trials may gain more.
    """
    scores = np.sort([t.learning for t in trials if is_scored(t) and t.learning is not None])
    n = len(scores)
    if is_grid:
        return MoreTrials(verdict="cannot tell", reason="a grid has no further points")
    if n < _FEWEST:
        return MoreTrials(
            verdict="cannot tell", reason=f"{n} completed trials, and {_FEWEST} are needed"
        )
    rng = np.random.default_rng(SEED)
    draws = np.sort(scores[rng.integers(0, n, (_DRAWS if n <= 2000 else 50, n))], axis=1)
    gain = float(_doubling(scores[None])[0])
    low, high = middle(_doubling(draws))
    found = Estimate(
        effect=gain,
        low=min(float(low), gain),
        high=max(float(high), gain),
        n=n,
        n_of="trials",
        basis="resampled trials",
    )
    if (found.high or 0.0) < margin:
        return MoreTrials(
            verdict="unlikely to help",
            reason=f"the second half of the trials gained less than {margin:g}",
            gain=found,
        )
    if (found.low or 0.0) > margin:
        return MoreTrials(
            verdict="may help",
            reason=f"the second half of the trials gained more than {margin:g}",
            gain=found,
        )
    return MoreTrials(
        verdict="cannot tell", reason=f"the interval of the gain includes {margin:g}", gain=found
    )


def _doubling(ordered: Floats) -> Floats:
    """Compute the expected best of n draws minus that of n / 2, row by row."""
    n = ordered.shape[1]
    place = np.arange(n + 1) / n
    weights = np.diff(place**n) - np.diff(place ** (n / 2))
    gained: Floats = ordered @ weights
    return gained


def _steps(
    evidence: Evidence,
    best: Best,
    scales: Mapping[str, Scale],
    lead: Estimate | None,
    more_trials: MoreTrials,
) -> list[Step]:
    """List what to try next, the most useful first."""
    steps = [*_extensions(evidence, best, scales)]
    unsure = lead is None or lead.low is None or lead.low <= 0
    higher = best.higher_on_fewer_seeds
    if higher is not None:
        text = (
            f"repeat trial {higher.trial} on further seeds: it scored higher, but on "
            f"{len(higher.seeds)} seed(s) only"
        )
        steps.append(Step(action="confirm", text=text, options=_seeds(best)))
    elif best.runner_up is not None and unsure:
        text = "repeat the best two on further seeds, since their difference may be noise"
        steps.append(Step(action="confirm", text=text, options=_seeds(best)))
    if more_trials.verdict == "may help":
        steps.append(Step(action="search", text="run more trials: the last ones still gained"))
    elif more_trials.verdict == "unlikely to help" and not steps:
        text = "stop here: further trials of this search are unlikely to help"
        steps.append(Step(action="stop", text=text))
    return steps


def _seeds(best: Best) -> str:
    wanted = len(best.winner.seeds) + 2
    return f"--set search.confirm=2 --set search.seeds={wanted}"


def _extensions(evidence: Evidence, best: Best, scales: Mapping[str, Scale]) -> list[Step]:
    steps = []
    for name, scale in scales.items():
        level = best.winner.configuration.get(name)
        side = None if level is None else edge(scale, level)
        if side is None or level is None or isinstance(level, str):
            continue
        if name == "lr" and side == "upper" and _diverged_from(evidence, best.method, float(level)):
            continue
        fragment = extended_range(name, scale, side)
        if fragment is None:
            continue
        text = (
            f"the best {name}, {level:.4g}, is at the {side} end of what was tried: extend the "
            f"range, {fragment}"
        )
        options = space_with(evidence.results, best.method, name, fragment)
        steps.append(
            Step(action="extend", text=text, hyperparameter=name, side=side, options=options)
        )
    return steps


def _diverged_from(evidence: Evidence, method: str, rate: float) -> bool:
    """Check whether trials at this learning rate or above have diverged."""
    lost = (
        trial.hyperparameters.get("lr")
        for trial in evidence.results.trials
        if trial.method == method and trial.status == "DIVERGED"
    )
    return any(not isinstance(own, str | None) and own >= rate for own in lost)
