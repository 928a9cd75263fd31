"""State of a running sweep, as the live view and the gauges show it."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

from lorasweep.lanes.messages import TrialProgress, TuneReport, rung_of
from lorasweep.spec.studies import study_name
from lorasweep.spec.trial import TrialSpec
from lorasweep.store.best import Best, find_best
from lorasweep.store.configurations import configurations
from lorasweep.store.journal import Journal
from lorasweep.store.records import Rung, TrialFinished
from lorasweep.store.results import TrialResult, last_states, trial_result

HOPELESS = 3  # failures of a study without a single other outcome, after which it is given up


@dataclass
class RunningTrial:
    """One running trial.

    began: when its Tune trial started.
    latest: last progress that it reported; rung: last rung that it passed.
    step, percent: how far it is; None before its first report. After its lane has died, a trial
        may be less far than `latest`.
    """

    trial: TrialSpec
    began: float
    latest: TrialProgress | None = None
    rung: Rung | None = None
    step: int | None = None
    percent: int | None = None

    def update(self, report: TuneReport) -> None:
        """Update the trial's state from a report."""
        if (rung := rung_of(report)) is not None:
            self.rung, self.step, self.percent = rung, rung.step, rung.percent
        if isinstance(report, TrialProgress):
            self.latest, self.step, self.percent = report, report.step, report.percent


@dataclass
class SweepProgress:
    """Trials of a sweep by their state.

    planned: trials of all studies, confirmations included.
    began: when this session began; ended_here: trials that have ended since.
    statuses: ended trials of all sessions, by status; of_study: those of the current study and
        session.
    method, domain: of the current study.
    results: ended trials by study.
    """

    planned: int
    began: float = field(default_factory=time.time)
    statuses: Counter[str] = field(default_factory=Counter)
    running: dict[str, RunningTrial] = field(default_factory=dict)
    recent: list[TrialFinished] = field(default_factory=list)
    ended_here: int = 0
    of_study: Counter[str] = field(default_factory=Counter)
    method: str = "lora"
    domain: str = ""
    results: dict[str, list[TrialResult]] = field(default_factory=dict)
    _best: dict[str, tuple[int, Best | None]] = field(default_factory=dict)

    def start_study(self, method: str, domain: str) -> None:
        """Turn to the next study."""
        self.of_study.clear()
        self.method, self.domain = method, domain

    @property
    def best(self) -> Best | None:
        """Best configuration of the current study, by the rule of the report."""
        name = study_name(self.method, self.domain)
        results = tuple(self.results.get(name, ()))
        # Kept, since the live view asks several times a second; with the number of results, since
        # it asks from a thread of its own, in which a trial may end at any moment.
        count, best = self._best.get(name, (0, None))
        if count != len(results):
            found = find_best(configurations(results))
            best = found[0] if found else None
            self._best[name] = (len(results), best)
        return best

    @property
    def ended(self) -> int:
        """Trials that have ended, in this session and before."""
        return self.statuses.total()

    @property
    def hopeless(self) -> bool:
        """Whether the first trials of the study in this session have all failed."""
        failed = self.of_study["FAILED"]
        return failed >= HOPELESS and failed == self.of_study.total()

    @property
    def seconds_left(self) -> float | None:
        """Time that the remaining trials take at the pace of this session; None if unknown."""
        if not self.ended_here:
            return None
        pace = (time.time() - self.began) / self.ended_here
        return pace * max(0, self.planned - self.ended)

    @property
    def tokens_per_s(self) -> float:
        """Training speed of all running trials together."""
        running = list(self.running.values())  # trials start and end in another thread
        return sum(r.latest.tokens_per_s for r in running if r.latest is not None)

    def finish(self, record: TrialFinished, *, here: bool) -> None:
        """Count an ended trial.

        Args:
            here: whether it ended in this session.
        """
        self.statuses[record.status] += 1
        self.of_study[record.status] += here
        self.recent.append(record)
        self.ended_here += here
        name = study_name(record.configuration.method, record.domain)
        self.results.setdefault(name, []).append(trial_result(record))


def count_known(progress: SweepProgress, journal: Journal) -> None:
    """Count the trials that ended in earlier sessions."""
    for record in last_states(journal.records).values():
        if isinstance(record, TrialFinished) and record.status != "FAILED":
            progress.finish(record, here=False)
