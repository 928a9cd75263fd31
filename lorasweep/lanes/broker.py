"""Where Tune's trials and the lanes meet: trials ask for a slot, lanes for trials.

The broker is a Ray actor without CPU or GPU. Trials and lanes call it; it calls nobody. A trial's
client leases a slot, waits for its reports one by one, and gives the slot back; a lease that is not
renewed ends. A lane says in one exchange what its trials did and how many more it has room for, and
hears which to take, to let go and to save.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Report = dict[str, Any]

LEASE_S = 60.0  # a client that was not heard of for so long is dead
PATIENCE_S = 5.0  # a call that has nothing to tell returns after so long
LANES_LOST = 2  # a trial that was in so many lanes when they died, and no further, is given up
CUT_OFF = {"cut_off": True}  # what a client hears when the session ends before its trial does
LOST = {"lost": True}  # and when its lease has ended, so that it must ask for a slot again


@dataclass(frozen=True)
class LaneConfig:
    """Hold what a lane is told at its start.

    number: of the lane.
    broker: the actor that gives it trials.
    most: slots at most.
    probed: whether the lane finds out how many of them pay; else it has them all.
    judged: whether a scheduler may stop trials at their rungs.
    """

    number: int
    broker: Any
    most: int
    probed: bool
    judged: bool


@dataclass
class LaneCommands:
    """Tell a lane what to do before its next step.

    take: trials, as plain values.
    unseen: its trials whose latest report Tune has not decided on yet.
    keep: with `stop`, whether trials are to be saved where they stand.
    """

    take: list[dict[str, Any]] = field(default_factory=list)
    let_go: list[str] = field(default_factory=list)
    save: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    measure_base: bool = False
    stop: bool = False
    keep: bool = False


@dataclass
class _Lease:
    """Hold one client's claim to a slot.

    client: that may ask and give back. Tune may begin a trial in one actor, and move it to another
        that has become free before it ends the first.
    asked: the number of the report that the client asked for last; it has seen those before.
    step: the furthest that was heard of; lost_at: of these, where it stood when a lane last died
        with it in it; lost: lanes that died with it since it was last further than that.
    """

    trial: dict[str, Any]
    client: str
    renewed: float
    lane: int | None = None
    reports: list[Report] = field(default_factory=list)
    asked: int = 0
    step: int = 0
    lost_at: int = 0
    lost: int = 0
    save: asyncio.Future[bool] | None = None

    @property
    def ended(self) -> bool:
        """Tell whether the last report is there."""
        return bool(self.reports) and "status" in self.reports[-1]

    def hear(self, report: Report) -> None:
        """Take a report; a trial that comes further than it ever was has not killed its lanes."""
        self.reports.append(report)
        self.step = max(self.step, report.get("step", 0))
        if self.step > self.lost_at:
            self.lost = 0

    def lose(self) -> None:
        """Lose the lane that the trial was in."""
        self.lane, self.lost_at, self.lost = None, self.step, self.lost + 1
        if self.save is not None:
            self.save.set_result(False)
            self.save = None


class SlotBroker:
    """Keep the leases; every method is one call of a client, a lane or the driver."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Open without a lease and without a lane."""
        self._clock = clock
        self._base: dict[str, Any] | None = None
        self._leases: dict[str, _Lease] = {}
        self._let_go: dict[int, list[str]] = {}
        self._life: dict[int, str] = {}
        self._most: dict[int, int] = {}  # slots that a lane may have after it has died
        self._facts: dict[int, dict[str, Any]] = {}
        self._last_words: dict[int, str] = {}
        self._job: Any = None
        self._gone = 0
        self._closed = self._keep = False
        self._no_lane: str | None = None  # why there is none left
        self._news = asyncio.Condition()

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def _wait(self, ready: Callable[[], bool], patience: float = PATIENCE_S) -> None:
        async with self._news:
            try:
                await asyncio.wait_for(self._news.wait_for(ready), patience)
            except TimeoutError:
                return

    # The driver's calls.

    async def begin(self, job: Any, base: dict[str, Any] | None) -> None:
        """Give the lanes their work once it is prepared, and the base's scores if known."""
        self._job, self._base = job, base
        await self._tell()

    async def close(self, keep: bool) -> None:
        """End every lane and every client; `keep` saves what trains."""
        self._closed, self._keep = True, keep
        await self._tell()

    async def asked(self, lanes: int) -> bool:
        """Wait until so many lanes have asked for trials, or ended.

        Returns:
            Whether the sweep goes on.
        """

        def there() -> bool:
            return self._over or len(self._facts) + self._gone >= lanes

        while not there():
            await self._wait(there)
        return not self._over

    async def facts(self) -> dict[int, dict[str, Any]]:
        """Give what each lane last said of itself."""
        return self._facts

    async def lane_gone(self, lane: int, reason: str, last: bool) -> None:
        """Take a dead lane's trials back; without any lane left, they all fail."""
        self._take_back(lane, reason)
        self._life.pop(lane, None)
        self._gone += 1
        if last:
            self._end_all(reason)
        await self._tell()

    def _end_all(self, reason: str) -> None:
        """Fail every trial there is and will be, for the first reason given."""
        self._no_lane = self._no_lane or reason
        for trial in self._leases:
            self._fail(trial)

    def _fail(self, trial: str) -> None:
        """End a trial that no lane will ever take."""
        if not self._leases[trial].ended:
            report = {"trial": trial, "status": "FAILED", "error": self._no_lane}
            self._leases[trial].reports.append(report)

    # The clients' calls.

    async def lease(self, trial: dict[str, Any], client: str) -> None:
        """Ask for a slot; a trial that another client has begun goes on for this one."""
        lease = self._leases.get(trial["id"])
        if lease is None or lease.ended:
            lease = self._leases[trial["id"]] = _Lease(trial, client, self._clock())
        lease.client, lease.renewed = client, self._clock()
        if self._no_lane is not None:
            self._fail(trial["id"])
        await self._tell()

    async def report(self, trial: str, client: str, number: int) -> Report | None:
        """Wait for the trial's report of this number, from 0; None says to ask again.

        Who asks is the one that Tune means, and has the lease from now on.
        """
        lease = self._leases.get(trial)
        if lease is None:
            return dict(LOST)
        lease.client = client
        lease.renewed, lease.asked = self._clock(), number
        await self._tell()  # its lane may be waiting for this trial's word

        def there() -> bool:
            if self._closed or len(lease.reports) <= number:
                return self._closed
            # What a trial forgot is counted from the base, whose scores must come first.
            scored = lease.reports[number].get("status") not in {None, "FAILED"}
            return not scored or self._base is not None

        if not there():
            await self._wait(there)
        lease.renewed = self._clock()
        if not there():
            return None
        if self._closed and len(lease.reports) <= number:
            return dict(CUT_OFF)
        report = lease.reports[number]
        return {**report, "base": self._base} if "status" in report else report

    async def save(self, trial: str) -> bool:
        """Have a trial's state saved at the next step; False if it is in no slot yet."""
        lease = self._leases.get(trial)
        if lease is None or lease.lane is None or lease.ended:
            return False
        if lease.save is None:
            lease.save = asyncio.get_running_loop().create_future()
        await self._tell()
        return await asyncio.shield(lease.save)

    async def release(self, trial: str, client: str) -> None:
        """Give a slot back, however far the trial is."""
        if trial in self._leases and self._leases[trial].client == client:
            await self.drop(trial)

    async def drop(self, trial: str) -> None:
        """End a trial's lease, whoever holds it."""
        lease = self._leases.pop(trial, None)
        if lease is not None and lease.lane is not None and not lease.ended:
            self._let_go.setdefault(lease.lane, []).append(trial)
        await self._tell()

    # The lanes' calls.

    async def join(self, lane: int, life: str) -> tuple[Any, int | None]:
        """Begin, or begin again after a death; wait for the job.

        Args:
            life: the same for all workers of the lane, and another after it has died.

        Returns:
            The job, and how many slots the lane may have at most after a death: as many as before,
            and one fewer than were in use if memory did not hold them.
        """
        if self._life.get(lane, life) != life:
            reason = self._last_words.pop(lane, "its process ended")
            if lane in self._facts:
                held = sum(le.lane == lane and not le.ended for le in self._leases.values())
                slots = self._facts[lane].get("slots", held)
                if "memory" in reason.lower():  # whichever library says so, in its own words
                    slots = min(held, slots) - 1
                self._most[lane] = max(1, min(slots, self._most.get(lane, slots)))
            self._take_back(lane, reason)
        self._life[lane] = life
        await self._tell()
        while self._job is None and not self._closed:
            await self._wait(lambda: self._job is not None or self._closed)
        return self._job, self._most.get(lane)

    async def refuse(self, reason: str) -> None:
        """Say that no trial of the sweep can be measured, so that none trains for nothing."""
        self._end_all(reason)
        await self._tell()

    async def dying(self, lane: int, reason: str) -> None:
        """Say why a lane is about to die, for the trials that fail of it."""
        self._last_words[lane] = reason

    def _take_back(self, lane: int, reason: str) -> None:
        """Queue a dead lane's trials again; one that has seen too many die is what kills them."""
        self._let_go.pop(lane, None)
        for trial, lease in self._leases.items():
            if lease.lane != lane or lease.ended:
                continue
            lease.lose()
            if lease.lost >= LANES_LOST:
                sentence = f"its lane died {lease.lost} times while it trained ({reason})"
                lease.reports.append({"trial": trial, "status": "FAILED", "error": sentence})

    async def exchange(
        self,
        lane: int,
        room: int,
        reports: list[Report],
        facts: dict[str, Any],
        *,
        base: dict[str, Any] | None = None,
        idle: bool = False,
    ) -> LaneCommands:
        """Take a lane's news and give its orders; an idle lane waits here for something to do."""
        self._facts[lane] = facts
        self._base = self._base or base
        for report in reports:
            lease = self._leases.get(report["trial"])
            if lease is None or lease.lane != lane:
                continue  # let go in the meantime
            if "saved" in report:
                if lease.save is not None:
                    lease.save.set_result(True)
                    lease.save = None
            elif "requeue" in report:
                lease.lane = None
            else:
                lease.hear(report)
        await self._expire()
        await self._tell()
        if idle and not self._has_orders(lane):
            await self._wait(lambda: self._has_orders(lane), 1.0)
        return self._orders(lane, room)

    async def _expire(self) -> None:
        now = self._clock()
        for trial in [t for t, lease in self._leases.items() if now - lease.renewed > LEASE_S]:
            await self.drop(trial)

    def _waiting(self) -> list[_Lease]:
        return [le for le in self._leases.values() if le.lane is None and not le.ended]

    def _has_orders(self, lane: int) -> bool:
        return bool(self._over or self._waiting() or self._let_go.get(lane))

    @property
    def _over(self) -> bool:
        return self._closed or self._no_lane is not None

    def _orders(self, lane: int, room: int) -> LaneCommands:
        take = self._waiting()[: max(0, room)]
        for lease in take:
            lease.lane = lane
        mine = {t: lease for t, lease in self._leases.items() if lease.lane == lane}
        return LaneCommands(
            take=[lease.trial for lease in take],
            let_go=self._let_go.pop(lane, []),
            save=[trial for trial, lease in mine.items() if lease.save is not None],
            unseen=[trial for trial, lease in mine.items() if lease.asked < len(lease.reports)],
            measure_base=self._base is None
            and lane == min(self._life)
            and any(lease.ended for lease in self._leases.values()),
            stop=self._over,
            keep=self._keep,
        )
