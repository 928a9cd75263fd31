"""Turn what Tune reports into journal records, gauges and the live view."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune import Callback

from lorasweep.lanes.messages import TrialEnded, TrialFailed, from_config, from_tune
from lorasweep.lanes.pool import LanePool
from lorasweep.store.journal import Journal
from lorasweep.store.records import FinalStatus, TrialFinished, TrialStarted
from lorasweep.store.scores import SCORES, Scores
from lorasweep.tune.base import BaseScores
from lorasweep.tune.interrupt import Interrupt
from lorasweep.tune.metrics import Gauges
from lorasweep.tune.progress import RunningTrial, SweepProgress
from lorasweep.tune.search import OrderedSearch
from lorasweep.tune.sequence import Outcome


class Recorder(Callback):  # type: ignore[misc]
    """Tune callback that writes every change of a trial's state to the journal, and shows it."""

    def __init__(
        self,
        journal: Journal,
        search: OrderedSearch,
        progress: SweepProgress,
        gauges: Gauges,
        base: BaseScores,
        *,
        domain: str = "",
        interrupt: Interrupt,
        announce: Callable[[TrialFinished], None],
        pool: LanePool | None = None,
    ) -> None:
        """Connect Tune to the journal and the views.

        Args:
            search: which learns how each trial ended.
            base: the base's scores; lanes measure them after the first trial has ended.
            interrupt: whether the session is ending; a trial that stops then has not ended but
                been cut off.
            announce: called with every trial that has ended.
            pool: of the study; None if every trial is a job of its own.
        """
        self._journal, self._search, self._progress = journal, search, progress
        self._gauges, self._base, self._interrupt = gauges, base, interrupt
        self._announce, self._pool, self._domain = announce, pool, domain

    def __getstate__(self) -> dict[str, Any]:
        """Pickle nothing: Tune saves its callbacks, and all of ours can be rebuilt."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Journal a start."""
        suggestion = from_config(trial.config)
        spec = suggestion.trial
        self._progress.running[trial.trial_id] = RunningTrial(spec, time.time())
        self._journal.append(
            TrialStarted(
                trial=spec.id,
                number=suggestion.number,
                stage=spec.stage,
                seed=spec.seed,
                configuration=spec.hyperparameters,
                domain=self._domain,
                time=time.time(),
            )
        )
        self._publish()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Show progress."""
        running, report = self._progress.running.get(trial.trial_id), from_tune(result)
        if running is not None and report is not None:
            running.update(report)
            self._gauges.report(report)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Journal the end of a trial that reported it, or that the scheduler stopped."""
        report = from_tune(trial.last_result or {})
        if isinstance(report, TrialEnded):
            if self._pool is not None and self._base.scores is None:
                self._base.record(self._pool.base())  # before the first end, which needs it
            self._end(trial, report.status, report.error, report)
        elif isinstance(report, TrialFailed):
            self._end(trial, "FAILED", report.error)
        elif not self._interrupt.ending:
            # Tune calls trials that ended and trials that it stopped both terminated, but one that
            # ended by itself has reported so.
            self._end(trial, "PRUNED", None)
            if self._pool is not None:
                # Tune keeps the actor of a stopped trial for the next one without cleaning it up.
                self._pool.end_lease(from_config(trial.config).trial.id)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Journal a trial that raised, with the sentence that says why."""
        if not self._interrupt.ending:
            self._end(trial, "FAILED", reason(trial))

    def _end(
        self, trial: Any, status: FinalStatus, error: str | None, ended: TrialEnded | None = None
    ) -> None:
        """Journal an end; without a final report, with what the trial reported before."""
        running = self._progress.running.pop(trial.trial_id)
        entry = self._search.entry(trial.trial_id)
        training, rung = ended or running.latest, running.rung
        if ended is not None:
            scores = ended.scores
        else:
            scores = Scores(response_loss=None if rung is None else rung.response_loss)
        record = TrialFinished(
            trial=running.trial.id,
            status=status,
            number=from_config(trial.config).number,
            stage=running.trial.stage,
            seed=running.trial.seed,
            configuration=running.trial.hyperparameters,
            domain=self._domain,
            **dict(scores),
            forgetting=self._base.forgetting(scores),
            train_loss=None if training is None else training.train_loss,
            rungs=tuple(entry.rungs),
            steps=ended.step if ended is not None else running.step or 0,
            tokens=0 if training is None else training.tokens,
            wall_s=round(time.time() - running.began if ended is None else ended.wall_s, 3),
            train_s=0.0 if training is None else round(training.train_s, 3),
            evaluate_s=0.0 if training is None else round(training.evaluate_s, 3),
            trainable=0 if ended is None else ended.trainable,
            peak_memory_bytes=None if ended is None else ended.peak_memory_bytes,
            error=error,
            time=time.time(),
        )
        if ended is not None and ended.spectrum is not None:
            self._journal.append(ended.spectrum)
        self._journal.append(record)
        self._search.finish(trial.trial_id, Outcome(status, scores.learning))
        self._progress.finish(record, here=True)
        self._gauges.trial(record.trial, record.model_dump(include={*SCORES}))
        self._announce(record)
        self._publish()
        # What has failed every time will fail again, and each attempt costs a start-up.
        self._interrupt.given_up |= self._progress.hopeless

    def _publish(self) -> None:
        statuses = Counter(self._progress.statuses)
        statuses["RUNNING"] = len(self._progress.running)
        best = self._progress.best
        self._gauges.sweep(statuses, best.winner.learning if best else None)


def reason(trial: Any) -> str:
    """Find the line of a failed trial's traceback that names the cause."""
    file = Path(trial.error_file)
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in text.splitlines()]
    # Ray prints a worker's exception below those of the controller and the trial, each of which
    # begins with its dotted name.
    raised = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Interrupt)\b.*: ", line)]
    return (raised or lines or ["the trial's process ended without an error"])[-1][:500]
