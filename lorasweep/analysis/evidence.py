"""What claims and advice are computed from, gathered once for one domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lorasweep.analysis.expected import Expected, expect
from lorasweep.analysis.noise import Noise, measure_noise
from lorasweep.analysis.sensitivity.importance import Ranking
from lorasweep.analysis.table import Table, make_rows
from lorasweep.analysis.tradeoff.matched import MatchedComparison, compare_matched
from lorasweep.store.configurations import Configuration, is_scored, methods
from lorasweep.store.results import SweepResults, TrialResult

# The smallest difference in a score that matters: half a point of a hundred.
SMALLEST_RELEVANT = 0.005


@dataclass(frozen=True, slots=True)
class Evidence:
    """Configurations of one domain by method, and what is estimated from all of them.

    tables: all configurations of each method, those without a score too.
    noise: of `learning` and of `forgetting`.
    expected: learning of each scored configuration, without the luck of the best ones.
    by_forgetting: forgetting is known, and is not source accuracy with its sign turned.
    margin: the smallest difference that matters, in the scores' unit.
    matched: every two methods compared on their fronts, where one of the scores is equal.
    """

    results: SweepResults
    tables: Mapping[str, Table]
    noise: Mapping[str, Noise]
    expected: Mapping[str, Expected]
    by_forgetting: bool
    margin: float
    matched: tuple[MatchedComparison, ...]
    rankings: Mapping[str, Ranking] = field(default_factory=dict)

    def table(self, method: str) -> Table:
        """Look up the configurations of a method, none where it did not run."""
        return self.tables.get(method, Table(()))

    def trials(self, method: str) -> tuple[TrialResult, ...]:
        """List the completed trials of a method."""
        return tuple(t for t in self.results.trials if t.method == method and is_scored(t))


def collect(
    results: SweepResults,
    grouped: Sequence[Configuration],
    rankings: Mapping[str, Ranking],
) -> Evidence:
    """Gather the configurations of one domain, and estimate what claims and advice share."""
    scored = [trial for trial in results.trials if is_scored(trial)]
    by_forgetting = any(trial.forgetting is not None for trial in scored)
    by_method: dict[str, list[Configuration]] = {m: [] for m in methods(results.trials)}
    for configuration in grouped:
        by_method[configuration.method].append(configuration)
    tables = {
        method: Table(make_rows(own, by_forgetting=by_forgetting))
        for method, own in by_method.items()
    }
    noise = measure_noise(tables, by_forgetting=by_forgetting)
    largest = max((abs(t.learning) for t in scored if t.learning is not None), default=1.0)
    return Evidence(
        results,
        tables,
        noise,
        {method: expect(table.scored, noise["learning"]) for method, table in tables.items()},
        by_forgetting,
        SMALLEST_RELEVANT * max(1.0, largest),
        compare_matched(tables, noise),
        rankings,
    )
