"""The report's tables, as text; report.md and the page show the same ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lorasweep.analysis.advice.recommend import Recommendation
from lorasweep.analysis.claims.verdict import Claim
from lorasweep.analysis.intervals import INTERVAL
from lorasweep.analysis.result import Analysis, ScoreNoise
from lorasweep.analysis.sensitivity.alpha_rules import AlphaRuleRanking
from lorasweep.analysis.sensitivity.alternatives import Alternatives
from lorasweep.analysis.sensitivity.divergence import Divergence, StableRate
from lorasweep.analysis.sensitivity.importance import Ranking
from lorasweep.analysis.sensitivity.levels import LevelSummary
from lorasweep.analysis.tradeoff.hypervolume import Hypervolume
from lorasweep.analysis.tradeoff.matched import MatchedComparison
from lorasweep.analysis.tradeoff.pareto import POOLED
from lorasweep.report.figures.sensitivity import RANKING_HEADS, ranking_cells
from lorasweep.report.findings import Finding
from lorasweep.report.wording import UNKNOWN, compact, duration, interval, level, number
from lorasweep.store.best import Standing
from lorasweep.store.results import SweepResults, TrialResult
from lorasweep.store.scores import SCORES, label_of

MOST_ROWS = 1000  # of trials in Markdown; trials.csv and the page have them all
_STATUSES = ("COMPLETE", "PRUNED", "DIVERGED", "FAILED", "RUNNING", "PENDING")


@dataclass(frozen=True, slots=True)
class Table:
    """A table with its caption, every cell as text."""

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def _table(caption: str, rows: Iterable[Mapping[str, str | None]]) -> Table:
    """Make a table; a column for which no row has a value is left out."""
    rows = tuple(rows)
    heads = tuple(dict.fromkeys(head for row in rows for head, cell in row.items() if cell))
    cells = tuple(tuple(row.get(head) or UNKNOWN for head in heads) for row in rows)
    return Table(caption, heads, cells)


def _levels(trial: TrialResult, axes: Sequence[str]) -> list[str]:
    return [level(trial.hyperparameters.get(name)) for name in axes]


def status_table(analysis: Analysis) -> Table:
    """Count the trials by method and status."""
    counts = analysis.statuses
    seen = [status for status in _STATUSES if any(own.get(status) for own in counts.values())]
    rows = [
        (method, *(str(own.get(status, 0)) for status in seen), str(sum(own.values())))
        for method, own in counts.items()
    ]
    heads = ("method", *(status.lower() for status in seen), "trials")
    return Table("Trials", heads, tuple(rows))


def best_table(found: Recommendation, axes: Sequence[str]) -> Table:
    """Show the best configuration of a method, and what it was chosen over."""
    named = [axis for axis in axes if axis in found.configuration]
    fixed = [name for name in found.configuration if name not in named]
    standings: list[tuple[str, Standing]] = [("best", found)]
    if found.runner_up:
        standings.append(("next best", found.runner_up))
    higher = found.higher_on_fewer_seeds
    if higher and higher != found.runner_up:
        standings.append(("higher on fewer seeds", higher))
    scores = ("seeds", "learning", "lowest", "highest", "forgetting", "source accuracy")
    rows = [(label, *_standing(standing, named, fixed)) for label, standing in standings]
    return Table("Best configuration", ("", "trial", *named, *scores, *fixed), tuple(rows))


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


def findings_table(found: Sequence[Finding]) -> Table:
    """Show each finding with what it rests on."""
    rows = []
    for finding in found:
        bounds = f"{finding.interval} ({finding.basis})" if finding.has_interval else UNKNOWN
        rows.append(
            (finding.text, finding.rests_on, number(finding.effect), finding.measure, bounds)
        )
    return Table("Findings", ("finding", "n", "effect", "of", "interval"), tuple(rows))


def sensitivity_table(ranking: Ranking) -> Table:
    """Show a method's ranking."""
    rows = tuple(ranking_cells(row) for row in ranking.rows)
    return Table(f"{ranking.method}: importance", RANKING_HEADS, rows)


def front_table(results: SweepResults, analysis: Analysis) -> Table:
    """Show the front of all methods."""
    trials = {trial.trial: trial for trial in results.trials}
    rows = [
        (
            point.trial,
            point.method,
            *_levels(trials[point.trial], results.axes),
            *(number(score) for score in (point.learning, point.forgetting, point.source_accuracy)),
        )
        for point in analysis.front
        if point.scope == POOLED
    ]
    heads = ("trial", "method", *results.axes, "learning", "forgetting", "source accuracy")
    return Table("Front of all methods", heads, tuple(rows))


def level_table(method: str, name: str, levels: Sequence[LevelSummary]) -> Table:
    """Show the trials at each level of a hyperparameter."""
    scores = ("best learning", "mean learning", "mean source accuracy", "mean forgetting")
    rows = [
        (
            row.level,
            str(row.n),
            *(number(score) for score in (row.best, row.mean)),
            *(number(score) for score in (row.mean_source_accuracy, row.mean_forgetting)),
            *(str(count) for count in (row.pruned, row.diverged, row.failed)),
        )
        for row in levels
    ]
    heads = (name, "n", *scores, "pruned", "diverged", "failed")
    return Table(f"{method}: {name}", heads, tuple(rows))


def alternatives_table(method: str, rows: Sequence[Alternatives]) -> Table:
    """Show which levels reach 90% of the best score, and how far apart the levels are."""
    return _table(
        f"{method}: levels that reach 90% of the best, and the spread between levels",
        [
            {
                "hyperparameter": row.hyperparameter,
                "levels at 90%": ", ".join(own.level for own in row.levels if own.is_close),
                "spread of the best": None if row.spread is None else compact(row.spread),
                INTERVAL: interval(row.low, row.high),
                "note": row.reason,
            }
            for row in rows
        ],
    )


def stable_rate_table(method: str, rate: StableRate) -> Table:
    """Show how high the learning rate may be."""
    row = {
        "estimate": level(rate.estimate) or UNKNOWN,
        INTERVAL: interval(rate.low, rate.high, level),
        "largest that completed": level(rate.largest_stable) or UNKNOWN,
        "smallest that diverged": level(rate.smallest_diverged) or UNKNOWN,
        "note": rate.reason,
    }
    return _table(f"{method}: the highest stable learning rate", [row])


def diverged_table(method: str, divergence: Divergence) -> Table:
    """Show how many trials diverged at each level; without rows where none did."""
    rows = [
        {
            "hyperparameter": name,
            "level": row.level,
            "finished": str(row.finished),
            "diverged": str(row.diverged),
            "share diverged": compact(row.share),
            INTERVAL: interval(row.low, row.high),
        }
        for name, levels in divergence.by_level.items()
        for row in levels
    ]
    any_diverged = any(row.diverged for levels in divergence.by_level.values() for row in levels)
    return _table(f"{method}: trials that diverged, by level", rows if any_diverged else [])


def alpha_rule_table(method: str, rules: Sequence[AlphaRuleRanking]) -> Table:
    """Show the ranking under each rule by which alpha follows the rank."""
    return _table(
        f"{method}: shares of the variance under each rule for alpha",
        [
            {
                "alpha": rule.rule,
                "configurations": str(rule.configurations),
                "hyperparameter": row.hyperparameter,
                "share": compact(row.importance),
                INTERVAL: interval(row.low, row.high),
            }
            for rule in rules
            for row in rule.ranking.rows
        ],
    )


def hypervolume_table(rows: Sequence[Hypervolume]) -> Table:
    """Show the area that each front covers."""
    return _table(
        "Area that a front covers (hypervolume)",
        [
            {
                "front of": row.scope,
                "area": compact(row.area.effect),
                INTERVAL: interval(row.area.low, row.area.high),
                "n": str(row.area.n),
            }
            for row in rows
        ],
    )


def matched_table(rows: Sequence[MatchedComparison]) -> Table:
    """Compare two methods at equal forgetting, and at equal learning."""
    return _table(
        "Two methods at equal forgetting, and at equal learning",
        [
            {
                "difference of": f"{row.outcome} at equal {row.matched}",
                "between": f"{row.method} minus {row.other}",
                "difference": None if row.difference is None else compact(row.difference),
                INTERVAL: interval(row.low, row.high),
                "n": str(row.n),
                "note": row.reason,
            }
            for row in rows
        ],
    )


def noise_table(rows: Sequence[ScoreNoise]) -> Table:
    """Show how much each score varies from run to run."""
    return _table(
        "Variation of one trial's score by chance",
        [
            {
                "score": row.outcome,
                "standard deviation": compact(row.sd),
                "degrees of freedom": str(row.df),
                "estimated from": row.basis,
                "rounding": compact(row.rounding),
            }
            for row in rows
        ],
    )


def claim_table(claims: Sequence[Claim]) -> Table:
    """Show published findings with their verdicts."""
    rows = [
        (
            *(claim.statement, claim.verdict, compact(claim.effect), claim.unit),
            interval(claim.low, claim.high),
            f"{claim.n} {claim.n_of}",
            claim.citation,
        )
        for claim in claims
    ]
    heads = ("published finding", "verdict", "effect", "of", INTERVAL, "n", "source")
    return Table("Published findings", heads, tuple(rows))


def undecided_table(claims: Sequence[Claim]) -> Table:
    """Show published findings that these trials cannot decide, and what would decide them."""
    rows = tuple((c.statement, c.reason or "", c.to_decide or "") for c in claims)
    return Table("Undecided findings", ("undecided", "because", "what would decide it"), rows)


def trial_table(results: SweepResults) -> Table:
    """Show the trials, as many as a reader may scroll through."""
    scores = [name for name in SCORES if any(getattr(t, name) is not None for t in results.trials)]
    labels = [label_of(name) for name in scores]
    heads = ("trial", "method", *results.axes, "seed", "stage", "status", *labels)
    rows = [
        (
            *(trial.trial, trial.method, *_levels(trial, results.axes)),
            *(str(trial.seed), trial.stage, trial.status),
            *(number(getattr(trial, name)) for name in scores),
            *(str(trial.tokens), duration(trial.wall_s)),
        )
        for trial in results.trials[:MOST_ROWS]
    ]
    return Table("All trials", (*heads, "tokens", "time"), tuple(rows))
