"""What to make of a method's best configuration, and what to try next."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lorasweep.analysis.advice.caution import edge
from lorasweep.analysis.advice.command import extended_range, space_with, train_command
from lorasweep.analysis.evidence import Evidence
from lorasweep.analysis.intervals import SEED, Estimate, Floats, middle
from lorasweep.analysis.scale import Scale
from lorasweep.store.best import Best, Standing
from lorasweep.store.configurations import is_scored
from lorasweep.store.results import TrialResult

_DRAWS = 400
_FEWEST = 8


@dataclass(frozen=True, slots=True)
class Step:
    """Hold one thing to try next.

    action: `extend` a range, `confirm` on further seeds, `search` on, or `stop`.
    hyperparameter, side: of a range that the best lies at the end of.
    words: what to add to the command line; None where there is nothing to add.
    """

    action: str
    text: str
    hyperparameter: str | None = None
    side: str | None = None
    words: str | None = None


@dataclass(frozen=True, slots=True)
class Plateau:
    """Hold what twice as many trials would add, by what the second half of these added.

    gain: best learning expected of all trials less that of half of them, in learning's unit.
    verdict: `unlikely to help` where the whole interval lies below what matters, `may help` where
        it lies above, else `cannot tell`.
    """

    gain: Estimate | None
    verdict: str
    reason: str


@dataclass(frozen=True, slots=True)
class Advice:
    """Hold what a method's recommendation comes with.

    expected: learning, the luck of being the best of several taken out.
    lead: expected learning less that of the runner-up; None without one or without known noise.
    because: why this configuration and not the runner-up.
    command: trains it alone; None where we cannot, as with a method of elsewhere.
    """

    expected: Estimate
    lead: Estimate | None
    because: str
    command: str | None
    plateau: Plateau
    steps: tuple[Step, ...]


def advise(
    evidence: Evidence, best: Mapping[str, Best], scales: Mapping[str, Mapping[str, Scale]]
) -> dict[str, Advice]:
    """Advise on every method that has a best configuration."""
    return {method: _advise(evidence, own, scales[method]) for method, own in best.items()}


def _advise(evidence: Evidence, best: Best, scales: Mapping[str, Scale]) -> Advice:
    results, winner = evidence.results, best.winner
    expected = expected_of(evidence, best.method, winner)
    lead = _lead(evidence, best, expected)
    plateau = find_plateau(
        [t for t in results.trials if t.method == best.method and t.stage == "search"],
        evidence.margin,
        is_grid=evidence.results.has_grid(best.method),
    )
    return Advice(
        expected,
        lead,
        _because(best, lead, evidence.margin),
        train_command(results, best.method, winner.configuration),
        plateau,
        tuple(_steps(evidence, best, scales, lead, plateau)),
    )


def expected_of(evidence: Evidence, method: str, standing: Standing) -> Estimate:
    """Give the learning expected of a configuration, with its interval."""
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
    reach = [(e.high or 0.0) - (e.low or 0.0) for e in (expected, other)]
    return _around(expected.effect - other.effect, math.hypot(*reach) / 2, expected)


def _around(effect: float, reach: float, like: Estimate) -> Estimate:
    update = {"effect": effect, "low": effect - reach, "high": effect + reach}
    return like.model_copy(update=update)


def _because(best: Best, lead: Estimate | None, margin: float) -> str:
    winner, other = best.winner, best.runner_up
    if other is None:
        return "it is the only configuration that completed"
    more = len(winner.seeds) - len(other.seeds)
    gap = winner.learning - other.learning
    if more > 0:
        said = f"it completed on {len(winner.seeds)} seeds, and the runner-up on {len(other.seeds)}"
    elif abs(gap) <= 1e-12:
        said = "it keeps more of the source domain, or came first, at equal learning"
    else:
        said = f"its mean learning is higher by {gap:.3g}"
    if lead is None:
        return f"{said}; how much of that is noise cannot be told"
    if lead.low is not None and lead.low > 0:
        return f"{said}, and what is expected of it is higher beyond noise"
    if lead.high is not None and lead.low is not None and -margin < lead.low < lead.high < margin:
        return f"{said}; either will do, as they differ by less than matters"
    return f"{said}; noise may account for it, so treat the two as a tie"


def find_plateau(trials: Sequence[TrialResult], margin: float, *, is_grid: bool) -> Plateau:
    """Estimate what the last doubling of the number of trials has gained.

    The expected best of m draws from the n scores is the sum of the ordered scores weighted by
    (i/n)^m - ((i-1)/n)^m (Dodge et al. 2019, "Show Your Work", section 3.1). It grows ever more
    slowly, so the next doubling gains at most what the last one did where trials are drawn alike; a
    search that learns from its trials may gain more.
    """
    scores = np.sort([t.learning for t in trials if is_scored(t) and t.learning is not None])
    n = len(scores)
    if is_grid:
        return Plateau(None, "cannot tell", "a grid ends when its points are done")
    if n < _FEWEST:
        return Plateau(None, "cannot tell", f"{n} completed trials, and {_FEWEST} are needed")
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
        basis="redrawn",
    )
    if (found.high or 0.0) < margin:
        return Plateau(found, "unlikely to help", f"the last doubling gained less than {margin:g}")
    if (found.low or 0.0) > margin:
        return Plateau(found, "may help", f"the last doubling gained more than {margin:g}")
    return Plateau(found, "cannot tell", f"the interval reaches across {margin:g}")


def _doubling(ordered: Floats) -> Floats:
    """Give the expected best of n draws less that of n / 2, row by row."""
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
    plateau: Plateau,
) -> list[Step]:
    """List what to try next, the most useful first."""
    steps = [*_extensions(evidence, best, scales)]
    unsure = lead is None or lead.low is None or lead.low <= 0
    if best.unconfirmed is not None:
        text = (
            f"repeat trial {best.unconfirmed.trial} on further seeds, as it scored higher on "
            f"{len(best.unconfirmed.seeds)}"
        )
        steps.append(Step("confirm", text, words=_seeds(best)))
    elif best.runner_up is not None and unsure:
        text = "repeat the best two on further seeds, as noise may decide between them"
        steps.append(Step("confirm", text, words=_seeds(best)))
    if plateau.verdict == "may help":
        steps.append(Step("search", "run more trials, as the last ones still gained"))
    elif plateau.verdict == "unlikely to help" and not steps:
        steps.append(Step("stop", "stop here: more trials of this search are unlikely to help"))
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
            f"the best {name}, {level:.4g}, is at the {side} end of what was tried; search further "
            f"that way, {fragment}"
        )
        words = space_with(evidence.results, best.method, name, fragment)
        steps.append(Step("extend", text, name, side, words))
    return steps


def _diverged_from(evidence: Evidence, method: str, rate: float) -> bool:
    """Tell whether trials at this learning rate or above have diverged already."""
    lost = (
        trial.hyperparameters.get("lr")
        for trial in evidence.results.trials
        if trial.method == method and trial.status == "DIVERGED"
    )
    return any(not isinstance(own, str | None) and own >= rate for own in lost)
