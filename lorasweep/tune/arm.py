"""Run one arm of a sweep: the trials of one method in one domain, to the last of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray import tune
from rich.console import Console

from lorasweep.errors import LorasweepError
from lorasweep.evaluate.tasks import BASE_AGREEMENT
from lorasweep.store.journal import Journal
from lorasweep.store.paths import SweepPaths
from lorasweep.store.records import ArmStarted, BaseMeasured, Scores
from lorasweep.tune.callbacks import Board, Recorder
from lorasweep.tune.cluster import DRIVER, Cluster, window
from lorasweep.tune.ground import Ground, begin
from lorasweep.tune.interrupt import Interrupt
from lorasweep.tune.live import View, announcer, live_view
from lorasweep.tune.metrics import Gauges
from lorasweep.tune.prepare import Prepared
from lorasweep.tune.replay import ordered_search, window_of
from lorasweep.tune.say import say
from lorasweep.tune.scheduler import OrderedScheduler, build_rule
from lorasweep.tune.search import planned_trials
from lorasweep.tune.trainable import SlotTrial
from lorasweep.tune.worker import SweepJob, measure_base, run_trial


@dataclass(frozen=True)
class Surroundings:
    """Hold what all arms of a session share.

    view: draws the board.
    interrupt: whether the session is being ended.
    """

    paths: SweepPaths
    journal: Journal
    console: Console
    board: Board
    view: View
    gauges: Gauges
    interrupt: Interrupt


def run_arm(
    name: str,
    prepared: Prepared,
    around: Surroundings,
    cluster: Cluster,
    base: Scores | None,
    started: Callable[[], None],
) -> None:
    """Start what the arm stands on, run its trials, and end its lanes.

    Whoever waits for a lane must be gone before Ray is, which ends the whole process if a thread
    asks it anything afterwards.

    Args:
        name: of the arm's part of what Ray writes.
        base: scores of the base, where they are known already.
        started: told once trials are about to run.

    Raises:
        ResourceError: the cluster cannot hold the arm.
        LorasweepError: all its trials have failed.
    """
    ground = begin(name, prepared.arm, around.paths, cluster)
    try:
        _Arm(name, prepared, around, ground, base).run(started)
    finally:
        if ground.fleet is not None:
            for lane in ground.fleet.close(keep=around.interrupt.ending):
                around.journal.append(lane)


class _Arm:
    """Hold what the steps of running one arm share."""

    def __init__(
        self,
        name: str,
        prepared: Prepared,
        around: Surroundings,
        ground: Ground,
        base: Scores | None,
    ) -> None:
        self.name, self.arm, self.prepared = name, prepared.arm, prepared
        self.around, self.ground, self.base = around, ground, base

    def run(self, started: Callable[[], None]) -> None:
        """Say what there is, measure the base, and run the trials."""
        around, ground, arm = self.around, self.ground, self.arm
        self._describe()
        started()
        sees = window_of(
            arm, around.journal.records, window(arm, ground.in_flight, planned_trials(arm))
        )
        around.journal.append(
            ArmStarted(method=arm.method, domain=arm.domain, max_concurrent=sees, time=time.time())
        )
        job = SweepJob(
            self.prepared.spec,
            str(around.paths.root.resolve()),
            ray.put(self.prepared.data),
            None,
            ground.shape.cpus,
        )
        # Of this arm's lanes, and never of those of an arm before.
        around.interrupt.wake = None if ground.fleet is None else ground.fleet.cut_off
        if ground.fleet is None:
            job = self._measured_base(job)
            trainable = tune.with_parameters(run_trial, job=job, shape=ground.shape)
        else:
            ground.fleet.begin(job, self.base)
            trainable = tune.with_parameters(SlotTrial, desk=ground.fleet.desk, root=job.root)
        self._tune(trainable, sees)

    def _describe(self) -> None:
        around, ground = self.around, self.ground
        for note in self.prepared.notes:
            say(around.console, note)
        shape, cluster = ground.shape, ground.cluster
        where = "on this machine" if cluster.own else "on the cluster"
        size = f"{shape.workers} x {shape.cpus:g} CPU"
        size += f" and {shape.gpus:g} GPU" if shape.gpus else ""
        say(
            around.console,
            f"{ground.in_flight} trials at a time {where}, each {size}"
            if ground.fleet is None
            else f"up to {ground.in_flight} trials under way {where}, in lanes of {size}",
        )

    def _measured_base(self, job: SweepJob) -> SweepJob:
        """Measure the base once per domain; its own samples are made again for each arm."""
        spec, shape, around = job.spec, self.ground.shape, self.around
        agreement = BASE_AGREEMENT in (*spec.evaluate.learning, *spec.evaluate.source)
        if self.base is not None and not agreement:
            return job
        say(around.console, "measuring the base model")
        scores, samples, wall_s = measure_base(job, shape)
        if self.base is None:
            self.base = scores
            around.journal.append(
                BaseMeasured(scores=scores, domain=spec.domain, wall_s=round(wall_s, 3))
            )
        return replace(job, samples=None if samples is None else ray.put(samples))

    def _tune(self, trainable: Any, sees: int) -> None:
        """Let Tune run the trials to the last of them.

        Args:
            sees: how far back a trial sees.
        """
        around, ground, arm = self.around, self.ground, self.arm
        search, order = ordered_search(arm, self.prepared.points, around.journal.records, sees)
        search.hold(ground.slots)
        recorder = Recorder(
            around.journal,
            search,
            around.board,
            around.gauges,
            self.base,
            domain=arm.domain,
            interrupt=around.interrupt,
            announce=announcer(around.console, around.board),
            drop=None if ground.fleet is None else ground.fleet.drop,
        )
        planned = planned_trials(arm)
        tuner = tune.Tuner(
            tune.with_resources(trainable, DRIVER),
            tune_config=tune.TuneConfig(
                search_alg=search,
                scheduler=OrderedScheduler(build_rule(arm.search), order),
                num_samples=planned + arm.search.repetitions(planned),
                max_concurrent_trials=min(sees, ground.in_flight),
                reuse_actors=ground.fleet is not None,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_name,
            ),
            run_config=tune.RunConfig(
                name=self.name,
                storage_path=str(around.paths.ray.resolve()),
                callbacks=[recorder],
                stop=around.interrupt,
                verbose=0,
            ),
        )
        with around.interrupt, live_view(around.console, around.view):
            tuner.fit()
        if around.interrupt.given_up:
            raise LorasweepError(
                f"all {around.board.arm.total()} trials failed, so the sweep was given up; the "
                f"last one with: {around.board.recent[-1].error} ({around.paths.log} may tell more)"
            )


def _trial_name(trial: Any) -> str:
    """Name a Tune trial as the journal does, so that the dashboard and the report agree."""
    return str(trial.config["trial"]["id"])
