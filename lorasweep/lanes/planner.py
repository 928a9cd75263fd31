"""Rank 0 of a lane: plans each step from the broker's commands and from what it has measured."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

import ray
import torch

from lorasweep.errors import LorasweepError
from lorasweep.lanes.messages import (
    LaneCommands,
    LaneConfig,
    LaneFacts,
    LaneMessage,
    LaneNews,
    MeasuredBase,
    TrialEnded,
    TrialFailed,
    TrialRequeued,
    TrialSaved,
    rung_of,
)
from lorasweep.lanes.runner import Runner
from lorasweep.spec.trial import TrialSpec
from lorasweep.train.probe import SlotChoice, SlotProbe

PREPARED = 1  # trials that are made ready before a slot is free
EXCHANGE_S = 0.05  # between exchanges without news; each takes about a millisecond
MEMORY_SHARE = 0.9  # of a GPU that training may use; evaluation needs the rest


@dataclass(frozen=True)
class LaneStep:
    """Plan of one step, carried out by all workers of a lane.

    prepare: trials to make ready; admit: ready ones that get a slot.
    resting: trials that have a slot and do not train in this step.
    stop: whether the lane ends instead; keep: whether its trials are saved first.
    """

    prepare: tuple[TrialSpec, ...] = ()
    admit: tuple[str, ...] = ()
    release: tuple[str, ...] = ()
    save: tuple[str, ...] = ()
    resting: frozenset[str] = frozenset()
    measure_base: bool = False
    stop: bool = False
    keep: bool = False


class StepPlanner:
    """Plans the steps of a lane and keeps its facts."""

    def __init__(self, lane: LaneConfig, runner: Runner, *, died: bool) -> None:
        """Start without trials.

        Args:
            died: whether the lane has died before.
        """
        self._lane, self._runner = lane, runner
        self._probed = not lane.probed
        runner.engine.timed = lane.probed
        self._probe: SlotProbe | None = None
        reason = "as given" if self._probed else "never all in use, so not measured"
        self._facts = LaneFacts(lane.max_slots, reason, {})
        if died:
            slots = f"{lane.max_slots} slot{'s' if lane.max_slots > 1 else ''}"
            self._note(f"lane {lane.number} died and restarted; it has had at most {slots} since")
        self._ready: list[str] = []  # prepared, or being prepared, in order
        self._stages: dict[str, str] = {}
        self._admitted: tuple[str, ...] = ()  # in the step under way
        self._at_rung: set[str] = set()  # resting until Tune has decided
        self._messages: list[LaneMessage] = []
        self._base: MeasuredBase | None = None
        self._exchanged = 0.0
        self._waited = 0.0  # since the last step
        self._tasks_failed = False
        self._empty: list[int] = []  # for each freed slot, the steps it has stood empty

    def plan(self) -> LaneStep:
        """Plan the next step; without anything to train, wait for commands."""
        commands = self._exchange()
        if commands.stop:
            return LaneStep(stop=True, keep=commands.keep)
        self._stages |= {spec.id: spec.stage for spec in commands.start}
        # A trial may be released and started in one exchange, from a checkpoint.
        ready = [trial for trial in self._ready if trial not in commands.release]
        ready += [spec.id for spec in commands.start]
        slots = self._runner.engine.slots
        staying = [trial for trial in slots if trial not in commands.release]
        self._empty += [0] * (len(slots) - len(staying))
        free = max(0, self._facts.slots - len(staying))
        admit, self._ready = tuple(ready[:free]), ready[free:]
        if admit and self._empty:
            refilled, self._empty = self._empty[: len(admit)], self._empty[len(admit) :]
            self._facts = replace(self._facts, refills=(*self._facts.refills, *refilled))
        self._admitted = admit
        return LaneStep(
            prepare=commands.start,
            admit=admit,
            release=commands.release,
            save=commands.save,
            resting=self._resting([*staying, *admit]),
            measure_base=commands.measure_base and self._base is None,
        )

    def _exchange(self) -> LaneCommands:
        """Exchange news for commands, unless there is no news and the last exchange was just now.

        The exchange would otherwise take a good part of the milliseconds of a small step.
        """
        held = len(self._runner.engine.slots) + len(self._ready)
        now = time.monotonic()
        if held and not self._messages and now - self._exchanged <= EXCHANGE_S:
            return LaneCommands()
        news = LaneNews(
            self._lane.number,
            self._facts.slots + PREPARED - held,
            self._facts,
            tuple(self._messages),
            self._base,
            idle=not held and not self._messages,
        )
        commands: LaneCommands = ray.get(self._lane.broker.exchange.remote(news))
        self._exchanged, self._messages = now, []
        self._waited += time.monotonic() - now
        self._at_rung &= {*commands.undecided} - {*commands.release}
        return commands

    def _resting(self, trials: Sequence[str]) -> frozenset[str]:
        """Choose the trials that do not train in the coming step."""
        if not self._probed and self._probe is None and len(trials) == self._facts.slots:
            self._probe = SlotProbe(tuple(trials), self._lane.max_slots)
        if self._probe is None or self._probed:
            # The probe may have chosen fewer slots than trials have been admitted to.
            return frozenset({*self._at_rung, *trials[self._facts.slots :]})
        if not {*self._probe.group} <= {*trials} - self._at_rung:
            # A trial of the group has ended or is at a rung. Speeds of different sets of trials do
            # not compare, so the probe starts anew when the slots are full again.
            self._probe = None
            return frozenset(self._at_rung)
        return frozenset({*trials} - {*self._probe.group} | self._at_rung)

    def record(self, messages: Sequence[LaneMessage], base: MeasuredBase | None) -> None:
        """Record what a step brought."""
        engine = self._runner.engine
        self._messages += messages
        self._base = self._base or base
        self._empty = [steps + bool(engine.tokens) for steps in self._empty]
        for message in messages:
            match message:
                case TrialEnded() | TrialFailed():
                    self._count_freed()
                case TrialRequeued():
                    self._count_freed()
                    self._shrink(message)
                case TrialSaved():
                    pass
                case _ if rung_of(message) is not None and self._lane.judged:
                    self._rest(message.trial)
        if not engine.tokens:
            if engine.slots:  # all of them are at rungs, and wait for Tune
                time.sleep(EXCHANGE_S / 10)
            return
        facts, now = self._facts, time.time()
        ended = sum(isinstance(message, TrialEnded | TrialFailed) for message in messages)
        self._facts = replace(
            facts,
            first_step=facts.first_step or now,
            last_step=now,
            waited_s=facts.waited_s + (self._waited if facts.first_step else 0.0),
            steps=facts.steps + 1,
            filled=facts.filled + min(facts.slots, len(engine.slots) + ended),
            offered=facts.offered + facts.slots,
            tokens=facts.tokens + engine.tokens * self._runner.shard.workers,
            train_s=facts.train_s + engine.seconds,
        )
        self._waited = 0.0
        self._advance_probe()

    def _count_freed(self) -> None:
        self._empty += [0] * (len(self._runner.engine.slots) < self._facts.slots)

    def _shrink(self, message: TrialRequeued) -> None:
        """Continue with the slots that memory holds."""
        slots = max(1, len(self._runner.engine.slots))
        self._facts = replace(self._facts, slots=slots)
        self._note(f"{message.reason}; continues with {slots} slots")
        if message.trial in self._admitted:
            self._probe = None  # it trained in none of the groups; measure the others
        elif self._probe is not None and not self._probed:
            self._probe.stop()

    def _note(self, sentence: str) -> None:
        self._facts = replace(self._facts, notes=(*self._facts.notes, sentence))

    def check_tasks(self, tasks: Future[None]) -> None:
        """Fail all trials if loading the tasks failed, before they train for nothing."""
        error = tasks.exception() if tasks.done() else None
        if isinstance(error, LorasweepError) and not self._tasks_failed:
            ray.get(self._lane.broker.fail_all.remote(str(error)))
            self._tasks_failed = True

    def _rest(self, trial: str) -> None:
        """Rest a trial at its rung until Tune has decided, so that it trains no step in vain."""
        if self._stages[trial] == "search" and trial in self._runner.engine.slots:
            self._at_rung.add(trial)

    def _advance_probe(self) -> None:
        """Let the probe measure the step, and follow its choice once it has one."""
        probe, engine = self._probe, self._runner.engine
        if probe is None or self._probed:
            return
        if probe.choice is None:
            if not self._twice_fits():
                probe.max_slots = len(probe.group)
            probe.record(engine.tokens, engine.seconds)
        if probe.choice is not None:
            self._settle(probe.choice)

    def _twice_fits(self) -> bool:
        """Whether a GPU's memory holds twice as many trials as the largest group so far.

        The peak beyond the base grows with the trials of a group, so twice as many need at most
        base + 2 * (peak - base).
        """
        device = self._runner.engine.device
        if device.type != "cuda":
            return True
        peak = torch.cuda.max_memory_allocated(device)
        total = torch.cuda.get_device_properties(device).total_memory
        return bool(2 * peak - self._runner.base_bytes < MEMORY_SHARE * total)

    def _settle(self, choice: SlotChoice) -> None:
        self._probed, self._runner.engine.timed = True, False
        self._facts = replace(
            self._facts,
            slots=min(choice.slots, self._facts.slots),
            reason=choice.reason,
            tokens_per_s={str(n): round(speed) for n, speed in choice.tokens_per_s.items()},
        )
