"""A lane: a Ray Train job that holds the frozen base once and trains many trials in its slots.

All workers of a lane do the same things in the same order, since each step ends in collective
operations. Rank 0 plans a step from the broker's commands and broadcasts the plan (`planner.py`).
"""

from __future__ import annotations

import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import ray
import torch

from lorasweep.data.shard import Shard
from lorasweep.errors import LorasweepError, OutOfMemoryError, in_a_line
from lorasweep.lanes.messages import (
    LaneConfig,
    LaneMessage,
    LaneStart,
    MeasuredBase,
    TrialFailed,
    TrialRequeued,
    TrialSaved,
)
from lorasweep.lanes.planner import LaneStep, StepPlanner
from lorasweep.lanes.runner import Runner, open_runner
from lorasweep.train.device import is_out_of_memory
from lorasweep.train.engine import Slot


def serve(lane: LaneConfig) -> None:
    """Train trials until the broker closes; every worker of the lane calls this."""
    context = ray.train.get_context()
    shard = Shard(context.get_world_rank(), context.get_world_size())
    # After a death Ray Train starts the workers again under the same experiment name. The random
    # part tells the broker a new life from a second worker of the same one.
    life = f"{context.get_experiment_name()} {shard.broadcast(uuid.uuid4().hex)}"
    start: LaneStart = ray.get(lane.broker.join.remote(lane.number, life))
    if start.job is None:  # the session ended before it began
        return
    if start.max_slots is not None:
        lane = replace(lane, max_slots=min(lane.max_slots, start.max_slots))
    try:
        train(lane, open_runner(start.job), died=start.max_slots is not None)
    except Exception as error:
        reason = f"{type(error).__name__}: {in_a_line(error)}"
        ray.get(lane.broker.announce_death.remote(lane.number, reason))
        raise


def train(lane: LaneConfig, runner: Runner, *, died: bool) -> None:
    """Carry out the steps that rank 0 plans.

    Args:
        died: whether the lane has died before.
    """
    planner = StepPlanner(lane, runner, died=died) if runner.shard.worker == 0 else None
    # A second team of OpenMP threads would make those of the first sleep instead of spin, and slow
    # the training; so the background thread computes with one.
    with ThreadPoolExecutor(1, "prepare", torch.set_num_threads, (1,)) as background:
        executor = StepExecutor(runner, background)
        tasks: Future[None] | None = None
        step = _share(planner.plan() if planner else None, runner.shard)
        while not step.stop:
            messages, base = executor.execute(step)
            if planner:
                planner.record(messages, base)
            # Loading lm-eval takes seconds of CPU time and is needed at the end of a trial only, so
            # the first training step goes first.
            if tasks is None and runner.engine.tokens:
                tasks = background.submit(runner.measurement.prepare)
            if planner and tasks is not None:
                planner.check_tasks(tasks)
            step = _share(planner.plan() if planner else None, runner.shard)
        if step.keep:
            for trial in list(runner.engine.slots):
                runner.release(trial, save=True)


def _share(step: LaneStep | None, shard: Shard) -> LaneStep:
    """Broadcast the plan of rank 0 to all workers."""
    planned = shard.broadcast(step)
    assert planned is not None, "rank 0 plans every step"
    return planned


class StepExecutor:
    """Carries out planned steps, identically on every worker.

    ready: trials that are prepared, or being prepared, and have no slot yet.
    """

    def __init__(self, runner: Runner, background: ThreadPoolExecutor) -> None:
        self._runner, self._background = runner, background
        self.ready: dict[str, Future[Slot]] = {}

    def execute(self, step: LaneStep) -> tuple[list[LaneMessage], MeasuredBase | None]:
        """Fill and free slots, then take one training step.

        Returns:
            Messages of the trials, and the base's scores if the step measured them.
        """
        runner = self._runner
        messages: list[LaneMessage] = []
        for trial in step.release:
            if trial in runner.engine.slots:
                runner.release(trial)
            self.ready.pop(trial, None)
        for spec in step.prepare:
            self.ready[spec.id] = self._background.submit(runner.prepare, spec)
        for trial in step.save:
            if trial in runner.engine.slots:
                runner.save(trial)
            messages.append(TrialSaved(trial))
        for trial in step.admit:
            messages += self.admit(trial)
        base = MeasuredBase(runner.measure_base()) if step.measure_base else None
        shortage = None
        try:
            messages += runner.step(step.resting)
        except OutOfMemoryError as error:
            # The other workers are in the midst of the step and wait for this one, so the lane dies
            # and starts again with fewer slots.
            if runner.shard.workers > 1:
                raise
            shortage = str(error)
        # Outside of the except block: until that ends, the traceback keeps the activations of the
        # failed step alive, and freeing a slot would not help.
        if shortage is not None:
            messages.append(runner.make_room(shortage))
        return messages, base

    def admit(self, trial: str) -> list[LaneMessage]:
        """Admit a prepared trial to a slot.

        Returns:
            Reports of the rungs that it passed before; or its failure, or its requeueing.
        """
        runner, ready = self._runner, self.ready.pop(trial)
        try:
            self._check_same_state(trial, ready)
            return [*runner.admit(ready.result())]
        except Exception as error:  # no step has begun, so no other trial is affected
            out_of_memory = is_out_of_memory(error)
            if out_of_memory and runner.shard.workers > 1:
                raise  # other workers may have admitted it
            said = in_a_line(error)
            is_sentence = isinstance(error, LorasweepError)
            reason = str(error) if is_sentence else f"{type(error).__name__}: {said}"
        if out_of_memory and runner.engine.slots:
            return [TrialRequeued(trial, reason)]
        return [TrialFailed(trial=trial, error=reason)]

    def _check_same_state(self, trial: str, ready: Future[Slot]) -> None:
        """Check that all workers have restored a trial from the same step.

        Each has restored it in a background thread, where collective operations are not possible.

        Raises:
            LorasweepError: they found states of different steps.
        """
        shard = self._runner.shard
        if shard.workers == 1:
            return
        failed = ready.exception() is not None
        steps = torch.zeros(shard.workers, dtype=torch.int64, device=self._runner.engine.device)
        steps[shard.worker] = -1 if failed else ready.result().position.step
        found = shard.total(steps).tolist()
        if len({*found}) > 1 and not failed:
            listed = ", ".join("none" if step < 0 else str(step) for step in found)
            raise LorasweepError(
                f"--out: every worker must restore the same state of trial {trial}, and they found "
                f"those of steps {listed}; the folder's storage shows files late, or another trial "
                "was writing; run the sweep again"
            )
