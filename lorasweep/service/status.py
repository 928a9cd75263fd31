"""Find out how far a sweep has come, from its journal alone, also while it runs."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from lorasweep.spec.space import Level
from lorasweep.spec.trial import Frozen
from lorasweep.store.best import Best, find_best
from lorasweep.store.configurations import configurations
from lorasweep.store.paths import SweepPaths
from lorasweep.store.results import SweepResults, load_results
from lorasweep.store.scores import Scores

_UNFINISHED = {"RUNNING", "PENDING"}


class BestConfiguration(Frozen):
    """The best configuration of a study, by the rule of `store/best.py`.

    trial: its first trial; seeds: those on which it completed.
    learning, forgetting: means over the seeds.
    """

    trial: str
    method: str
    configuration: dict[str, Level]
    seeds: tuple[int, ...]
    learning: float
    forgetting: float | None


class StudyStatus(Frozen):
    """How far one study has come; trials: how many have each status."""

    domain: str
    method: str
    base: Scores | None
    trials: dict[str, int]
    best: BestConfiguration | None


class SweepStatus(Frozen):
    """What `lorasweep status --json` prints.

    state: not started, running, complete, interrupted or failed.
    trials: how many have each status.
    tokens: trained on by trials that have ended.
    best: of all studies; None where there are several domains, whose scores do not compare.
    """

    name: str
    state: str
    trials_planned: int | None
    trials: dict[str, int]
    tokens: int
    elapsed_s: float | None
    base: Scores | None
    best: BestConfiguration | None
    studies: tuple[StudyStatus, ...]
    journal: str

    @property
    def ended(self) -> int:
        """Number of trials in a final state."""
        return sum(count for status, count in self.trials.items() if status not in _UNFINISHED)


def status_of(folder: Path) -> SweepStatus:
    """Collect a sweep's state.

    Raises:
        UsageError: the folder holds no sweep.
        JournalError: its journal is damaged.
    """
    results = load_results(folder)
    ended = [trial for trial in results.trials if trial.status not in _UNFINISHED]
    studies = [study for part in results.parts for study in _studies(part)]
    bests = [study.best for study in studies if study.best is not None]
    has_one_domain = len({study.domain for study in studies}) < 2
    return SweepStatus(
        name=results.name,
        state={None: "not started", "started": "running"}.get(results.state, str(results.state)),
        trials_planned=results.trials_planned,
        trials=dict(Counter(trial.status for trial in results.trials)),
        tokens=sum(trial.tokens for trial in ended),
        elapsed_s=None if results.started is None else round(time.time() - results.started, 1),
        base=results.base,
        best=max(bests, key=lambda best: best.learning, default=None) if has_one_domain else None,
        studies=tuple(studies),
        journal=str(SweepPaths(folder).journal),
    )


def _studies(part: SweepResults) -> list[StudyStatus]:
    """Collect the state of each method in one domain."""
    bests = {best.method: _best(best) for best in find_best(configurations(part.trials))}
    return [
        StudyStatus(
            domain=part.domain,
            method=method,
            base=part.base,
            trials=dict(Counter(t.status for t in part.trials if t.method == method)),
            best=bests.get(method),
        )
        for method in dict.fromkeys(trial.method for trial in part.trials)
    ]


def _best(best: Best) -> BestConfiguration:
    winner = best.winner
    return BestConfiguration(
        trial=winner.trial,
        method=best.method,
        configuration=dict(winner.configuration),
        seeds=winner.seeds,
        learning=winner.learning,
        forgetting=winner.forgetting,
    )
