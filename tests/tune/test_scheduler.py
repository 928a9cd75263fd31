"""Early stopping asks Tune's own rules, and sees only the trials that a trial may know of."""

from types import SimpleNamespace
from typing import Any, Literal

import pytest
from ray.tune.schedulers import TrialScheduler

from lorasweep.lanes.messages import SessionCutOff, Suggestion, to_config, to_tune
from lorasweep.spec.sweep import SearchSpec
from lorasweep.store.records import Rung
from lorasweep.tune.scheduler import OrderedScheduler, scheduler_factory
from lorasweep.tune.sequence import Entry, Outcome, TrialSequence
from tests.lanes.reports import ended, progress, trial_of

STOP, CONTINUE = TrialScheduler.STOP, TrialScheduler.CONTINUE


def sequence_of(losses: list[float], window: int = 1, percent: int = 25) -> TrialSequence:
    """Sequence of trials that have all passed the first rung with these losses."""
    sequence = TrialSequence(window)
    for number, loss in enumerate(losses):
        trial = trial_of(f"t{number}")
        entry = sequence.add(trial)
        entry.rungs.append(Rung(percent=percent, step=10, response_loss=loss))
        entry.outcome = Outcome("COMPLETE", 0.5)
    return sequence


def test_asha_stops_a_trial_in_the_worse_half_of_those_before_it():
    rule = scheduler_factory(SearchSpec(scheduler="asha", reduction=2, grace=0.25))
    assert OrderedScheduler(rule, sequence_of([1.0, 2.0, 3.0])).decide(2) == STOP
    assert OrderedScheduler(rule, sequence_of([1.0, 2.0, 0.5])).decide(2) == CONTINUE


def test_a_trial_is_not_judged_by_those_outside_its_view():
    rule = scheduler_factory(SearchSpec(scheduler="asha", grace=0.25))
    good_then_bad = [1.0, 1.0, 9.0]
    assert OrderedScheduler(rule, sequence_of(good_then_bad, window=1)).decide(2) == STOP
    assert OrderedScheduler(rule, sequence_of(good_then_bad, window=3)).decide(2) == CONTINUE


def test_median_stopping_needs_three_trials_and_stops_the_worse_half():
    rule = scheduler_factory(SearchSpec(scheduler="median", grace=0.25))
    assert OrderedScheduler(rule, sequence_of([1.0, 2.0, 9.0])).decide(2) == CONTINUE
    assert OrderedScheduler(rule, sequence_of([1.0, 2.0, 3.0, 9.0])).decide(3) == STOP
    assert OrderedScheduler(rule, sequence_of([1.0, 2.0, 3.0, 0.1])).decide(3) == CONTINUE


def test_without_a_scheduler_nothing_stops():
    rule = scheduler_factory(SearchSpec(scheduler="none", grace=0.25))
    assert OrderedScheduler(rule, sequence_of([1.0, 2.0, 99.0])).decide(2) == CONTINUE


def tune_trial(number: int, stage: Literal["search", "confirm"] = "search") -> SimpleNamespace:
    trial = trial_of("t", stage)
    return SimpleNamespace(config=to_config(Suggestion(trial, number)))


def at_rung(loss: float) -> dict[str, Any]:
    return to_tune(progress(rung=Rung(percent=25, step=10, response_loss=loss)))


@pytest.mark.parametrize("report", [progress(), ended(), SessionCutOff(trial="a")])
def test_progress_and_final_results_never_stop_a_trial(report):
    sequence = sequence_of([1.0, 1.0, 1.0])
    scheduler = OrderedScheduler(scheduler_factory(SearchSpec(grace=0.25)), sequence)
    assert scheduler.on_trial_result(None, tune_trial(2), to_tune(report)) == CONTINUE
    assert len(sequence.entries[2].rungs) == 1


def test_a_confirmation_is_never_stopped():
    scheduler = OrderedScheduler(scheduler_factory(SearchSpec(grace=0.25)), sequence_of([1.0, 1.0]))
    assert scheduler.on_trial_result(None, tune_trial(2, "confirm"), at_rung(99.0)) == CONTINUE


def test_a_restarted_trial_is_judged_once_per_rung():
    sequence = sequence_of([1.0, 1.0, 1.0])
    scheduler = OrderedScheduler(scheduler_factory(SearchSpec(grace=0.25)), sequence)
    scheduler.on_trial_result(None, tune_trial(2), at_rung(1.0))
    assert len(sequence.entries[2].rungs) == 1


def test_another_attempt_is_judged_for_itself_and_seen_by_nobody():
    sequence = sequence_of([1.0, 2.0, 3.0])
    failed = sequence.entries[1]
    failed.again = Entry(failed.trial)
    scheduler = OrderedScheduler(scheduler_factory(SearchSpec(reduction=2, grace=0.25)), sequence)
    assert scheduler.decide(2) == STOP
    assert scheduler.on_trial_result(None, tune_trial(1), at_rung(0.5)) == CONTINUE
    assert [rung.response_loss for rung in failed.again.rungs] == [0.5]
    assert [rung.response_loss for rung in failed.rungs] == [2.0]
    sequence.entries[2].rungs[0] = Rung(percent=25, step=10, response_loss=0.9)
    assert scheduler.decide(2) == CONTINUE  # better than 1.0 and 2.0; among 0.5 it would stop


def test_the_rungs_of_the_sweep_are_those_at_which_asha_decides():
    search = SearchSpec(grace=0.1, reduction=3)
    asha = scheduler_factory(search)()
    milestones = sorted(milestone for milestone, _ in asha._brackets[0]._rungs)
    assert list(search.rungs) == milestones[: len(search.rungs)] == [10, 30, 90]
