"""Leases, commands and reports, with a clock that the test moves."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import pytest

from lorasweep.lanes.broker import LEASE_S, MAX_LANE_DEATHS, SlotBroker
from lorasweep.lanes.messages import (
    LaneCommands,
    LaneFacts,
    LaneMessage,
    LaneNews,
    LaneStart,
    LeaseLost,
    MeasuredBase,
    RungPassed,
    SessionCutOff,
    SweepJob,
    TrialFailed,
    TrialRequeued,
    TrialSaved,
)
from lorasweep.spec.sweep import parse_sweep
from lorasweep.spec.trial import TrialSpec
from lorasweep.store.records import Rung
from lorasweep.store.scores import Scores
from tests.lanes.reports import ended, progress, trial_of

JOB = SweepJob(parse_sweep({"space": {"lr": True}}), "results", None, None, 1.0)
BASE = MeasuredBase(Scores(source_accuracy=0.8))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Broker(SlotBroker):
    """A broker with its clock, and short forms of the calls."""

    def __init__(self) -> None:
        self.clock = Clock()
        super().__init__(self.clock)

    async def open(self, *lanes: int) -> None:
        await self.start(JOB, BASE)
        for lane in lanes:
            assert await self.join(lane, "first life") == LaneStart(JOB, None)

    async def submit(self, name: str, client: str = "client") -> None:
        await self.lease(trial_of(name), client)

    async def ask(self, lane: int = 0, room: int = 0, *messages: LaneMessage) -> LaneCommands:
        return await self.exchange(LaneNews(lane, room, LaneFacts(1, "as given", {}), messages))

    async def fill(self, slots: int, *messages: LaneMessage) -> list[str]:
        """Assign lane 0 as many trials as it has slots, and one that waits for the next."""
        facts = LaneFacts(slots, "as given", {})
        return ids((await self.exchange(LaneNews(0, slots + 1, facts, messages))).start)


def run(test: Callable[[Broker], Awaitable[None]]) -> None:
    async def opened() -> None:
        await test(Broker())

    asyncio.run(opened())


def ids(trials: Iterable[TrialSpec]) -> list[str]:
    return [trial.id for trial in trials]


def test_trials_go_to_lanes_in_the_order_in_which_they_came_and_only_where_there_is_room():
    async def test(broker: Broker) -> None:
        await broker.open(0, 1)
        for name in "abcd":
            await broker.submit(name)
        assert ids((await broker.ask(0, 2)).start) == ["a", "b"]
        assert ids((await broker.ask(1, 1)).start) == ["c"]
        assert ids((await broker.ask(0, 0)).start) == []
        assert ids((await broker.ask(1, 5)).start) == ["d"]

    run(test)


def test_a_client_hears_its_own_reports_one_by_one():
    async def test(broker: Broker) -> None:
        await broker.open(0)
        await broker.submit("a")
        await broker.submit("b")
        await broker.ask(0, 2)
        await broker.ask(0, 0, progress("b", 1), progress("a", 5))
        await broker.ask(0, 0, ended("a"))
        assert await broker.next_report("a", "client", 0) == progress("a", 5)
        assert await broker.next_report("a", "client", 1) == ended("a")
        assert await broker.next_report("b", "client", 0) == progress("b", 1)

    run(test)


def test_a_report_is_unseen_until_its_client_asks_for_the_next():
    async def test(broker: Broker) -> None:
        await broker.open(0)
        await broker.submit("a")
        await broker.ask(0, 1)
        orders = await broker.ask(
            0, 0, RungPassed(trial="a", rung=Rung(percent=25, step=3, response_loss=1.0))
        )
        assert orders.undecided == ("a",)
        await broker.next_report("a", "client", 0)
        assert (await broker.ask()).undecided == ("a",)  # Tune has it, and has not decided yet
        waiting = asyncio.ensure_future(broker.next_report("a", "client", 1))
        await asyncio.sleep(0)
        assert (await broker.ask()).undecided == ()
        await broker.ask(0, 0, progress("a", 9))
        assert await waiting == progress("a", 9)

    run(test)


def test_what_a_client_gives_back_its_lane_lets_go():
    async def test(broker: Broker) -> None:
        await broker.open(0)
        await broker.submit("a")
        await broker.ask(0, 1)
        await broker.release("a", "client")
        assert (await broker.ask()).release == ("a",)
        assert (await broker.ask()).release == ()
        await broker.release("a", "client")  # giving back twice is no mistake

    run(test)


def test_a_lease_that_nobody_renews_ends():
    async def test(broker: Broker) -> None:
        await broker.open(0)
        await broker.submit("dead")
        await broker.submit("alive")
        await broker.ask(0, 2)
        await broker.ask(0, 0, progress("alive", 1), progress("alive", 2))
        broker.clock.now = LEASE_S / 2 + 1
        await broker.next_report("alive", "client", 0)
        broker.clock.now = LEASE_S + 1
        assert (await broker.ask()).release == ("dead",)
        assert await broker.next_report("alive", "client", 1) == progress("alive", 2)
        assert await broker.next_report("dead", "client", 0) == LeaseLost()

    run(test)


def test_a_final_report_waits_for_the_scores_of_the_base_but_a_failure_does_not():
    async def test(broker: Broker) -> None:
        await broker.start(JOB, None)
        for lane in (0, 1):
            await broker.join(lane, "first life")
        await broker.submit("a")
        await broker.submit("b")
        await broker.ask(1, 2)
        assert not (await broker.ask(0)).measure_base
        await broker.ask(1, 0, ended("a"))
        await broker.ask(1, 0, TrialFailed(trial="b", error="no"))
        failed = await broker.next_report("b", "client", 0)
        assert failed == TrialFailed(trial="b", error="no")
        waiting = asyncio.ensure_future(broker.next_report("a", "client", 0))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        assert not (await broker.ask(1)).measure_base  # one lane measures for all
        assert (await broker.ask(0)).measure_base
        assert await broker.base() is None
        await broker.exchange(LaneNews(0, 0, LaneFacts(1, "as given", {}), base=BASE))
        assert await waiting == ended("a")
        assert await broker.base() == BASE

    run(test)


def test_another_lane_measures_the_base_where_the_first_is_gone():
    async def test(broker: Broker) -> None:
        await broker.start(JOB, None)
        for lane in (0, 1, 2):
            await broker.join(lane, "first life")
        await broker.submit("a")
        await broker.ask(2, 1)
        await broker.lane_gone(0, "lane 0 ended", False)
        await broker.ask(2, 0, ended("a"))
        assert not (await broker.ask(2)).measure_base
        assert (await broker.ask(1)).measure_base
        await broker.lane_gone(1, "lane 1 ended", False)
        assert (await broker.ask(2)).measure_base

    run(test)


def test_where_nothing_can_be_measured_every_trial_fails_with_the_reason_and_lanes_stop():
    async def test(broker: Broker) -> None:
        await broker.open(0, 1)
        await broker.submit("a")
        await broker.ask(0, 1)
        await broker.fail_all("the task is broken")
        assert (await broker.ask(0)).stop
        assert (await broker.ask(1)).stop
        await broker.lane_gone(0, "lane 0 has ended", False)
        await broker.lane_gone(1, "lane 1 has ended", True)
        await broker.submit("late")
        for trial in ("a", "late"):
            failed = await broker.next_report(trial, "client", 0)
            assert failed == TrialFailed(trial=trial, error="the task is broken")

    run(test)


def test_a_lane_may_wait_until_others_have_asked_for_trials_or_ended():
    async def test(broker: Broker) -> None:
        first = asyncio.ensure_future(broker.lanes_started(1))
        second = asyncio.ensure_future(broker.lanes_started(2))
        third = asyncio.ensure_future(broker.lanes_started(3))
        await broker.open(0)
        await asyncio.sleep(0.01)
        assert not first.done()
        await broker.ask(0)
        assert await first
        assert not second.done()
        await broker.lane_gone(1, "it died", False)
        assert await second
        await broker.close(False)
        assert not await third

    run(test)


def test_a_lane_that_begins_again_gets_its_trials_again():
    async def test(broker: Broker) -> None:
        await broker.open(0)
        await broker.submit("a")
        await broker.ask(0, 1)
        await broker.ask(0, 0, progress("a", 1))
        assert await broker.join(0, "second life") == LaneStart(JOB, 1)
        assert await broker.join(0, "second life") == LaneStart(JOB, 1)  # its second worker
        assert ids((await broker.ask(0, 1)).start) == ["a"]
        assert await broker.next_report("a", "client", 0) == progress("a", 1)

    run(test)


def test_a_lane_that_died_for_want_of_memory_has_one_slot_fewer_each_time():
    async def test(broker: Broker) -> None:
        await broker.open(0)
        for name in "abcdef":
            await broker.submit(name)
        assert await broker.fill(4) == [*"abcde"]
        await broker.announce_death(0, "RuntimeError: CUDA error: out of memory")
        assert await broker.join(0, "second life") == LaneStart(JOB, 3)
        assert await broker.fill(3) == [*"abcd"]
        await broker.fill(3, *(progress(name, 1) for name in "abc"))
        await broker.announce_death(0, "OutOfMemoryError: one micro-batch must fit")
        assert await broker.join(0, "third life") == LaneStart(JOB, 2)
        assert await broker.fill(2) == [*"abc"]
        await broker.fill(2, *(progress(name, 2) for name in "ab"))
        assert await broker.join(0, "a life that is killed early") == LaneStart(JOB, 2)
        assert await broker.join(0, "fifth life") == LaneStart(JOB, 2)

    run(test)


@pytest.mark.parametrize("words", [None, "RuntimeError: connection closed by peer"])
def test_a_lane_that_died_of_something_else_keeps_its_slots(words: str | None):
    async def test(broker: Broker) -> None:
        await broker.open(0)
        await broker.submit("a")
        await broker.fill(4)
        if words is not None:
            await broker.announce_death(0, words)
        assert await broker.join(0, "second life") == LaneStart(JOB, 4)

    run(test)


def test_a_lane_that_died_before_it_asked_for_trials_may_have_all_its_slots():
    async def test(broker: Broker) -> None:
        await broker.open(0)
        assert await broker.join(0, "second life") == LaneStart(JOB, None)

    run(test)


def test_a_trial_that_came_further_after_each_death_of_its_lane_is_not_given_up():
    async def test(broker: Broker) -> None:
        await broker.open(0)
        for name in ("moves", "stands"):
            await broker.submit(name)
        await broker.ask(0, 2)
        await broker.ask(0, 0, progress("moves", 3), progress("stands", 3))
        for life in range(4):
            await broker.join(0, f"life {life + 2}")
            taken = ids((await broker.ask(0, 2)).start)
            assert taken == (["moves"] if life >= MAX_LANE_DEATHS - 1 else ["moves", "stands"])
            # A rung that was passed before is told again, and shows nothing.
            await broker.ask(0, 0, progress("moves", 3), progress("stands", 3))
            await broker.ask(0, 0, progress("moves", 4 + life))
        failed = await broker.next_report("stands", "client", 2)
        assert isinstance(failed, TrialFailed)

    run(test)


def test_a_trial_whose_lanes_keep_dying_fails_alone():
    async def test(broker: Broker) -> None:
        await broker.open(0)
        await broker.submit("a")
        for life in range(MAX_LANE_DEATHS):
            assert ids((await broker.ask(0, 1)).start) == ["a"]
            if life == MAX_LANE_DEATHS - 1:
                await broker.submit("b")
                await broker.ask(0, 1)
            await broker.join(0, f"life {life + 2}")
        failed = await broker.next_report("a", "client", 0)
        assert isinstance(failed, TrialFailed)
        assert f"{MAX_LANE_DEATHS} times" in failed.error
        assert ids((await broker.ask(0, 1)).start) == ["b"]

    run(test)


def test_the_trials_of_a_lane_that_is_gone_go_to_another_or_fail_with_the_last():
    async def test(broker: Broker) -> None:
        await broker.open(0, 1)
        await broker.submit("a")
        await broker.ask(0, 1)
        await broker.lane_gone(0, "lane 0 ended", False)
        assert ids((await broker.ask(1, 1)).start) == ["a"]
        await broker.lane_gone(1, "lane 1 ended", True)
        failed = await broker.next_report("a", "client", 0)
        assert isinstance(failed, TrialFailed)
        assert "lane 1 ended" in failed.error
        await broker.submit("late")
        late = await broker.next_report("late", "client", 0)
        assert isinstance(late, TrialFailed)

    run(test)


def test_a_trial_that_memory_does_not_hold_is_queued_again():
    async def test(broker: Broker) -> None:
        await broker.open(0)
        await broker.submit("a")
        await broker.ask(0, 1)
        await broker.ask(0, 0, TrialRequeued("a", "out of memory"))
        assert ids((await broker.ask(0, 1)).start) == ["a"]

    run(test)


def test_whoever_waits_for_a_save_is_answered_when_the_lease_ends():
    async def test(broker: Broker) -> None:
        await broker.open(0)
        await broker.submit("a")
        await broker.ask(0, 1)
        saving = asyncio.ensure_future(broker.save("a"))
        await asyncio.sleep(0)
        broker.clock.now = LEASE_S + 1  # a client that saves does not renew
        assert (await broker.ask()).release == ("a",)
        assert await asyncio.wait_for(saving, 1.0) is False

    run(test)


def test_saving_waits_until_the_lane_has_saved():
    async def test(broker: Broker) -> None:
        await broker.open(0)
        await broker.submit("a")
        assert not await broker.save("a")  # it is in no slot
        await broker.ask(0, 1)
        saving = asyncio.ensure_future(broker.save("a"))
        await asyncio.sleep(0.01)
        assert (await broker.ask()).save == ("a",)
        assert not saving.done()
        await broker.ask(0, 0, TrialSaved("a"))
        assert await saving
        assert (await broker.ask()).save == ()

    run(test)


@pytest.mark.parametrize("keep", [True, False])
def test_closing_ends_lanes_and_wakes_clients(keep: bool):
    async def test(broker: Broker) -> None:
        await broker.open(0)
        await broker.submit("a")
        await broker.ask(0, 1)
        waiting = asyncio.ensure_future(broker.next_report("a", "client", 0))
        await asyncio.sleep(0.01)
        await broker.close(keep)
        assert await waiting == SessionCutOff(trial="a")
        orders = await broker.ask()
        assert orders.stop
        assert orders.keep is keep
        assert await broker.join(3, "late") == LaneStart(JOB, None)

    run(test)


def test_a_report_of_a_lane_that_has_lost_the_trial_is_not_heard():
    async def test(broker: Broker) -> None:
        await broker.open(0, 1)
        await broker.submit("a")
        await broker.ask(0, 1)
        await broker.release("a", "client")
        await broker.submit("a")
        assert ids((await broker.ask(1, 1)).start) == ["a"]
        await broker.ask(0, 0, progress("a", 99))
        await broker.ask(1, 0, progress("a", 1))
        assert await broker.next_report("a", "client", 0) == progress("a", 1)

    run(test)


def test_the_client_that_asks_has_the_lease_whoever_else_began_the_trial():
    async def test(broker: Broker) -> None:
        await broker.open(0)
        await broker.submit("a", "pending actor")
        await broker.submit("a", "cached actor")
        await broker.release("a", "pending actor")
        assert ids((await broker.ask(0, 1)).start) == ["a"]
        await broker.ask(0, 0, progress("a", 1), progress("a", 2))
        assert await broker.next_report("a", "cached actor", 0) == progress("a", 1)
        await broker.submit("a", "another pending actor")
        assert await broker.next_report("a", "cached actor", 1) == progress("a", 2)
        await broker.release("a", "another pending actor")
        assert (await broker.ask()).release == ()

    run(test)


def test_a_client_that_lost_its_lease_is_told_to_ask_again():
    async def test(broker: Broker) -> None:
        await broker.open(0)
        await broker.submit("a", "cached actor")
        await broker.submit("a", "pending actor")
        await broker.release("a", "pending actor")
        assert await broker.next_report("a", "cached actor", 0) == LeaseLost()
        await broker.submit("a", "cached actor")
        assert ids((await broker.ask(0, 1)).start) == ["a"]

    run(test)
