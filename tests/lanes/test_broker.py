"""Leases, orders and reports, with a clock that the test moves."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from lorasweep.lanes.broker import CUT_OFF, LANES_LOST, LEASE_S, LOST, SlotBroker

BASE = {"source_accuracy": 0.8}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Office:
    """A broker with its clock, and the calls of one lane."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.broker = SlotBroker(self.clock)

    async def open(self, *lanes: int) -> None:
        await self.broker.begin("the job", BASE)
        for lane in lanes:
            assert await self.broker.join(lane, "first life") == ("the job", None)

    async def ask(self, lane: int = 0, room: int = 0, *reports: dict[str, Any]) -> Any:
        return await self.broker.exchange(lane, room, list(reports), {})

    async def fill(self, slots: int, *reports: dict[str, Any]) -> list[str]:
        """Let lane 0 take as many trials as it has slots, and one that waits for the next."""
        return ids((await self.broker.exchange(0, slots + 1, [*reports], {"slots": slots})).take)


def told(story: Callable[[Office], Awaitable[None]]) -> None:
    asyncio.run(_tell(story))


async def _tell(story: Callable[[Office], Awaitable[None]]) -> None:
    await story(Office())


def ids(trials: list[dict[str, Any]]) -> list[str]:
    return [trial["id"] for trial in trials]


def test_trials_go_to_lanes_in_the_order_in_which_they_came_and_only_where_there_is_room():
    async def story(office: Office) -> None:
        await office.open(0, 1)
        for name in "abcd":
            await office.broker.lease({"id": name}, "client")
        assert ids((await office.ask(0, 2)).take) == ["a", "b"]
        assert ids((await office.ask(1, 1)).take) == ["c"]
        assert ids((await office.ask(0, 0)).take) == []
        assert ids((await office.ask(1, 5)).take) == ["d"]

    told(story)


def test_a_client_hears_its_own_reports_one_by_one():
    async def story(office: Office) -> None:
        await office.open(0)
        await office.broker.lease({"id": "a"}, "client")
        await office.broker.lease({"id": "b"}, "client")
        await office.ask(0, 2)
        await office.ask(0, 0, {"trial": "b", "step": 1}, {"trial": "a", "step": 5})
        await office.ask(0, 0, {"trial": "a", "status": "COMPLETE"})
        assert await office.broker.report("a", "client", 0) == {"trial": "a", "step": 5}
        assert await office.broker.report("a", "client", 1) == {
            "trial": "a",
            "status": "COMPLETE",
            "base": BASE,
        }
        assert await office.broker.report("b", "client", 0) == {"trial": "b", "step": 1}

    told(story)


def test_a_report_is_unseen_until_its_client_asks_for_the_next():
    async def story(office: Office) -> None:
        await office.open(0)
        await office.broker.lease({"id": "a"}, "client")
        await office.ask(0, 1)
        orders = await office.ask(0, 0, {"trial": "a", "response_loss": 1.0})
        assert orders.unseen == ["a"]
        await office.broker.report("a", "client", 0)
        assert (await office.ask()).unseen == ["a"]  # Tune has it, and has not decided yet
        waiting = asyncio.ensure_future(office.broker.report("a", "client", 1))
        await asyncio.sleep(0)
        assert (await office.ask()).unseen == []
        await office.ask(0, 0, {"trial": "a", "step": 9})
        assert await waiting == {"trial": "a", "step": 9}

    told(story)


def test_what_a_client_gives_back_its_lane_lets_go():
    async def story(office: Office) -> None:
        await office.open(0)
        await office.broker.lease({"id": "a"}, "client")
        await office.ask(0, 1)
        await office.broker.release("a", "client")
        assert (await office.ask()).let_go == ["a"]
        assert (await office.ask()).let_go == []
        await office.broker.release("a", "client")  # giving back twice is no mistake

    told(story)


def test_a_lease_that_nobody_renews_ends():
    async def story(office: Office) -> None:
        await office.open(0)
        await office.broker.lease({"id": "dead"}, "client")
        await office.broker.lease({"id": "alive"}, "client")
        await office.ask(0, 2)
        await office.ask(0, 0, {"trial": "alive", "step": 1}, {"trial": "alive", "step": 2})
        office.clock.now = LEASE_S / 2 + 1
        await office.broker.report("alive", "client", 0)
        office.clock.now = LEASE_S + 1
        assert (await office.ask()).let_go == ["dead"]
        assert await office.broker.report("alive", "client", 1) == {"trial": "alive", "step": 2}
        assert await office.broker.report("dead", "client", 0) == LOST

    told(story)


def test_a_final_report_waits_for_the_scores_of_the_base_but_a_failure_does_not():
    async def story(office: Office) -> None:
        await office.broker.begin("the job", None)
        for lane in (0, 1):
            await office.broker.join(lane, "first life")
        await office.broker.lease({"id": "a"}, "client")
        await office.broker.lease({"id": "b"}, "client")
        await office.ask(1, 2)
        assert not (await office.ask(0)).measure_base
        await office.ask(1, 0, {"trial": "a", "status": "COMPLETE"})
        await office.ask(1, 0, {"trial": "b", "status": "FAILED", "error": "no"})
        failed = await office.broker.report("b", "client", 0)
        assert failed is not None
        assert failed["error"] == "no"
        waiting = asyncio.ensure_future(office.broker.report("a", "client", 0))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        assert not (await office.ask(1)).measure_base  # one lane measures for all
        assert (await office.ask(0)).measure_base
        await office.broker.exchange(0, 0, [], {}, base=BASE)
        final = await waiting
        assert final is not None
        assert final["base"] == BASE

    told(story)


def test_another_lane_measures_the_base_where_the_first_is_gone():
    async def story(office: Office) -> None:
        await office.broker.begin("the job", None)
        for lane in (0, 1, 2):
            await office.broker.join(lane, "first life")
        await office.broker.lease({"id": "a"}, "client")
        await office.ask(2, 1)
        await office.broker.lane_gone(0, "lane 0 ended", False)
        await office.ask(2, 0, {"trial": "a", "status": "COMPLETE"})
        assert not (await office.ask(2)).measure_base
        assert (await office.ask(1)).measure_base
        await office.broker.lane_gone(1, "lane 1 ended", False)
        assert (await office.ask(2)).measure_base

    told(story)


def test_where_nothing_can_be_measured_every_trial_fails_with_the_reason_and_lanes_stop():
    async def story(office: Office) -> None:
        await office.open(0, 1)
        await office.broker.lease({"id": "a"}, "client")
        await office.ask(0, 1)
        await office.broker.refuse("the task is broken")
        assert (await office.ask(0)).stop
        assert (await office.ask(1)).stop
        await office.broker.lane_gone(0, "lane 0 has ended", False)
        await office.broker.lane_gone(1, "lane 1 has ended", True)
        await office.broker.lease({"id": "late"}, "client")
        for trial in ("a", "late"):
            report = await office.broker.report(trial, "client", 0)
            assert report is not None
            assert (report["status"], report["error"]) == ("FAILED", "the task is broken")

    told(story)


def test_a_lane_may_wait_until_others_have_asked_for_trials_or_ended():
    async def story(office: Office) -> None:
        first = asyncio.ensure_future(office.broker.asked(1))
        second = asyncio.ensure_future(office.broker.asked(2))
        third = asyncio.ensure_future(office.broker.asked(3))
        await office.open(0)
        await asyncio.sleep(0.01)
        assert not first.done()
        await office.ask(0)
        assert await first
        assert not second.done()
        await office.broker.lane_gone(1, "it died", False)
        assert await second
        await office.broker.close(False)
        assert not await third

    told(story)


def test_a_lane_that_begins_again_gets_its_trials_again():
    async def story(office: Office) -> None:
        await office.open(0)
        await office.broker.lease({"id": "a"}, "client")
        await office.ask(0, 1)
        await office.ask(0, 0, {"trial": "a", "step": 1})
        assert await office.broker.join(0, "second life") == ("the job", 1)
        assert await office.broker.join(0, "second life") == ("the job", 1)  # its second worker
        assert ids((await office.ask(0, 1)).take) == ["a"]
        assert await office.broker.report("a", "client", 0) == {"trial": "a", "step": 1}

    told(story)


def test_a_lane_that_died_for_want_of_memory_has_one_slot_fewer_each_time():
    async def story(office: Office) -> None:
        await office.open(0)
        for name in "abcdef":
            await office.broker.lease({"id": name}, "client")
        assert await office.fill(4) == [*"abcde"]
        await office.broker.dying(0, "RuntimeError: CUDA error: out of memory")
        assert await office.broker.join(0, "second life") == ("the job", 3)
        assert await office.fill(3) == [*"abcd"]
        await office.fill(3, *({"trial": name, "step": 1} for name in "abc"))
        await office.broker.dying(0, "OutOfMemoryError: one micro-batch must fit")
        assert await office.broker.join(0, "third life") == ("the job", 2)
        assert await office.fill(2) == [*"abc"]
        await office.fill(2, *({"trial": name, "step": 2} for name in "ab"))
        assert await office.broker.join(0, "a life that is killed early") == ("the job", 2)
        assert await office.broker.join(0, "fifth life") == ("the job", 2)

    told(story)


@pytest.mark.parametrize("words", [None, "RuntimeError: connection closed by peer"])
def test_a_lane_that_died_of_something_else_keeps_its_slots(words: str | None):
    async def story(office: Office) -> None:
        await office.open(0)
        await office.broker.lease({"id": "a"}, "client")
        await office.fill(4)
        if words is not None:
            await office.broker.dying(0, words)
        assert await office.broker.join(0, "second life") == ("the job", 4)

    told(story)


def test_a_lane_that_died_before_it_asked_for_trials_may_have_all_its_slots():
    async def story(office: Office) -> None:
        await office.open(0)
        assert await office.broker.join(0, "second life") == ("the job", None)

    told(story)


def test_a_trial_that_came_further_after_each_death_of_its_lane_is_not_given_up():
    async def story(office: Office) -> None:
        await office.open(0)
        for name in ("moves", "stands"):
            await office.broker.lease({"id": name}, "client")
        await office.ask(0, 2)
        await office.ask(0, 0, {"trial": "moves", "step": 3}, {"trial": "stands", "step": 3})
        for life in range(4):
            await office.broker.join(0, f"life {life + 2}")
            taken = ids((await office.ask(0, 2)).take)
            assert taken == (["moves"] if life >= LANES_LOST - 1 else ["moves", "stands"])
            # A rung that was passed before is told again, and shows nothing.
            await office.ask(0, 0, {"trial": "moves", "step": 3}, {"trial": "stands", "step": 3})
            await office.ask(0, 0, {"trial": "moves", "step": 4 + life})
        failed = await office.broker.report("stands", "client", 2)
        assert failed is not None
        assert failed["status"] == "FAILED"

    told(story)


def test_a_trial_whose_lanes_keep_dying_fails_alone():
    async def story(office: Office) -> None:
        await office.open(0)
        await office.broker.lease({"id": "a"}, "client")
        for life in range(LANES_LOST):
            assert ids((await office.ask(0, 1)).take) == ["a"]
            if life == LANES_LOST - 1:
                await office.broker.lease({"id": "b"}, "client")
                await office.ask(0, 1)
            await office.broker.join(0, f"life {life + 2}")
        failed = await office.broker.report("a", "client", 0)
        assert failed is not None
        assert failed["status"] == "FAILED"
        assert f"{LANES_LOST} times" in failed["error"]
        assert ids((await office.ask(0, 1)).take) == ["b"]

    told(story)


def test_the_trials_of_a_lane_that_is_gone_go_to_another_or_fail_with_the_last():
    async def story(office: Office) -> None:
        await office.open(0, 1)
        await office.broker.lease({"id": "a"}, "client")
        await office.ask(0, 1)
        await office.broker.lane_gone(0, "lane 0 ended", False)
        assert ids((await office.ask(1, 1)).take) == ["a"]
        await office.broker.lane_gone(1, "lane 1 ended", True)
        failed = await office.broker.report("a", "client", 0)
        assert failed is not None
        assert "lane 1 ended" in failed["error"]
        await office.broker.lease({"id": "late"}, "client")
        late = await office.broker.report("late", "client", 0)
        assert late is not None
        assert late["status"] == "FAILED"

    told(story)


def test_a_trial_that_memory_does_not_hold_is_queued_again():
    async def story(office: Office) -> None:
        await office.open(0)
        await office.broker.lease({"id": "a"}, "client")
        await office.ask(0, 1)
        await office.ask(0, 0, {"trial": "a", "requeue": "out of memory"})
        assert ids((await office.ask(0, 1)).take) == ["a"]

    told(story)


def test_saving_waits_until_the_lane_has_saved():
    async def story(office: Office) -> None:
        await office.open(0)
        await office.broker.lease({"id": "a"}, "client")
        assert not await office.broker.save("a")  # it is in no slot
        await office.ask(0, 1)
        saving = asyncio.ensure_future(office.broker.save("a"))
        await asyncio.sleep(0.01)
        assert (await office.ask()).save == ["a"]
        assert not saving.done()
        await office.ask(0, 0, {"trial": "a", "saved": True})
        assert await saving
        assert (await office.ask()).save == []

    told(story)


@pytest.mark.parametrize("keep", [True, False])
def test_closing_ends_lanes_and_wakes_clients(keep: bool):
    async def story(office: Office) -> None:
        await office.open(0)
        await office.broker.lease({"id": "a"}, "client")
        await office.ask(0, 1)
        waiting = asyncio.ensure_future(office.broker.report("a", "client", 0))
        await asyncio.sleep(0.01)
        await office.broker.close(keep)
        assert await waiting == CUT_OFF
        orders = await office.ask()
        assert orders.stop
        assert orders.keep is keep
        assert await office.broker.join(3, "late") == ("the job", None)

    told(story)


def test_a_report_of_a_lane_that_has_lost_the_trial_is_not_heard():
    async def story(office: Office) -> None:
        await office.open(0, 1)
        await office.broker.lease({"id": "a"}, "client")
        await office.ask(0, 1)
        await office.broker.release("a", "client")
        await office.broker.lease({"id": "a"}, "client")
        assert ids((await office.ask(1, 1)).take) == ["a"]
        await office.ask(0, 0, {"trial": "a", "step": 99})
        await office.ask(1, 0, {"trial": "a", "step": 1})
        assert await office.broker.report("a", "client", 0) == {"trial": "a", "step": 1}

    told(story)


def test_the_client_that_asks_has_the_lease_whoever_else_began_the_trial():
    async def story(office: Office) -> None:
        await office.open(0)
        await office.broker.lease({"id": "a"}, "pending actor")
        await office.broker.lease({"id": "a"}, "cached actor")
        await office.broker.release("a", "pending actor")
        assert ids((await office.ask(0, 1)).take) == ["a"]
        await office.ask(0, 0, {"trial": "a", "step": 1}, {"trial": "a", "step": 2})
        assert await office.broker.report("a", "cached actor", 0) == {"trial": "a", "step": 1}
        await office.broker.lease({"id": "a"}, "another pending actor")
        assert await office.broker.report("a", "cached actor", 1) == {"trial": "a", "step": 2}
        await office.broker.release("a", "another pending actor")
        assert (await office.ask()).let_go == []

    told(story)


def test_a_client_that_lost_its_lease_is_told_to_ask_again():
    async def story(office: Office) -> None:
        await office.open(0)
        await office.broker.lease({"id": "a"}, "cached actor")
        await office.broker.lease({"id": "a"}, "pending actor")
        await office.broker.release("a", "pending actor")
        assert await office.broker.report("a", "cached actor", 0) == LOST
        await office.broker.lease({"id": "a"}, "cached actor")
        assert ids((await office.ask(0, 1)).take) == ["a"]

    told(story)
