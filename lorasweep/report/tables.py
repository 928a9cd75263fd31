"""The report's tables."""

from __future__ import annotations

from collections.abc import Sequence

from lorasweep.analysis.claims.verdict import UNSURE, Claim
from lorasweep.analysis.sensitivity.importance import Ranking
from lorasweep.analysis.sensitivity.levels import LevelSummary
from lorasweep.analysis.summary import Analysis
from lorasweep.analysis.tradeoff.pareto import POOLED
from lorasweep.report.figures.sensitivity import RANKING_HEADS, ranking_cells
from lorasweep.report.findings import Finding
from lorasweep.report.wording import UNKNOWN, Markdown, duration, level, number, table
from lorasweep.store.best import Best, Standing
from lorasweep.store.results import SweepResults, TrialResult

MOST_ROWS = 1000  # of trials in Markdown; trials.csv and the page have them all
_STATUSES = ("COMPLETE", "PRUNED", "DIVERGED", "FAILED", "RUNNING", "PENDING")


def _levels(trial: TrialResult, axes: Sequence[str]) -> list[str]:
    return [level(trial.hyperparameters.get(name)) for name in axes]


def status_table(analysis: Analysis) -> Markdown:
    """Count the trials by method and status."""
    rows = [
        [method, *(counts.get(status, 0) for status in _STATUSES), sum(counts.values())]
        for method, counts in analysis.statuses.items()
    ]
    return table(["method", *(status.lower() for status in _STATUSES), "trials"], rows)


def best_table(best: Best, axes: Sequence[str]) -> Markdown:
    """Show the best configuration of a method, and what it was chosen over."""
    named = [axis for axis in axes if axis in best.winner.configuration]
    fixed = [name for name in best.winner.configuration if name not in named]
    standings = [("best", best.winner)]
    if best.runner_up:
        standings.append(("next best", best.runner_up))
    if best.unconfirmed and best.unconfirmed != best.runner_up:
        standings.append(("higher on fewer seeds", best.unconfirmed))
    scores = ["seeds", "learning", "lowest", "highest", "forgetting", "source accuracy"]
    rows = [[label, *_standing(standing, named, fixed)] for label, standing in standings]
    return table(["", "trial", *named, *scores, *fixed], rows)


def _standing(standing: Standing, named: Sequence[str], fixed: Sequence[str]) -> list[str]:
    configuration = standing.configuration
    return [
        standing.trial,
        *(level(configuration.get(name)) for name in named),
        ", ".join(str(seed) for seed in standing.seeds),
        *(number(score) for score in (standing.learning, *standing.spread)),
        *(number(score) for score in (standing.forgetting, standing.source_accuracy)),
        *(level(configuration.get(name)) for name in fixed),
    ]


def findings_table(found: Sequence[Finding]) -> Markdown:
    """Show each finding with what it rests on."""
    rows = []
    for finding in found:
        interval = UNKNOWN
        if finding.low is not None and finding.high is not None:
            interval = f"{number(finding.low)} to {number(finding.high)} ({finding.basis})"
        unit = finding.unit.removesuffix("s") if finding.n == 1 else finding.unit
        rest = f"{finding.n} {unit}"
        rows.append([finding.text, rest, number(finding.effect), finding.measure, interval])
    return table(["finding", "n", "effect", "of", "interval"], rows)


def sensitivity_table(ranking: Ranking) -> Markdown:
    """Show a method's ranking."""
    return table(RANKING_HEADS, [ranking_cells(row) for row in ranking.rows])


def front_table(results: SweepResults, analysis: Analysis) -> Markdown | None:
    """Show the pooled front; None where there is none."""
    trials = {trial.trial: trial for trial in results.trials}
    rows = [
        [
            point.trial,
            point.method,
            *_levels(trials[point.trial], results.axes),
            *(number(score) for score in (point.learning, point.forgetting, point.source_accuracy)),
        ]
        for point in analysis.front
        if point.scope == POOLED
    ]
    heads = ["trial", "method", *results.axes, "learning", "forgetting", "source accuracy"]
    return table(heads, rows) if rows else None


def level_table(name: str, levels: Sequence[LevelSummary]) -> Markdown:
    """Show what happened at each level of a hyperparameter."""
    heads = [
        *(name, "n", "best learning", "mean learning", "mean source accuracy", "mean forgetting"),
        *("pruned", "diverged", "failed"),
    ]
    rows = [
        [
            row.level,
            row.n,
            *(number(score) for score in (row.best, row.mean_learning)),
            *(number(score) for score in (row.mean_source_accuracy, row.mean_forgetting)),
            *(row.pruned, row.diverged, row.failed),
        ]
        for row in levels
    ]
    return table(heads, rows)


def claim_table(claims: Sequence[Claim]) -> Markdown | None:
    """Show the published findings that these trials decide; None where they decide none."""
    rows = [
        [
            *(claim.statement, claim.verdict, number(claim.effect), claim.unit),
            f"{number(claim.low)} to {number(claim.high)}",
            f"{claim.n} {claim.n_of}",
            "; ".join(f"{s.paper} {s.version} {s.where}".strip() for s in claim.sources),
        ]
        for claim in claims
        if claim.verdict != UNSURE
    ]
    heads = ["published finding", "verdict", "effect", "of", "90% interval", "n", "source"]
    return table(heads, rows) if rows else None


def undecided_table(claims: Sequence[Claim]) -> Markdown | None:
    """Show what these trials cannot tell, and what would decide it; None where there is nothing."""
    rows = [
        [claim.statement, claim.reason or "", claim.to_decide or ""]
        for claim in claims
        if claim.verdict == UNSURE
    ]
    return table(["cannot be told", "because", "what would decide it"], rows) if rows else None


def trial_table(results: SweepResults) -> Markdown | None:
    """Show the trials, as many as a reader may scroll through; None where there is none."""
    scores = ["learning", "forgetting", "source accuracy", "response loss"]
    heads = ["trial", "method", *results.axes, "seed", "stage", "status", *scores]
    rows = [
        [
            *(trial.trial, trial.method, *_levels(trial, results.axes)),
            *(trial.seed, trial.stage, trial.status),
            *(number(score) for score in (trial.learning, trial.forgetting)),
            *(number(score) for score in (trial.source_accuracy, trial.response_loss)),
            *(trial.tokens, duration(trial.wall_s)),
        ]
        for trial in results.trials[:MOST_ROWS]
    ]
    return table([*heads, "tokens", "time"], rows) if rows else None
