"""The slot broker: a Ray actor through which trials lease slots, and lanes get trials.

Trials and lanes call the broker; it calls nobody, so no call waits for another one in a circle.
A trial's client leases a slot, takes its reports one by one, and releases the slot; a lease that
is not renewed expires. A lane exchanges its news for commands before each step.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lorasweep.lanes.messages import (
    LaneCommands,
    LaneFacts,
    LaneMessage,
    LaneNews,
    LaneStart,
    LeaseLost,
    MeasuredBase,
    SessionCutOff,
    SweepJob,
    TrialEnded,
    TrialFailed,
    TrialProgress,
    TrialReport,
    TrialRequeued,
    TrialSaved,
    is_final,
    rung_of,
)
from lorasweep.spec.trial import TrialSpec

LEASE_S = 60.0  # a client that has not called for this long is dead
WAIT_S = 5.0  # longest that a call waits for news; the caller then asks again
IDLE_LANE_S = 1.0  # likewise, for a lane without work
MAX_LANE_DEATHS = 2  # a trial in this many lanes when they died, without progress, fails


@dataclass
class _Lease:
    """One trial's claim to a slot.

    client: the process that may renew and release it. Tune may start a trial in one actor, and
        move it to another that has become free before it ends the first.
    requested: number of the report that the client requested last; it has the ones before.
    step: furthest that the trial was reported to be.
    deaths: lanes that died with the trial in them since it last made progress; step_at_death: how
        far it was then.
    save: resolved once the lane has saved the trial.
    """

    trial: TrialSpec
    client: str
    renewed: float
    lane: int | None = None
    reports: list[TrialReport] = field(default_factory=list)
    requested: int = 0
    step: int = 0
    step_at_death: int = 0
    deaths: int = 0
    save: asyncio.Future[bool] | None = None

    @property
    def ended(self) -> bool:
        """Whether the final report has arrived."""
        return bool(self.reports) and is_final(self.reports[-1])

    def add(self, report: TrialReport) -> None:
        """Append a report; a trial that makes progress is not what kills its lanes."""
        self.reports.append(report)
        self.step = max(self.step, _step_of(report))
        if self.step > self.step_at_death:
            self.deaths = 0

    def lose_lane(self) -> None:
        """Return the trial to the queue after its lane has died."""
        self.lane, self.step_at_death, self.deaths = None, self.step, self.deaths + 1
        self.resolve_save(saved=False)

    def resolve_save(self, *, saved: bool) -> None:
        """Answer the client that waits for its trial to be saved."""
        if self.save is not None:
            self.save.set_result(saved)
            self.save = None


def _step_of(report: TrialReport) -> int:
    rung = rung_of(report)
    if isinstance(report, TrialProgress | TrialEnded):
        return report.step
    return 0 if rung is None else rung.step


class SlotBroker:
    """Leases of trials, and the commands that follow from them for each lane.

    Its methods are calls of the driver, of trials' clients, and of lanes. They run as coroutines
    of one event loop, so state changes only at an `await`.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Open without leases and lanes."""
        self._clock = clock
        self._base: MeasuredBase | None = None
        self._leases: dict[str, _Lease] = {}
        self._released: dict[int, list[str]] = {}  # trials that a lane has yet to let go
        self._life: dict[int, str] = {}
        self._max_slots: dict[int, int] = {}  # of lanes that have died
        self._facts: dict[int, LaneFacts] = {}
        self._causes: dict[int, str] = {}  # why lanes are about to die
        self._job: SweepJob | None = None
        self._gone = 0
        self._closed = self._keep = False
        self._failure: str | None = None  # why no trial can run any more
        self._changed = asyncio.Condition()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _wait(self, ready: Callable[[], bool], seconds: float = WAIT_S) -> None:
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(ready), seconds)
            except TimeoutError:
                return

    # Calls of the driver.

    async def start(self, job: SweepJob, base: MeasuredBase | None) -> None:
        """Hand the prepared job to the lanes, and the base's scores if they are known."""
        self._job, self._base = job, base
        await self._notify()

    async def close(self, keep: bool) -> None:
        """End every lane and every client; `keep` saves the trials that are training."""
        self._closed, self._keep = True, keep
        await self._notify()

    async def lanes_started(self, count: int) -> bool:
        """Wait until this many lanes have exchanged news or ended.

        Returns:
            Whether the session continues.
        """

        def started() -> bool:
            return self._over or len(self._facts) + self._gone >= count

        while not started():
            await self._wait(started)
        return not self._over

    async def facts(self) -> dict[int, LaneFacts]:
        """Get the latest facts of each lane."""
        return self._facts

    async def base(self) -> MeasuredBase | None:
        """Get the base's scores, if a lane has measured them."""
        return self._base

    async def lane_gone(self, lane: int, reason: str, last: bool) -> None:
        """Requeue the trials of a lane that will not return; after the last one, fail them all."""
        self._requeue_all(lane, reason)
        self._life.pop(lane, None)
        self._gone += 1
        if last:
            self._fail_all(reason)
        await self._notify()

    def _fail_all(self, reason: str) -> None:
        """Fail all current and future trials, for the first reason given: it caused later ones."""
        self._failure = self._failure or reason
        for lease in self._leases.values():
            self._fail(lease, self._failure)

    @staticmethod
    def _fail(lease: _Lease, reason: str) -> None:
        if not lease.ended:
            lease.reports.append(TrialFailed(trial=lease.trial.id, error=reason))

    # Calls of trials' clients.

    async def lease(self, trial: TrialSpec, client: str) -> None:
        """Request a slot; a trial that another client has started continues under this one."""
        lease = self._leases.get(trial.id)
        if lease is None or lease.ended:
            lease = self._leases[trial.id] = _Lease(trial, client, self._clock())
        lease.client, lease.renewed = client, self._clock()
        if self._failure is not None:
            self._fail(lease, self._failure)
        await self._notify()

    async def next_report(
        self, trial: str, client: str, number: int
    ) -> TrialReport | LeaseLost | SessionCutOff | None:
        """Wait for the trial's report of this number, from 0; None asks the client to call again.

        The client that calls is the one in which Tune runs the trial, and takes over the lease.
        """
        lease = self._leases.get(trial)
        if lease is None:
            return LeaseLost()
        lease.client = client
        lease.renewed, lease.requested = self._clock(), number
        await self._notify()  # the lane may be holding the trial at a rung until this call

        def ready() -> bool:
            if self._closed or len(lease.reports) <= number:
                return self._closed
            # Forgetting is counted from the base, whose scores must be in the journal first.
            needs_base = isinstance(lease.reports[number], TrialEnded)
            return not needs_base or self._base is not None

        if not ready():
            await self._wait(ready)
        lease.renewed = self._clock()
        if not ready():
            return None
        if self._closed and len(lease.reports) <= number:
            return SessionCutOff(trial=trial)
        return lease.reports[number]

    async def save(self, trial: str) -> bool:
        """Save a trial's state at the lane's next step; False if it is in no slot."""
        lease = self._leases.get(trial)
        if lease is None or lease.lane is None or lease.ended:
            return False
        if lease.save is None:
            lease.save = asyncio.get_running_loop().create_future()
        await self._notify()
        return await asyncio.shield(lease.save)

    async def release(self, trial: str, client: str) -> None:
        """End the trial's lease if this client holds it, however far the trial is."""
        if trial in self._leases and self._leases[trial].client == client:
            await self.end_lease(trial)

    async def end_lease(self, trial: str) -> None:
        """End a trial's lease, whichever client holds it."""
        lease = self._leases.pop(trial, None)
        if lease is not None:
            lease.resolve_save(saved=False)  # the lane will answer for this lease no longer
            if lease.lane is not None and not lease.ended:
                self._released.setdefault(lease.lane, []).append(trial)
        await self._notify()

    # Calls of lanes.

    async def join(self, lane: int, life: str) -> LaneStart:
        """Register a lane, for the first time or after a death, and wait for the job.

        Args:
            life: the same for all workers of the lane, and another after it has died.
        """
        if self._life.get(lane, life) != life:
            self._note_death(lane)
        self._life[lane] = life
        await self._notify()
        while self._job is None and not self._closed:
            await self._wait(lambda: self._job is not None or self._closed)
        return LaneStart(self._job, self._max_slots.get(lane))

    def _note_death(self, lane: int) -> None:
        """Requeue the trials of a lane that died, and limit its slots if memory ran out."""
        reason = self._causes.pop(lane, "its process ended")
        if lane in self._facts:  # otherwise it died before it had trials
            slots = self._facts[lane].slots
            if "memory" in reason.lower():  # each library has its own words for it
                held = sum(le.lane == lane and not le.ended for le in self._leases.values())
                slots = min(held, slots) - 1
            self._max_slots[lane] = max(1, min(slots, self._max_slots.get(lane, slots)))
        self._requeue_all(lane, reason)

    async def fail_all(self, reason: str) -> None:
        """Fail every trial because none can be measured, before any trains for nothing."""
        self._fail_all(reason)
        await self._notify()

    async def announce_death(self, lane: int, reason: str) -> None:
        """Record why a lane is about to die."""
        self._causes[lane] = reason

    def _requeue_all(self, lane: int, reason: str) -> None:
        """Requeue the trials of a dead lane; one that keeps dying with its lanes fails.

        Which trial killed a lane cannot be seen. One that was in two lanes when they died, and made
        no progress in between, may have, and would then kill every other lane too.
        """
        self._released.pop(lane, None)
        for lease in self._leases.values():
            if lease.lane != lane or lease.ended:
                continue
            lease.lose_lane()
            if lease.deaths >= MAX_LANE_DEATHS:
                self._fail(lease, f"its lane died {lease.deaths} times while it trained ({reason})")

    async def exchange(self, news: LaneNews) -> LaneCommands:
        """Exchange a lane's news for its commands; an idle lane waits here for work."""
        self._facts[news.lane] = news.facts
        self._base = self._base or news.base
        self._deliver(news.lane, news.messages)
        await self._expire()
        await self._notify()
        if news.idle and not self._has_work(news.lane):
            await self._wait(lambda: self._has_work(news.lane), IDLE_LANE_S)
        return self._commands(news.lane, news.wanted)

    def _deliver(self, lane: int, messages: Sequence[LaneMessage]) -> None:
        for message in messages:
            lease = self._leases.get(message.trial)
            if lease is None or lease.lane != lane:
                continue  # released in the meantime
            match message:
                case TrialSaved():
                    lease.resolve_save(saved=True)
                case TrialRequeued():
                    lease.lane = None
                case _:
                    lease.add(message)

    async def _expire(self) -> None:
        now = self._clock()
        for trial in [t for t, lease in self._leases.items() if now - lease.renewed > LEASE_S]:
            await self.end_lease(trial)

    def _queue(self) -> list[_Lease]:
        return [le for le in self._leases.values() if le.lane is None and not le.ended]

    def _has_work(self, lane: int) -> bool:
        return bool(self._over or self._queue() or self._released.get(lane))

    @property
    def _over(self) -> bool:
        return self._closed or self._failure is not None

    def _commands(self, lane: int, wanted: int) -> LaneCommands:
        assigned = self._queue()[: max(0, wanted)]
        for lease in assigned:
            lease.lane = lane
        mine = {t: lease for t, lease in self._leases.items() if lease.lane == lane}
        return LaneCommands(
            start=tuple(lease.trial for lease in assigned),
            release=tuple(self._released.pop(lane, [])),
            save=tuple(t for t, lease in mine.items() if lease.save is not None),
            undecided=tuple(t for t, le in mine.items() if le.requested < len(le.reports)),
            # Once, by the first lane that lives, and late: trials wait for its result only at
            # their end, and the first lane should train instead of measuring.
            measure_base=self._base is None
            and lane == min(self._life)
            and any(lease.ended for lease in self._leases.values()),
            stop=self._over,
            keep=self._keep,
        )
