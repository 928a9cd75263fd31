"""What the report says of one domain: what report.md and the page have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from lorasweep.analysis.advice.recommend import Recommendation
from lorasweep.analysis.claims.verdict import FAILS, HOLDS, UNSURE, Claim
from lorasweep.analysis.result import Analysis
from lorasweep.report.findings import Finding, answer, findings
from lorasweep.report.tables import (
    Table,
    alpha_rule_table,
    alternatives_table,
    diverged_table,
    hypervolume_table,
    level_table,
    matched_table,
    noise_table,
    stable_rate_table,
    status_table,
)
from lorasweep.report.wording import (
    compact,
    enumerate_words,
    interval,
    level,
    number,
    sentence,
    shorten,
    signed,
)
from lorasweep.store.kept import describe
from lorasweep.store.results import SweepResults


@dataclass(frozen=True, slots=True)
class Card:
    """A method's recommended configuration.

    settings: searched hyperparameters and their values; fixed: the other ones.
    facts: pairs of words and values.
    kept: what plain PEFT or transformers made of the kept weights, empty if that was not tried.
    """

    method: str
    trial: str
    settings: tuple[tuple[str, str], ...]
    fixed: str
    facts: tuple[tuple[str, str], ...]
    why: str
    kept: str
    next_steps: str
    command: str


@dataclass(frozen=True, slots=True)
class DomainContent:
    """Text and tables of one domain.

    sensitivity, tradeoff: tables that stand below the figures of that section.
    """

    domain: str
    answer: tuple[str, str, str]
    statuses: Table
    cards: tuple[Card, ...]
    claims: tuple[Claim, ...]
    findings: tuple[Finding, ...]
    sensitivity: tuple[Table, ...]
    tradeoff: tuple[Table, ...]
    levels: tuple[Table, ...]

    @property
    def decided(self) -> tuple[Claim, ...]:
        """Claims that hold here or do not."""
        return tuple(claim for claim in self.claims if claim.verdict != UNSURE)

    @property
    def undecided(self) -> tuple[Claim, ...]:
        """Claims that these trials cannot decide."""
        return tuple(claim for claim in self.claims if claim.verdict == UNSURE)

    @property
    def tally(self) -> str:
        """Numbers of claims by verdict, in words."""
        counts = Counter(claim.verdict for claim in self.claims)
        parts = (
            (counts[HOLDS], "holds here", "hold here"),
            (counts[FAILS], "does not", "do not"),
            (counts[UNSURE], "is undecided", "are undecided"),
        )
        return enumerate_words(f"{n} {one if n == 1 else many}" for n, one, many in parts if n)


def content_of(results: SweepResults, analysis: Analysis) -> DomainContent:
    """Collect what the report says of one domain."""
    sensitivity = [alternatives_table(m, rows) for m, rows in analysis.alternatives.items()]
    for method, divergence in analysis.divergence.items():
        if divergence.stable_rate is not None:
            sensitivity.append(stable_rate_table(method, divergence.stable_rate))
        sensitivity.append(diverged_table(method, divergence))
    sensitivity += [alpha_rule_table(m, rules) for m, rules in analysis.by_alpha_rule.items()]
    tradeoff = (
        hypervolume_table(analysis.hypervolumes),
        matched_table(analysis.matched_comparisons),
        noise_table(analysis.noise),
    )
    return DomainContent(
        domain=results.domain,
        answer=answer(results, analysis),
        statuses=status_table(analysis),
        cards=tuple(
            _card(method, found, results) for method, found in analysis.recommendation.items()
        ),
        claims=analysis.claims,
        findings=findings(results, analysis),
        sensitivity=tuple(table for table in sensitivity if table.rows),
        tradeoff=tuple(table for table in tradeoff if table.rows),
        levels=tuple(
            level_table(method, name, levels)
            for method, tables in analysis.levels.items()
            for name, levels in tables.items()
        ),
    )


def kept_sentence(results: SweepResults, trial: str) -> str:
    """Describe what plain PEFT or transformers made of kept weights; empty if not tried."""
    check = results.kept.get(trial)
    return "" if check is None else sentence(describe(check))


def _card(method: str, found: Recommendation, results: SweepResults) -> Card:
    configuration = found.configuration
    searched = [name for name in results.axes if name in configuration]
    fixed = [name for name in configuration if name not in searched]
    values = {name: level(shorten(value)) for name, value in configuration.items()}
    steps = [f"{step.text} ({step.options})" if step.options else step.text for step in found.steps]
    return Card(
        method=method,
        trial=found.trial,
        settings=tuple((name, values[name]) for name in searched),
        fixed=", ".join(f"{name}={values[name]}" for name in fixed),
        facts=tuple(_facts(found).items()),
        why=sentence(found.why),
        kept=kept_sentence(results, found.trial),
        next_steps=" ".join(sentence(step) for step in steps),
        command=found.command or "",
    )


def _facts(found: Recommendation) -> Mapping[str, str]:
    low, high = found.spread
    seeds = f"{len(found.scores)} seeds, {number(low)} to {number(high)}"
    expected = found.expected
    facts = {
        "learning": f"{number(found.learning)} ({seeds if len(found.scores) > 1 else 'one seed'})",
        "expected": f"{compact(expected.learning)} ({interval(expected.low, expected.high)})",
    }
    if found.forgetting is not None:
        facts["forgetting"] = signed(number(found.forgetting))
    if found.source_accuracy is not None:
        facts["source accuracy"] = signed(number(found.source_accuracy))
    if found.runner_up is not None:
        gap = found.learning - found.runner_up.learning
        facts["runner-up"] = f"trial {found.runner_up.trial}, {number(gap)} behind"
    facts["more trials"] = f"{found.more_trials.verdict}: {found.more_trials.reason}"
    return facts
