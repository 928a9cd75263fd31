"""A lane: one Ray Train job that holds the frozen base once and trains many trials in its slots.

All workers of a lane do the same in the same order. The first of them, the leader, asks the broker
for orders, and what it decides for a step is broadcast to the others.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import ray
import torch

from lorasweep.data.shard import Shard
from lorasweep.errors import LorasweepError, OutOfMemoryError, in_a_line
from lorasweep.lanes.broker import LaneCommands, LaneConfig, Report
from lorasweep.lanes.runner import Runner
from lorasweep.lanes.worker import open_runner
from lorasweep.spec.trial import TrialSpec
from lorasweep.train.broadcast import broadcast
from lorasweep.train.device import is_out_of_memory
from lorasweep.train.engine import Slot
from lorasweep.train.probe import SlotChoice, SlotProbe

RESERVE = 1  # trials that are made ready before a slot is free
APART_S = 0.05  # between two exchanges without news, each of which takes about a millisecond
MEMORY_SHARE = 0.9  # of a GPU that a step may take; the rest is for what is measured


@dataclass(frozen=True)
class _Step:
    """Hold what all workers of a lane do before and in one step.

    prepare: trials that are made ready; admit: ready ones that get a slot.
    """

    prepare: tuple[TrialSpec, ...] = ()
    admit: tuple[str, ...] = ()
    let_go: tuple[str, ...] = ()
    save: tuple[str, ...] = ()
    resting: frozenset[str] = frozenset()
    measure_base: bool = False
    stop: bool = False
    keep: bool = False


@dataclass
class LaneFacts:
    """Hold what a lane can say of itself.

    first_step, last_step: when they had ended, in seconds since the epoch.
    waited_s: between these two for orders.
    steps: taken; filled: slots that trained, summed over the steps; offered: slots there were while
        trials waited or trained, summed likewise.
    refills: for each slot that was freed and filled again, the steps that it stood empty.
    tokens, train_s: trained on by all its trials, and in which time.
    """

    slots: int
    reason: str
    tokens_per_s: dict[str, float] = field(default_factory=dict)
    first_step: float | None = None
    last_step: float | None = None
    waited_s: float = 0.0
    steps: int = 0
    filled: int = 0
    offered: int = 0
    refills: list[int] = field(default_factory=list)
    tokens: int = 0
    train_s: float = 0.0
    notes: list[str] = field(default_factory=list)


def serve(lane: LaneConfig) -> None:
    """Train trials until the broker closes; every worker of the lane calls this."""
    # All workers of one life of the lane bear the same name, which the next life does not.
    context = ray.train.get_context()
    shard = Shard(context.get_world_rank(), context.get_world_size())
    life = f"{context.get_experiment_name()} {broadcast(uuid.uuid4().hex, shard)}"
    job, fewer = ray.get(lane.broker.join.remote(lane.number, life))
    if job is None:  # the sweep ended before it began
        return
    if fewer is not None:
        lane = replace(lane, most=min(lane.most, fewer))
    try:
        _train(lane, open_runner(job), died=fewer is not None)
    except Exception as error:
        reason = f"{type(error).__name__}: {in_a_line(error)}"
        ray.get(lane.broker.dying.remote(lane.number, reason))
        raise


def _train(lane: LaneConfig, runner: Runner, *, died: bool) -> None:
    """Do step after step what the leader decides.

    Args:
        died: whether the lane has died before.
    """
    leader = _Leader(lane, runner, died=died) if runner.shard.worker == 0 else None
    # OpenMP threads of a second team would make those of the first sleep instead of spin.
    with ThreadPoolExecutor(1, "prepare", torch.set_num_threads, (1,)) as background:
        hands = _Hands(runner, background)
        tasks: Future[None] | None = None
        step = _share(leader.decide() if leader else None, runner.shard)
        while not step.stop:
            reports, base = hands.do(step)
            if leader:
                leader.take(reports, base)
            if tasks is None and runner.engine.tokens:  # wanted late, and the first step early
                tasks = background.submit(runner.measurement.prepare)
            if leader and tasks is not None:
                leader.look_at(tasks)
            step = _share(leader.decide() if leader else None, runner.shard)
        if step.keep:
            for trial in list(runner.engine.slots):
                runner.release(trial, save=True)


def _share(step: _Step | None, shard: Shard) -> _Step:
    """Give all workers what the leader decided."""
    decided = broadcast(step, shard)
    assert decided is not None, "the leader always decides"
    return decided


class _Hands:
    """Do what the leader decided; the same on every worker."""

    def __init__(self, runner: Runner, background: ThreadPoolExecutor) -> None:
        self._runner, self._background = runner, background
        self.ready: dict[str, Future[Slot]] = {}

    def do(self, step: _Step) -> tuple[list[Report], dict[str, Any] | None]:
        """Change the slots, then take one training step.

        Returns:
            Reports, and the base's scores if they were asked for.
        """
        runner, reports = self._runner, []
        for trial in step.let_go:
            if trial in runner.engine.slots:
                runner.release(trial)
            self.ready.pop(trial, None)
        for spec in step.prepare:
            self.ready[spec.id] = self._background.submit(runner.prepare, spec)
        for trial in step.save:
            if trial in runner.engine.slots:
                runner.save(trial)
            reports.append({"trial": trial, "saved": True})
        for trial in step.admit:
            reports += self._admit(trial)
        base = runner.measure_base().model_dump() if step.measure_base else None
        shortage = None
        try:
            reports += runner.step(step.resting)
        except OutOfMemoryError as error:
            if runner.shard.workers > 1:
                raise  # the other workers are in the midst of it; the lane starts anew with fewer
            shortage = str(error)
        if shortage is not None:  # not before the error is gone, with what it holds
            reports.append(runner.make_room(shortage))
        return reports, base

    def _admit(self, trial: str) -> list[Report]:
        runner, ready = self._runner, self.ready.pop(trial)
        try:
            self._check_agreed(trial, ready)
            return runner.admit(ready.result())
        except Exception as error:  # nobody's step has begun, so no other trial need end
            short = is_out_of_memory(error)
            if short and runner.shard.workers > 1:
                raise  # the others may have had room
            said = in_a_line(error)
            is_sentence = isinstance(error, LorasweepError)
            reason = str(error) if is_sentence else f"{type(error).__name__}: {said}"
        if short and runner.engine.slots:
            return [{"trial": trial, "requeue": reason}]
        return [{"trial": trial, "status": "FAILED", "error": reason}]

    def _check_agreed(self, trial: str, ready: Future[Slot]) -> None:
        """Make sure that all workers have taken up the same state of a trial.

        Each has looked for it in a thread beside the training, where it could not ask the others.
        """
        shard = self._runner.shard
        if shard.workers == 1:
            return
        failed = ready.exception() is not None
        steps = torch.zeros(shard.workers, dtype=torch.int64, device=self._runner.engine.device)
        steps[shard.worker] = -1 if failed else ready.result().position.step
        found = shard.total(steps).tolist()
        if len({*found}) > 1 and not failed:
            told = ", ".join("none" if step < 0 else str(step) for step in found)
            raise LorasweepError(
                f"--out: every worker must take up the same state of trial {trial}, and they found "
                f"those of steps {told}; the folder's storage shows files late, or another trial "
                "was writing; run the sweep again"
            )


def _at_most(lane: LaneConfig) -> str:
    return f"it has had at most {lane.most} slot{'s' if lane.most > 1 else ''} since"


class _Leader:
    """Decide what the lane does in each step, from the broker's orders and what it has measured."""

    def __init__(self, lane: LaneConfig, runner: Runner, *, died: bool) -> None:
        self._lane, self._runner = lane, runner
        self._probed = not lane.probed
        runner.engine.timed = lane.probed
        self._probe: SlotProbe | None = None
        self._facts = LaneFacts(
            lane.most, "as given" if self._probed else "of which all were never in use"
        )
        if died:
            self._facts.notes.append(f"lane {lane.number} died and began again; {_at_most(lane)}")
        self._ready: list[str] = []  # being prepared or prepared, in order
        self._stages: dict[str, str] = {}
        self._newcomers: tuple[str, ...] = ()  # that are admitted in the step
        self._resting: set[str] = set()  # at a rung, until Tune has decided
        self._news: list[Report] = []
        self._base: dict[str, Any] | None = None
        self._asked = 0.0
        self._waited = 0.0  # since the last step
        self._refused = False
        self._empty: list[int] = []  # steps for which each freed slot has stood empty

    def decide(self) -> _Step:
        """Say what the coming step is; where there is nothing to train, wait for orders."""
        orders = self._exchange()
        if orders.stop:
            return _Step(stop=True, keep=orders.keep)
        specs = tuple(TrialSpec.model_validate(trial) for trial in orders.take)
        self._stages |= {spec.id: spec.stage for spec in specs}
        # A trial may be let go and come back in one exchange, from a saved state.
        ready = [trial for trial in self._ready if trial not in orders.let_go]
        ready += [spec.id for spec in specs]
        staying = [t for t in self._runner.engine.slots if t not in orders.let_go]
        self._empty += [0] * (len(self._runner.engine.slots) - len(staying))
        free = max(0, self._facts.slots - len(staying))
        admit, self._ready = tuple(ready[:free]), ready[free:]
        refilled, self._empty = self._empty[: len(admit)], self._empty[len(admit) :]
        self._facts.refills += refilled
        self._newcomers = admit
        return _Step(
            prepare=specs,
            admit=admit,
            let_go=tuple(orders.let_go),
            save=tuple(orders.save),
            resting=self._at_rest([*staying, *admit]),
            measure_base=orders.measure_base and self._base is None,
        )

    def _exchange(self) -> LaneCommands:
        """Tell the broker the news and take its orders, unless both were done a moment ago."""
        idle = not (self._runner.engine.slots or self._ready)
        now = time.monotonic()
        if not (self._news or idle or now - self._asked > APART_S):
            return LaneCommands()
        held = len(self._runner.engine.slots) + len(self._ready)
        orders: LaneCommands = ray.get(
            self._lane.broker.exchange.remote(
                self._lane.number,
                self._facts.slots + RESERVE - held,
                self._news,
                asdict(self._facts),
                base=self._base,
                idle=idle and not self._news,
            )
        )
        self._asked, self._news = now, []
        self._waited += time.monotonic() - now
        self._resting &= {*orders.unseen} - {*orders.let_go}
        return orders

    def _at_rest(self, trials: Sequence[str]) -> frozenset[str]:
        """Name the trials that sit out the coming step."""
        if not self._probed and self._probe is None and len(trials) == self._facts.slots:
            self._probe = SlotProbe(tuple(trials), self._lane.most)
        if self._probe is None or self._probed:
            return frozenset({*self._resting, *trials[self._facts.slots :]})
        if not {*self._probe.group} <= {*trials} - self._resting:
            self._probe = None  # one of them has ended or rests; measure again with those to come
            return frozenset(self._resting)
        return frozenset({*trials} - {*self._probe.group} | self._resting)

    def take(self, reports: list[Report], base: dict[str, Any] | None) -> None:
        """Take what the step gave."""
        engine, facts = self._runner.engine, self._facts
        self._news += reports
        self._base = self._base or base
        self._empty = [steps + bool(engine.tokens) for steps in self._empty]
        for report in reports:
            trial = report["trial"]
            if "status" in report or "requeue" in report:
                self._empty += [0] * (len(engine.slots) < facts.slots)
            elif "response_loss" in report and self._lane.judged:
                self._rest(trial)
            if "requeue" in report:  # memory does not hold them all
                facts.slots = max(1, len(engine.slots))
                facts.notes.append(f"{report['requeue']}; goes on with {facts.slots} slots")
                if trial in self._newcomers:
                    self._probe = None  # it trained in none of the groups; measure the others
                elif self._probe is not None and not self._probed:
                    self._probe.stop()
        if not engine.tokens:
            if engine.slots:  # all of them wait for Tune
                time.sleep(APART_S / 10)
            return
        facts.last_step = time.time()
        facts.waited_s += self._waited if facts.first_step else 0.0
        self._waited = 0.0
        facts.first_step = facts.first_step or facts.last_step
        facts.steps += 1
        facts.filled += min(facts.slots, len(engine.slots) + sum("status" in r for r in reports))
        facts.offered += facts.slots
        facts.tokens += engine.tokens * self._runner.shard.workers
        facts.train_s += engine.seconds
        self._look_at_probe()

    def look_at(self, tasks: Future[None]) -> None:
        """End the sweep where its tasks turn out to be broken, before trials wait for them."""
        error = tasks.exception() if tasks.done() else None
        if isinstance(error, LorasweepError) and not self._refused:
            ray.get(self._lane.broker.refuse.remote(str(error)))
            self._refused = True

    def _rest(self, trial: str) -> None:
        """Let a trial sit at its rung until Tune has decided, so that no step is for nothing."""
        if self._stages[trial] == "search" and trial in self._runner.engine.slots:
            self._resting.add(trial)

    def _look_at_probe(self) -> None:
        """Let the probe measure the step, and take its choice once it has one."""
        probe, engine = self._probe, self._runner.engine
        if probe is None or self._probed:
            return
        if probe.choice is None:
            if not self._fits_twice():
                probe.most = len(probe.group)
            probe.take(engine.tokens, engine.seconds)
        if probe.choice is not None:
            self._settle(probe.choice)

    def _fits_twice(self) -> bool:
        """Tell whether twice as many trials as have been tried will fit into a GPU's memory."""
        device = self._runner.engine.device
        if device.type != "cuda":
            return True
        used = torch.cuda.max_memory_allocated(device)
        total = torch.cuda.get_device_properties(device).total_memory
        return bool(2 * used - self._runner.base_bytes < MEMORY_SHARE * total)

    def _settle(self, choice: SlotChoice) -> None:
        self._probed, self._runner.engine.timed = True, False
        self._facts.slots, self._facts.reason = min(choice.slots, self._facts.slots), choice.reason
        self._facts.tokens_per_s = {str(n): round(s) for n, s in choice.tokens_per_s.items()}
