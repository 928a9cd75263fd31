"""A session ends because somebody asks for it, or because nothing in it can succeed."""

import pickle

import pytest

from lorasweep.tune.interrupt import Interrupt


@pytest.mark.parametrize("reason", ["requested", "given_up"])
def test_either_reason_stops_all_trials_and_wakes_who_waits_once(reason: str):
    woken = []
    interrupt = Interrupt()
    interrupt.wake = lambda: woken.append(1)
    assert not interrupt.stop_all()
    setattr(interrupt, reason, True)
    assert interrupt.stop_all()
    assert interrupt.stop_all()
    assert woken == [1]
    assert interrupt.ending
    assert interrupt.requested == (reason == "requested")


def test_the_first_request_after_giving_up_does_not_end_the_process():
    interrupt = Interrupt()
    interrupt.given_up = True
    interrupt._request(2, None)
    assert interrupt.requested
    with pytest.raises(KeyboardInterrupt):
        interrupt._request(2, None)


def test_tune_may_pickle_it():
    interrupt = Interrupt()
    interrupt.wake = lambda: None
    interrupt.given_up = True
    assert pickle.loads(pickle.dumps(interrupt)).ending
