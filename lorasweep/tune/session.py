"""One session of a sweep, from opening the journal to its last trial."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from lorasweep.errors import SpecError, in_a_line
from lorasweep.lanes.cluster import Cluster
from lorasweep.spec.grid import planned_trials
from lorasweep.spec.sweep import SweepSpec, dump_sweep
from lorasweep.store import journal
from lorasweep.store.claim import holds_trials
from lorasweep.store.environment import environment
from lorasweep.store.kept import describe
from lorasweep.store.paths import SweepPaths, write_atomically
from lorasweep.store.records import SessionChanged, SweepStarted
from lorasweep.store.scores import Scores
from lorasweep.train.checkpoint import drop_state
from lorasweep.tune.base import measured_base
from lorasweep.tune.interrupt import Interrupt
from lorasweep.tune.kept import check_kept, due_check
from lorasweep.tune.live import View, say
from lorasweep.tune.metrics import Gauges
from lorasweep.tune.prepare import Prepared
from lorasweep.tune.progress import SweepProgress, count_known
from lorasweep.tune.replay import known_trials, nothing_left
from lorasweep.tune.study import SessionContext, run_study


@dataclass(frozen=True)
class Ending:
    """How a session ended.

    state: `complete` or `interrupted`.
    ran: trials that ended in this session.
    """

    state: str
    ran: int


class Session:
    """One run of the driver, and the only writer of the journal meanwhile."""

    def __init__(
        self, spec: SweepSpec, paths: SweepPaths, writer: journal.Journal, console: Console
    ) -> None:
        self.spec, self.paths, self.journal, self.console = spec, paths, writer, console
        self.started = False

    def open(self, prepared: Sequence[Prepared]) -> None:
        """Open the journal of a new sweep, or check that the data are still the same.

        Raises:
            SpecError: they are not, so earlier trials could not be compared with later ones.
        """
        if self.journal.repaired_bytes:
            removed = f"{self.journal.repaired_bytes} bytes"
            say(self.console, f"removed an incomplete last line of the journal, {removed}")
        data = " ".join(dict.fromkeys(one.data.fingerprint for one in prepared))
        identity = self.spec.search_identity
        opened = [r for r in self.journal.records if isinstance(r, SweepStarted)]
        same = not opened or (opened[0].data, opened[0].identity) == (data, identity)
        if not same and not holds_trials(self.journal.records):
            self.journal.restart()  # of a sweep that ended before its first trial
            opened = []
        if opened and opened[0].data != data:
            raise SpecError(
                [
                    f"data.path: the data have changed since the sweep in {self.paths.root} began; "
                    "restore them, or choose another --out"
                ]
            )
        write_atomically(self.paths.sweep, dump_sweep(self.spec))
        write_atomically(self.paths.environment, json.dumps(environment(), indent=2) + "\n")
        if not opened:
            self.journal.append(
                SweepStarted(name=self.spec.name, identity=identity, data=data, time=time.time())
            )

    def run(self, prepared: Sequence[Prepared], cluster: Cluster) -> Ending:
        """Run the session, and journal how it ended if it did not end well.

        Args:
            prepared: the studies, in the order in which they run.
            cluster: which has room for them.
        """
        self.open(prepared)
        for one in prepared:
            self._known_base(one.spec)  # refuses before anything starts
        try:
            ending = self._run(prepared, cluster)
        except BaseException as error:
            if self.started:
                stopped = isinstance(error, KeyboardInterrupt)
                reason = f"{type(error).__name__}: {in_a_line(error)}"
                self.journal.append(
                    SessionChanged(
                        state="interrupted" if stopped else "failed",
                        time=time.time(),
                        reason=None if stopped else reason,
                    )
                )
            raise
        self.journal.append(SessionChanged(state=ending.state, time=time.time()))
        self._drop_states()
        return ending

    def _run(self, prepared: Sequence[Prepared], cluster: Cluster) -> Ending:
        """Run study after study, except those whose trials have all ended before."""
        progress = SweepProgress(self._planned)
        count_known(progress, self.journal)
        if cluster.dashboard:
            say(self.console, f"dashboard http://{cluster.dashboard}")
        context = SessionContext(
            self.paths,
            self.journal,
            self.console,
            progress,
            View(self.spec.name, progress, self.spec.axes, self._differing),
            Gauges(self.spec.name),
            Interrupt(),
        )
        for one in prepared:
            if nothing_left(one.study, one.points, self.journal.records):
                continue
            study, name = one.study, self.spec.name
            if len(prepared) > 1:
                name = f"{name}-{study.study_name.replace('/', '-')}"
                say(self.console, f"{study.study_name}, {planned_trials(study)} trials")
            progress.start_study(study.method, study.domain)
            base = self._known_base(one.spec)
            run_study(name, one, context, cluster, base, lambda: self._start(prepared))
            if context.interrupt.requested:
                break
        stopped = context.interrupt.requested or not self._check_kept(prepared, cluster)
        return Ending("interrupted" if stopped else "complete", progress.ended_here)

    def _check_kept(self, prepared: Sequence[Prepared], cluster: Cluster) -> bool:
        """Check the kept weights of each study's best trial; return whether it came to its end."""
        try:
            for one in prepared:
                due = due_check(one.study, self.paths, self.journal.records)
                if due is not None:
                    say(self.console, f"loading the kept weights of trial {due.trial}, as a user")
                    check = check_kept(due, one, cluster)
                    self.journal.append(check)
                    say(self.console, describe(check))
        except KeyboardInterrupt:  # all trials have ended; the next session checks
            return False
        return True

    def _start(self, prepared: Sequence[Prepared]) -> None:
        """Journal, once, that trials are about to run."""
        if self.started:
            return
        notes = dict.fromkeys(note for one in prepared for note in one.notes)
        self.journal.append(
            SessionChanged(
                state="started",
                time=time.time(),
                trials_planned=self._planned,
                note="\n".join(notes) or None,
            )
        )
        self.started = True

    @property
    def _differing(self) -> tuple[str, ...]:
        """Which of domain and method differ between the studies."""
        domains = {study.domain for study in self.spec.studies}
        methods = {study.method for study in self.spec.studies}
        columns = (("domain", domains), ("method", methods))
        return tuple(name for name, values in columns if len(values) > 1)

    @property
    def _planned(self) -> int:
        """Trials of all studies, confirmations included."""
        searched = [(study.search, planned_trials(study)) for study in self.spec.studies]
        return sum(count + search.repetitions(count) for search, count in searched)

    def _known_base(self, study: SweepSpec) -> Scores | None:
        """Find the base's scores on a study's tasks in the journal, and check the tasks.

        Args:
            study: its suites resolved.

        Raises:
            SpecError: an earlier session measured other tasks, so the trials could not be compared.
        """
        scores = measured_base(self.journal.records, study.domain)
        names = (*study.evaluate.learning, *study.evaluate.source)
        if scores is not None and set(scores.tasks) != set(names):
            raise SpecError(
                [
                    "evaluate.source: the available tasks have changed since the sweep in "
                    f"{self.paths.root} began, from {', '.join(scores.tasks)} to "
                    f"{', '.join(names)}; name the earlier ones, or choose another --out"
                ]
            )
        return scores

    def _drop_states(self) -> None:
        """Remove states of trials that have ended; a trial stopped early leaves its state."""
        for trial in known_trials(self.journal.records):
            drop_state(self.paths.trial(trial).state)
        drop_state(self.paths.trunks)
