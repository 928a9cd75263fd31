from lorasweep.tune.sequence import Outcome, TrialSequence
from tests.lanes.reports import trial_of


def test_a_trial_sees_all_but_the_last_window_before_it():
    order = TrialSequence(window=2)
    for name in "abcd":
        order.add(trial_of(name))
    assert [entry.trial.id for entry in order.visible(0)] == []
    assert [entry.trial.id for entry in order.visible(1)] == []
    assert [entry.trial.id for entry in order.visible(4)] == ["a", "b", "c"]


def test_a_trial_is_ready_once_those_it_sees_have_ended_whatever_the_others_do():
    order = TrialSequence(window=2)
    first, second = order.add(trial_of("a")), order.add(trial_of("b"))
    assert not order.ready(2)
    second.outcome = Outcome("COMPLETE", 0.5)
    assert not order.ready(2)
    first.outcome = Outcome("PRUNED", None)
    assert order.ready(2)


def test_a_repeated_suggestion_shares_the_outcome_of_the_first():
    order = TrialSequence(window=1)
    first = order.add(trial_of("a"))
    again = order.add(trial_of("a"))
    assert again is first
    assert len(order.entries) == 2
    assert order.number("a") == 0


def test_a_window_of_one_is_a_sequential_search():
    order = TrialSequence(window=1)
    entry = order.add(trial_of("a"))
    assert not order.ready(1)
    entry.outcome = Outcome("COMPLETE", 1.0)
    assert order.ready(1)
