"""When a published finding holds here, does not, or cannot be told."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from lorasweep.analysis.estimate import Estimate
from lorasweep.analysis.evidence import Evidence

Verdict = Literal["holds here", "does not hold here", "cannot tell"]
HOLDS: Verdict = "holds here"
FAILS: Verdict = "does not hold here"
UNSURE: Verdict = "cannot tell"

BIDERMAN = "Biderman et al. 2024, LoRA Learns Less and Forgets Less"
TML = "Schulman and Thinking Machines 2025, LoRA Without Regret"
ILLUSION = "Shuttleworth et al. 2024, LoRA vs Full Fine-tuning: An Illusion of Equivalence"
UNIFIED = "A Unified Study of LoRA Variants 2026"
VANILLA = "Learning Rate Matters: Vanilla LoRA May Suffice 2026"


@dataclass(frozen=True, slots=True)
class Source:
    """Name where a claim stands.

    version: `v1`, `v2`, or empty; where the two differ, a claim names both.
    says: what is said there, in our words, with its numbers.
    """

    paper: str
    version: str
    where: str
    says: str


@dataclass(frozen=True, slots=True)
class Region:
    """Hold the effects under which a claim holds: those above `low` and below `high`.

    An effect on the edge counts as outside.
    """

    low: float = -math.inf
    high: float = math.inf

    def judge(self, estimate: Estimate) -> Verdict:
        """Tell whether the whole interval lies within, the whole outside, or neither."""
        if estimate.low is None and estimate.high is None:
            return UNSURE
        low = -math.inf if estimate.low is None else estimate.low
        high = math.inf if estimate.high is None else estimate.high
        above = low > self.low or math.isinf(self.low)
        if above and (high < self.high or math.isinf(self.high)):
            return HOLDS
        return FAILS if high <= self.low or low >= self.high else UNSURE

    def distance(self, effect: float) -> float:
        """Give how far an effect lies from the nearest edge."""
        return min(abs(effect - edge) for edge in (self.low, self.high) if math.isfinite(edge))


@dataclass(frozen=True, slots=True)
class Part:
    """Hold one comparison that a claim makes: what was compared, and where it must lie."""

    what: str
    estimate: Estimate
    region: Region

    @property
    def verdict(self) -> Verdict:
        """Judge this comparison alone."""
        return self.region.judge(self.estimate)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Hold what looking for a claim gave.

    parts: all must hold for the claim to hold, and one that does not is enough against it.
    missing: why there is nothing to compare; then there are no parts.
    """

    parts: tuple[Part, ...] = ()
    missing: str | None = None


def not_tested(why: str) -> Outcome:
    """Say that the trials have nothing on a claim."""
    return Outcome(missing=f"not tested: {why}")


def one(what: str, estimate: Estimate | None, region: Region) -> Outcome:
    """Judge by one comparison."""
    if estimate is None:
        return Outcome(missing="too few comparable trials to estimate it")
    return Outcome((Part(what, estimate, region),))


def every(parts: Sequence[tuple[str, Estimate | None]], region: Region) -> Outcome:
    """Judge by several comparisons that must all hold."""
    known = tuple(Part(what, e, region) for what, e in parts if e is not None)
    if len(known) < len(parts):
        return Outcome(missing="too few comparable trials to estimate it")
    return Outcome(known)


@dataclass(frozen=True, slots=True)
class Definition:
    """Define a claim.

    unit: of the effect, with what is subtracted from what.
    rule: in words, when it holds.
    to_run: what to run where it was not tested, as a sentence without its full stop.
    """

    id: str
    statement: str
    sources: tuple[Source, ...]
    unit: str
    rule: str
    to_run: str
    check: Callable[[Evidence], Outcome]


@dataclass(frozen=True, slots=True)
class Claim:
    """Hold a published finding and what this sweep says of it.

    effect, low, high: of the comparison that decides, in `unit`; None where nothing was compared
        or a bound is open.
    n: how many of `n_of` it rests on, 0 where it was not tested.
    evidence: what was compared, in a sentence; reason: why it cannot be told, else None.
    to_decide: what to run to decide it; None where it is decided.
    """

    id: str
    domain: str
    statement: str
    sources: tuple[Source, ...]
    verdict: Verdict
    effect: float | None
    low: float | None
    high: float | None
    unit: str
    n: int
    n_of: str
    rule: str
    evidence: str
    reason: str | None = None
    to_decide: str | None = None
    parts: tuple[Part, ...] = field(default=())


def decide(definition: Definition, evidence: Evidence) -> Claim:
    """Judge a claim by the trials of one domain."""
    outcome = definition.check(evidence)
    blank = Claim(
        definition.id, evidence.results.domain, definition.statement, definition.sources, UNSURE,
        None, None, None, definition.unit, 0, "trials", definition.rule, "",
    )  # fmt: skip
    if not outcome.parts:
        reason = outcome.missing or "not tested: nothing was compared"
        return replace(
            blank,
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
    claim = replace(
        blank,
        verdict=verdict,
        effect=found.effect,
        low=found.low,
        high=found.high,
        n=found.n,
        n_of=found.of,
        evidence=" ".join(_sentence(part) for part in outcome.parts),
        parts=outcome.parts,
    )
    if verdict != UNSURE:
        return claim
    if searched := _searched(deciding):
        return replace(claim, reason=searched[0], to_decide=searched[1])
    if found.low is None and found.high is None:
        reason = f"{found.n} {found.of} give no interval"
        return replace(claim, reason=reason, to_decide=f"{definition.to_run}.")
    return replace(claim, reason=_straddles(deciding), to_decide=_more(deciding, definition))


def verdict_of(parts: Sequence[Verdict]) -> Verdict:
    """Judge by all parts of a claim: one that does not hold is enough against it."""
    return FAILS if FAILS in parts else UNSURE if UNSURE in parts else HOLDS


def _searched(part: Part) -> tuple[str, str] | None:
    """Say what further search may find and what to run, where only that leaves it undecided."""
    found, search = part.estimate, part.estimate.search
    if search is None:
        return None
    best = replace(found, low=search.low, high=search.high)
    if part.region.judge(best) == UNSURE:
        return None
    down = part.region.judge(replace(best, low=found.low)) == UNSURE
    return search.below if down else search.above


def _number(value: float) -> str:
    return f"{value:.3g}"


def _sentence(part: Part) -> str:
    found = part.estimate
    low = "open" if found.low is None else _number(found.low)
    high = "open" if found.high is None else _number(found.high)
    bounds = (
        "no interval"
        if found.low is None and found.high is None
        else f"90% interval {low} to {high}"
    )
    what = f"{part.what[0].upper()}{part.what[1:]}"
    return f"{what}: {_number(found.effect)} ({bounds}; {found.n} {found.of}; {found.basis})."


def _straddles(part: Part) -> str:
    edges = [edge for edge in (part.region.low, part.region.high) if math.isfinite(edge)]
    said = " and ".join(_number(edge) for edge in edges)
    many = "edges" if len(edges) > 1 else "edge"
    return f"the interval reaches across the {many} of the rule, {said}"


def _more(part: Part, definition: Definition) -> str:
    """Say how many more would decide it, if the effect stays what it is.

    The width of an interval falls with the root of n.
    """
    found = part.estimate
    if found.low is None or found.high is None:
        return f"{definition.to_run}."
    away = part.region.distance(found.effect)
    reach = (found.high - found.low) / 2
    if away <= 0 or (factor := (reach / away) ** 2) > 25:
        return (
            "The effect is about as large as the rule's edge, so more trials may never decide it; "
            "read the interval instead."
        )
    further = max(1, math.ceil(found.n * max(factor, 1.2)) - found.n)
    return (
        f"If the effect stays, about {further} more {found.of} would decide it: run them, or more "
        "seeds."
    )
