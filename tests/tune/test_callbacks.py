"""What the journal says of trials, and of the base, as Tune's results come in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal
from unittest.mock import Mock

import pytest

from lorasweep.lanes.messages import (
    MeasuredBase,
    RungPassed,
    Suggestion,
    TrialFailed,
    TuneReport,
    to_config,
    to_tune,
)
from lorasweep.store.journal import Journal
from lorasweep.store.paths import SweepPaths
from lorasweep.store.records import BaseMeasured, Rung, SpectrumMeasured, TrialFinished
from lorasweep.store.scores import Scores
from lorasweep.tune.base import BaseScores
from lorasweep.tune.callbacks import Recorder
from lorasweep.tune.interrupt import Interrupt
from lorasweep.tune.progress import SweepProgress
from lorasweep.tune.sequence import Entry
from tests.lanes.reports import ended, progress, trial_of

BASE = Scores(learning=0.1, source_accuracy=0.9)
RUNG = Rung(percent=25, step=3, response_loss=1.25)
Mode = Literal["lanes", "jobs"]


class Driver:
    """A recorder with its journal, and Tune's calls of it for one trial."""

    def __init__(self, journal: Journal, mode: Mode, known: Scores | None = None) -> None:
        trial = trial_of("a")
        self.journal, self.interrupt = journal, Interrupt()
        self.base = BaseScores(journal, "math", known)
        self.pool: Any = Mock() if mode == "lanes" else None
        self.trial = SimpleNamespace(
            trial_id="tune-1", config=to_config(Suggestion(trial, 4)), last_result=None
        )
        search: Any = SimpleNamespace(
            entry=lambda _: Entry(trial, rungs=[RUNG]), finish=lambda *_: None
        )
        self.recorder = Recorder(
            journal,
            search,
            SweepProgress(planned=5),
            Mock(),
            self.base,
            domain="math",
            interrupt=self.interrupt,
            announce=lambda _: None,
            pool=self.pool,
        )
        self.recorder.on_trial_start(0, [], self.trial)

    def hear(self, report: TuneReport) -> None:
        self.trial.last_result = {**to_tune(report), "training_iteration": 1}
        self.recorder.on_trial_result(0, [], self.trial, self.trial.last_result)

    def complete(self) -> list[Any]:
        """End the trial as Tune does; give the records since its start."""
        self.recorder.on_trial_complete(0, [], self.trial)
        return list(self.journal.records[1:])


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    paths = SweepPaths(tmp_path)
    with Journal(paths.journal, paths.lock) as journal:
        yield journal


@pytest.mark.parametrize("mode", ["lanes", "jobs"])
def test_the_base_is_journalled_once_and_before_the_first_end(journal: Journal, mode: Mode):
    driver = Driver(journal, mode)
    if mode == "lanes":
        driver.pool.base.return_value = MeasuredBase(BASE)
    else:  # which measure it before the first trial
        driver.base.record(MeasuredBase(BASE, 2.5))
        driver.base.record(MeasuredBase(Scores(), 2.5))  # for the samples of another study
    driver.hear(ended())
    records = [r for r in driver.complete() if isinstance(r, BaseMeasured | TrialFinished)]
    base, end = records
    assert isinstance(base, BaseMeasured)
    assert isinstance(end, TrialFinished)
    assert (base.scores, base.domain) == (BASE, "math")
    assert base.wall_s == (None if mode == "lanes" else 2.5)
    assert end.forgetting == pytest.approx(0.9 - 0.6)
    assert (end.status, end.number, end.rungs) == ("COMPLETE", 4, (RUNG,))
    assert (end.steps, end.tokens, end.train_s, end.trainable) == (10, 100, 2.0, 128)


def test_a_base_that_is_known_is_not_journalled_again(journal: Journal):
    driver = Driver(journal, "lanes", known=BASE)
    driver.pool.base.return_value = MeasuredBase(Scores(source_accuracy=0.5))
    driver.hear(ended())
    (end,) = driver.complete()
    assert end.forgetting == pytest.approx(0.9 - 0.6)
    driver.pool.base.assert_not_called()  # each call would wait for the broker


def test_a_base_that_nobody_measured_leaves_forgetting_open(journal: Journal):
    driver = Driver(journal, "lanes")
    driver.pool.base.return_value = None  # the session is ending
    driver.hear(ended())
    (end,) = driver.complete()
    assert end.forgetting is None
    assert end.source_accuracy == 0.6


def test_a_stopped_trial_keeps_its_last_rung_and_its_costs_and_gives_its_slot_back(
    journal: Journal,
):
    driver = Driver(journal, "lanes")
    driver.hear(progress(step=3, percent=25, rung=RUNG))
    driver.hear(progress(step=4, percent=33))
    (end,) = driver.complete()
    assert (end.status, end.steps, end.tokens, end.train_loss) == ("PRUNED", 4, 40, 1.5)
    assert (end.response_loss, end.learning, end.forgetting) == (1.25, None, None)
    driver.pool.end_lease.assert_called_once_with("a")


def test_a_trial_stopped_at_a_rung_that_it_passed_before_has_no_costs_here(journal: Journal):
    driver = Driver(journal, "lanes")
    driver.hear(RungPassed(trial="a", rung=RUNG))
    (end,) = driver.complete()
    assert (end.status, end.steps, end.tokens, end.response_loss) == ("PRUNED", 3, 0, 1.25)


def test_a_trial_that_is_cut_off_is_not_journalled_as_ended(journal: Journal):
    driver = Driver(journal, "lanes")
    driver.hear(progress())
    driver.interrupt.requested = True
    assert driver.complete() == []
    driver.recorder.on_trial_error(0, [], driver.trial)
    assert len(journal.records) == 1


def test_a_job_reports_the_failure_of_its_trial_which_keeps_its_costs(journal: Journal):
    driver = Driver(journal, "jobs")
    driver.hear(progress())
    driver.hear(TrialFailed(trial="a", error="too large"))
    (end,) = driver.complete()
    assert (end.status, end.error) == ("FAILED", "too large")
    assert (end.steps, end.tokens, end.train_s) == (5, 50, 2.0)


def test_a_trial_that_raises_fails_with_the_last_line_of_its_traceback(journal: Journal, tmp_path):
    driver = Driver(journal, "lanes")
    driver.hear(progress(rung=RUNG))
    driver.trial.error_file = tmp_path / "error.txt"
    driver.trial.error_file.write_text(
        "Traceback\nray.exceptions.RayTaskError(LorasweepError): \n"
        "lorasweep.errors.LorasweepError: data.path: gone\n"
    )
    driver.recorder.on_trial_error(0, [], driver.trial)
    end = journal.records[-1]
    assert isinstance(end, TrialFinished)
    assert end.error == "lorasweep.errors.LorasweepError: data.path: gone"
    assert (end.status, end.steps, end.response_loss) == ("FAILED", 5, 1.25)


def test_the_spectrum_comes_before_the_end_of_its_trial(journal: Journal):
    driver = Driver(journal, "lanes", known=BASE)
    driver.hear(ended(spectrum=SpectrumMeasured(trial="a", matrices=(), wall_s=1.0)))
    spectrum, end = driver.complete()
    assert isinstance(spectrum, SpectrumMeasured)
    assert isinstance(end, TrialFinished)
