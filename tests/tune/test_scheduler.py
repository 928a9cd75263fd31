"""Early stopping asks Tune's own rules, and sees only the trials that a trial may know of."""

from types import SimpleNamespace

import pytest
from ray.tune.schedulers import TrialScheduler

from lorasweep.spec.sweep import SearchSpec
from lorasweep.spec.trial import LoraHyperparameters, TrialSpec
from lorasweep.store.records import Rung
from lorasweep.tune.scheduler import OrderedScheduler, build_rule
from lorasweep.tune.sequence import Entry, Outcome, TrialSequence

STOP, CONTINUE = TrialScheduler.STOP, TrialScheduler.CONTINUE


def order_of(losses: list[float], window: int = 1, percent: int = 25) -> TrialSequence:
    """Make an order whose trials have all passed the first rung with these losses."""
    order = TrialSequence(window)
    for number, loss in enumerate(losses):
        trial = TrialSpec(id=f"t{number}", hyperparameters=LoraHyperparameters(), seed=0)
        entry = order.add(trial)
        entry.rungs.append(Rung(percent=percent, step=10, response_loss=loss))
        entry.outcome = Outcome("COMPLETE", 0.5)
    return order


def test_asha_stops_a_trial_in_the_worse_half_of_those_before_it():
    rule = build_rule(SearchSpec(scheduler="asha", reduction=2, grace=0.25))
    assert OrderedScheduler(rule, order_of([1.0, 2.0, 3.0])).decide(2) == STOP
    assert OrderedScheduler(rule, order_of([1.0, 2.0, 0.5])).decide(2) == CONTINUE


def test_a_trial_is_not_judged_by_those_outside_its_view():
    rule = build_rule(SearchSpec(scheduler="asha", grace=0.25))
    good_then_bad = [1.0, 1.0, 9.0]
    assert OrderedScheduler(rule, order_of(good_then_bad, window=1)).decide(2) == STOP
    assert OrderedScheduler(rule, order_of(good_then_bad, window=3)).decide(2) == CONTINUE


def test_median_stopping_needs_three_trials_and_stops_the_worse_half():
    rule = build_rule(SearchSpec(scheduler="median", grace=0.25))
    assert OrderedScheduler(rule, order_of([1.0, 2.0, 9.0])).decide(2) == CONTINUE
    assert OrderedScheduler(rule, order_of([1.0, 2.0, 3.0, 9.0])).decide(3) == STOP
    assert OrderedScheduler(rule, order_of([1.0, 2.0, 3.0, 0.1])).decide(3) == CONTINUE


def test_without_a_scheduler_nothing_stops():
    rule = build_rule(SearchSpec(scheduler="none", grace=0.25))
    assert OrderedScheduler(rule, order_of([1.0, 2.0, 99.0])).decide(2) == CONTINUE


@pytest.mark.parametrize(
    "result",
    [
        {"percent": 20, "step": 8},
        {"percent": 100, "step": 40, "response_loss": 99.0, "status": "COMPLETE"},
    ],
)
def test_progress_and_final_results_never_stop_a_trial(result):
    order = order_of([1.0, 1.0, 1.0])
    scheduler = OrderedScheduler(build_rule(SearchSpec(grace=0.25)), order)
    trial = SimpleNamespace(config={"trial": {"stage": "search"}, "number": 2})
    assert scheduler.on_trial_result(None, trial, result) == CONTINUE
    assert len(order.entries[2].rungs) == 1


def test_a_confirmation_is_never_stopped():
    scheduler = OrderedScheduler(build_rule(SearchSpec(grace=0.25)), order_of([1.0, 1.0]))
    trial = SimpleNamespace(config={"trial": {"stage": "confirm"}, "number": 2})
    result = {"percent": 25, "step": 10, "response_loss": 99.0}
    assert scheduler.on_trial_result(None, trial, result) == CONTINUE


def test_a_restarted_trial_is_judged_once_per_rung():
    order = order_of([1.0, 1.0, 1.0])
    scheduler = OrderedScheduler(build_rule(SearchSpec(grace=0.25)), order)
    trial = SimpleNamespace(config={"trial": {"stage": "search"}, "number": 2})
    result = {"percent": 25, "step": 10, "response_loss": 1.0}
    scheduler.on_trial_result(None, trial, result)
    assert len(order.entries[2].rungs) == 1


def test_another_attempt_is_judged_for_itself_and_seen_by_nobody():
    order = order_of([1.0, 2.0, 3.0])
    failed = order.entries[1]
    failed.again = Entry(failed.trial)
    scheduler = OrderedScheduler(build_rule(SearchSpec(reduction=2, grace=0.25)), order)
    trial = SimpleNamespace(config={"trial": {"stage": "search"}, "number": 1})
    result = {"percent": 25, "step": 10, "response_loss": 0.5}
    assert scheduler.decide(2) == STOP
    assert scheduler.on_trial_result(None, trial, result) == CONTINUE
    assert [rung.response_loss for rung in failed.again.rungs] == [0.5]
    assert [rung.response_loss for rung in failed.rungs] == [2.0]
    order.entries[2].rungs[0] = Rung(percent=25, step=10, response_loss=0.9)
    assert scheduler.decide(2) == CONTINUE  # better than 1.0 and 2.0; among 0.5 it would stop


def test_the_rungs_of_the_sweep_are_those_at_which_asha_decides():
    search = SearchSpec(grace=0.1, reduction=3)
    asha = build_rule(search)()
    milestones = sorted(milestone for milestone, _ in asha._brackets[0]._rungs)
    assert list(search.rungs) == milestones[: len(search.rungs)] == [10, 30, 90]
