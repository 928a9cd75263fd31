"""The published findings, each checked against the trials of one domain, in a fixed order."""

from __future__ import annotations

from lorasweep.analysis.claims import (
    diversity,
    forgetting,
    methods,
    modules,
    rates,
    sensitivity,
    spectra,
)
from lorasweep.analysis.claims.verdict import Claim, Definition, decide
from lorasweep.analysis.evidence import Evidence

CATALOGUE: tuple[Definition, ...] = (
    *sensitivity.CLAIMS,
    *modules.CLAIMS,
    *rates.CLAIMS,
    *methods.CLAIMS,
    *forgetting.CLAIMS,
    *diversity.CLAIMS,
    *spectra.CLAIMS,
)


def judge_claims(evidence: Evidence) -> tuple[Claim, ...]:
    """Judge every claim, those that the trials have nothing on too."""
    return tuple(decide(definition, evidence) for definition in CATALOGUE)
