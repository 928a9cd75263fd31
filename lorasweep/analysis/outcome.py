"""How claims, curves, fronts and advice stand in the document; plain values, None for unknown."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lorasweep.analysis.advice.advise import Advice
from lorasweep.analysis.claims.verdict import Claim, Part, Source
from lorasweep.analysis.intervals import Estimate
from lorasweep.analysis.noise import Noise
from lorasweep.analysis.tradeoff.curves import Curve
from lorasweep.analysis.tradeoff.equal import AtEqual
from lorasweep.analysis.tradeoff.hypervolume import Hypervolume
from lorasweep.store.results import SweepResults

_OPEN = ("RUNNING", "PENDING")


def _estimate(found: Estimate) -> dict[str, Any]:
    return {"effect": found.effect, "low": found.low, "high": found.high, "n": found.n}


def lay_out_noise(noise: Noise) -> dict[str, Any]:
    """Lay out the noise of one score."""
    return asdict(noise)


def lay_out_curve(curve: Curve) -> dict[str, Any]:
    """Lay out one configuration over its durations."""
    return {
        "method": curve.method,
        "configuration": dict(curve.configuration),
        "duration": curve.duration,
        "points": [asdict(point) for point in curve.points],
    }


def lay_out_hypervolume(row: Hypervolume) -> dict[str, Any]:
    """Lay out the area that a scope covers."""
    return {
        "scope": row.scope,
        "value": row.area.effect,
        "low": row.area.low,
        "high": row.area.high,
        "n": row.area.n,
        "reference": {"learning": row.learning, "forgetting": row.cost},
        "basis": row.area.basis,
    }


def lay_out_at_equal(row: AtEqual) -> dict[str, Any]:
    """Lay out one comparison of two methods on their fronts."""
    return {
        "what": row.what,
        "method": row.method,
        "other": row.other,
        "difference": row.difference,
        "low": row.low,
        "high": row.high,
        "n": row.n,
        "from": row.start,
        "to": row.end,
        "reason": row.reason,
    }


def lay_out_claim(claim: Claim) -> dict[str, Any]:
    """Lay out a claim, its sources word by word and in one sentence."""
    return {
        "id": claim.id,
        "domain": claim.domain,
        "statement": claim.statement,
        "verdict": claim.verdict,
        "effect": claim.effect,
        "low": claim.low,
        "high": claim.high,
        "unit": claim.unit,
        "n": claim.n,
        "n_of": claim.n_of,
        "rule": claim.rule,
        "evidence": claim.evidence,
        "reason": claim.reason,
        "to_decide": claim.to_decide,
        "source": "; ".join(_cite(source) for source in claim.sources),
        "note": "; ".join(_said(source) for source in claim.sources),
        "sources": [source.model_dump() for source in claim.sources],
        "parts": [_part(part) for part in claim.parts],
    }


def _cite(source: Source) -> str:
    return ", ".join(part for part in (source.paper, source.version, source.where) if part)


def _said(source: Source) -> str:
    who = source.version or source.paper.split(",", maxsplit=1)[0]
    return f"{who}: {source.says}"


def _part(part: Part) -> dict[str, Any]:
    found = part.estimate
    return {
        "what": part.what,
        "verdict": part.verdict,
        **_estimate(found),
        "n_of": found.n_of,
        "above": part.region.above,
        "below": part.region.below,
        "basis": found.basis,
    }


def lay_out_advice(advice: Advice) -> dict[str, Any]:
    """Lay out what a recommendation comes with."""
    expected, plateau = advice.expected, advice.plateau
    return {
        "expected": {
            "learning": expected.effect,
            "low": expected.low,
            "high": expected.high,
            "how": expected.basis,
        },
        "lead": None if advice.lead is None else _estimate(advice.lead),
        "why": advice.because,
        "command": advice.command,
        "next": [
            f"{step.text} ({step.words})" if step.words else step.text for step in advice.steps
        ],
        "steps": [asdict(step) for step in advice.steps],
        "more_trials": {
            "verdict": plateau.verdict,
            "reason": plateau.reason,
            **({"gain": None} if plateau.gain is None else {"gain": _estimate(plateau.gain)}),
        },
    }


def lay_out_budget(results: SweepResults) -> dict[str, Any]:
    """Say what was spent and what is left; left is None where no plan is known."""
    finished = [trial for trial in results.trials if trial.status not in _OPEN]
    spent = sum(trial.wall_s for trial in finished)
    planned = results.trials_planned
    left = None if planned is None else max(0, planned - len(finished))
    mean = spent / len(finished) if finished else None
    return {
        "trials_planned": planned,
        "trials_finished": len(finished),
        "trials_left": left,
        "wall_s_spent": spent,
        "wall_s_left": None if left is None or mean is None else left * mean,
    }
