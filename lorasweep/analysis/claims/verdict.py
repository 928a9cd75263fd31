"""Judge published findings: each holds here, does not hold here, or cannot be decided."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import computed_field

from lorasweep.analysis.evidence import Evidence
from lorasweep.analysis.intervals import INTERVAL, Estimate, Unfinished
from lorasweep.analysis.types import Number, Result

Verdict = Literal["holds here", "does not hold here", "cannot tell"]
HOLDS: Verdict = "holds here"
FAILS: Verdict = "does not hold here"
UNSURE: Verdict = "cannot tell"

BIDERMAN = "Biderman et al. 2024, LoRA Learns Less and Forgets Less"
TML = "Schulman and Thinking Machines 2025, LoRA Without Regret"
ILLUSION = "Shuttleworth et al. 2024, LoRA vs Full Fine-tuning: An Illusion of Equivalence"
UNIFIED = "A Unified Study of LoRA Variants 2026"
VANILLA = "Learning Rate Matters: Vanilla LoRA May Suffice 2026"


class Source(Result):
    """Where a claim was published.

    version: `v1`, `v2`, or empty; where the two differ, a claim names both.
    says: the finding in our words, with its numbers.
    """

    paper: str
    version: str
    where: str
    says: str


def cite(paper: str, version: str, where: str, says: str) -> Source:
    """Cite a paper; `version` is empty where it has only one."""
    return Source(paper=paper, version=version, where=where, says=says)


class Region(Result):
    """Effects under which a claim holds: those above `above` and below `below`.

    None where there is no limit on that side. An effect on a limit counts as outside.
    """

    above: float | None = None
    below: float | None = None

    @property
    def limits(self) -> tuple[float, ...]:
        """The limits that exist."""
        return tuple(limit for limit in (self.above, self.below) if limit is not None)

    def judge(self, estimate: Estimate) -> Verdict:
        """Judge by the interval: all of it inside, all of it outside, or neither."""
        if estimate.low is None and estimate.high is None:
            return UNSURE
        low = -math.inf if estimate.low is None else estimate.low
        high = math.inf if estimate.high is None else estimate.high
        if (self.above is None or low > self.above) and (self.below is None or high < self.below):
            return HOLDS
        outside = (self.above is not None and high <= self.above) or (
            self.below is not None and low >= self.below
        )
        return FAILS if outside else UNSURE

    def distance(self, effect: float) -> float:
        """Compute how far an effect lies from the nearest limit."""
        return min(abs(effect - limit) for limit in self.limits)


class Comparison(Result):
    """One comparison that a claim rests on: what was compared, and where it must lie."""

    what: str
    estimate: Estimate
    region: Region

    @computed_field
    @property
    def verdict(self) -> Verdict:
        """Verdict of this comparison alone."""
        return self.region.judge(self.estimate)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Comparisons found for a claim, or why there are none.

    parts: all must hold for the claim to hold, and one that does not is enough against it.
    missing: why there is nothing to compare; then there are no parts.
    """

    parts: tuple[Comparison, ...] = ()
    missing: str | None = None


def not_tested(why: str) -> Outcome:
    """Mark a claim as not tested by these trials."""
    return Outcome(missing=f"not tested: {why}")


def judge_comparison(what: str, estimate: Estimate | None, region: Region) -> Outcome:
    """Rest a claim on one comparison."""
    if estimate is None:
        return Outcome(missing="too few comparable trials for an estimate")
    return Outcome((Comparison(what=what, estimate=estimate, region=region),))


def judge_all(parts: Sequence[tuple[str, Estimate | None]], region: Region) -> Outcome:
    """Rest a claim on several comparisons that must all hold."""
    known = tuple(
        Comparison(what=what, estimate=e, region=region) for what, e in parts if e is not None
    )
    if len(known) < len(parts):
        return Outcome(missing="too few comparable trials for an estimate")
    return Outcome(known)


@dataclass(frozen=True, slots=True)
class Definition:
    """Published finding, and how to check it.

    unit: of the effect, with what is subtracted from what.
    rule: when it holds, in words.
    to_run: what to run where it was not tested, a sentence without its full stop.
    """

    id: str
    statement: str
    sources: tuple[Source, ...]
    unit: str
    rule: str
    to_run: str
    check: Callable[[Evidence], Outcome]


class Claim(Result):
    """A published finding, and what this sweep says of it.

    effect, low, high: of the comparison that decides, in `unit`; None where nothing was compared
        or a bound is open.
    n: how many of `n_of` it rests on, 0 where it was not tested.
    evidence: what was compared, in a sentence; reason: why it is undecided, else None.
    to_decide: what to run to decide it; None where it is decided.
    """

    id: str
    domain: str
    statement: str
    sources: tuple[Source, ...]
    verdict: Verdict = UNSURE
    effect: Number = None
    low: Number = None
    high: Number = None
    unit: str
    n: int = 0
    n_of: str = "trials"
    rule: str
    evidence: str
    reason: str | None = None
    to_decide: str | None = None
    parts: tuple[Comparison, ...] = ()

    @property
    def citation(self) -> str:
        """Where it was published, in one line."""
        cited = ((source.paper, source.version, source.where) for source in self.sources)
        return "; ".join(", ".join(filter(None, where)) for where in cited)

    @property
    def source_notes(self) -> str:
        """What each source says."""
        return "; ".join(
            f"{source.version or source.paper.split(',', maxsplit=1)[0]}: {source.says}"
            for source in self.sources
        )


def decide(definition: Definition, evidence: Evidence) -> Claim:
    """Judge a claim by the trials of one domain."""
    outcome = definition.check(evidence)
    if not outcome.parts:
        reason = outcome.missing or "not tested: nothing was compared"
        return Claim(
            id=definition.id,
            domain=evidence.results.domain,
            statement=definition.statement,
            sources=definition.sources,
            unit=definition.unit,
            rule=definition.rule,
            evidence=f"{reason[0].upper()}{reason[1:]}.",
            reason=reason,
            to_decide=f"{definition.to_run}.",
        )
    verdicts = [part.verdict for part in outcome.parts]
    verdict = verdict_of(verdicts)
    deciding = min(
        (part for part, own in zip(outcome.parts, verdicts, strict=True) if own == verdict),
        key=lambda part: part.region.distance(part.estimate.effect),
    )
    found = deciding.estimate
    undecided = _undecided(deciding, definition) if verdict == UNSURE else (None, None)
    return Claim(
        id=definition.id,
        domain=evidence.results.domain,
        statement=definition.statement,
        sources=definition.sources,
        verdict=verdict,
        effect=found.effect,
        low=found.low,
        high=found.high,
        unit=definition.unit,
        n=found.n,
        n_of=found.n_of,
        rule=definition.rule,
        evidence=" ".join(_sentence(part) for part in outcome.parts),
        reason=undecided[0],
        to_decide=undecided[1],
        parts=outcome.parts,
    )


def _undecided(part: Comparison, definition: Definition) -> tuple[str, str]:
    """Explain why a comparison decides nothing, and what to run to decide it."""
    if searched := _searched(part):
        return searched.reason, searched.to_run
    found = part.estimate
    if found.low is None and found.high is None:
        return f"{found.n} {found.n_of} give no interval", f"{definition.to_run}."
    return _straddles(part), _more(part, definition)


def verdict_of(parts: Sequence[Verdict]) -> Verdict:
    """Judge by all parts of a claim: one that does not hold is enough against it."""
    return FAILS if FAILS in parts else UNSURE if UNSURE in parts else HOLDS


def _searched(part: Comparison) -> Unfinished | None:
    """Look up what further search may find, where only that leaves a comparison undecided."""
    found, as_found = part.estimate, part.estimate.as_found
    if as_found is None:
        return None
    best = found.model_copy(update={"low": as_found.low, "high": as_found.high})
    if part.region.judge(best) == UNSURE:
        return None
    down = part.region.judge(best.model_copy(update={"low": found.low})) == UNSURE
    return as_found.lower if down else as_found.upper


def _number(value: float) -> str:
    return f"{value:.3g}"


def _sentence(part: Comparison) -> str:
    found = part.estimate
    low = "open" if found.low is None else _number(found.low)
    high = "open" if found.high is None else _number(found.high)
    bounds = (
        "no interval" if found.low is None and found.high is None else f"{INTERVAL} {low} to {high}"
    )
    what = f"{part.what[0].upper()}{part.what[1:]}"
    return f"{what}: {_number(found.effect)} ({bounds}; {found.n} {found.n_of}; {found.basis})."


def _straddles(part: Comparison) -> str:
    limits = part.region.limits
    named = " and ".join(_number(limit) for limit in limits)
    return f"the interval includes the rule's limit{'s' if len(limits) > 1 else ''}, {named}"


def _more(part: Comparison, definition: Definition) -> str:
    """Estimate how many more trials would decide it, if the effect stays what it is.

    The width of an interval falls with the square root of n.
    """
    found = part.estimate
    if found.low is None or found.high is None:
        return f"{definition.to_run}."
    away = part.region.distance(found.effect)
    reach = (found.high - found.low) / 2
    if away <= 0 or (factor := (reach / away) ** 2) > 25:
        return (
            "The effect is about as large as the rule's limit, so more trials may never decide it; "
            "read the interval instead."
        )
    further = max(1, math.ceil(found.n * max(factor, 1.2)) - found.n)
    return (
        f"If the effect stays, about {further} more {found.n_of} would decide it: run them, or "
        "more seeds."
    )
