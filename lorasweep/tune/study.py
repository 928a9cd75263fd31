"""Run one study of a sweep: the trials of one method in one domain, to the last of them."""

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
from lorasweep.lanes.allocation import Allocation, begin
from lorasweep.lanes.client import SlotClient
from lorasweep.lanes.cluster import DRIVER, Cluster, window
from lorasweep.lanes.worker import SweepJob, measure_base, run_trial
from lorasweep.store.journal import Journal
from lorasweep.store.paths import SweepPaths
from lorasweep.store.records import BaseMeasured, Scores, StudyStarted
from lorasweep.tune.callbacks import Board, Recorder
from lorasweep.tune.interrupt import Interrupt
from lorasweep.tune.live import View, announcer, live_view
from lorasweep.tune.metrics import Gauges
from lorasweep.tune.prepare import Prepared
from lorasweep.tune.replay import ordered_search, window_of
from lorasweep.tune.say import say
from lorasweep.tune.scheduler import OrderedScheduler, build_rule
from lorasweep.tune.search import planned_trials


@dataclass(frozen=True)
class SessionContext:
    """Hold what all studies of a session share.

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


def run_study(
    name: str,
    prepared: Prepared,
    around: SessionContext,
    cluster: Cluster,
    base: Scores | None,
    started: Callable[[], None],
) -> None:
    """Start what the study stands on, run its trials, and end its lanes.

    Whoever waits for a lane must be gone before Ray is, which ends the whole process if a thread
    asks it anything afterwards.

    Args:
        name: of the study's part of what Ray writes.
        base: scores of the base, where they are known already.
        started: told once trials are about to run.

    Raises:
        ResourceError: the cluster cannot hold the study.
        LorasweepError: all its trials have failed.
    """
    allocation = begin(name, prepared.study, planned_trials(prepared.study), around.paths, cluster)
    try:
        _Study(name, prepared, around, allocation, base).run(started)
    finally:
        if allocation.pool is not None:
            for lane in allocation.pool.close(keep=around.interrupt.ending):
                around.journal.append(lane)


class _Study:
    """Hold what the steps of running one study share."""

    def __init__(
        self,
        name: str,
        prepared: Prepared,
        around: SessionContext,
        allocation: Allocation,
        base: Scores | None,
    ) -> None:
        self.name, self.study, self.prepared = name, prepared.study, prepared
        self.around, self.allocation, self.base = around, allocation, base

    def run(self, started: Callable[[], None]) -> None:
        """Say what there is, measure the base, and run the trials."""
        around, allocation, study = self.around, self.allocation, self.study
        self._describe()
        started()
        sees = window_of(
            study,
            around.journal.records,
            window(study, allocation.in_flight, planned_trials(study)),
        )
        around.journal.append(
            StudyStarted(method=study.method, domain=study.domain, window=sees, time=time.time())
        )
        job = SweepJob(
            self.prepared.spec,
            str(around.paths.root.resolve()),
            ray.put(self.prepared.data),
            None,
            allocation.shape.cpus,
        )
        # Of this study's lanes, and never of those of a study before.
        around.interrupt.wake = None if allocation.pool is None else allocation.pool.cut_off
        if allocation.pool is None:
            job = self._measured_base(job)
            trainable = tune.with_parameters(run_trial, job=job, shape=allocation.shape)
        else:
            allocation.pool.begin(job, self.base)
            trainable = tune.with_parameters(
                SlotClient, broker=allocation.pool.broker, root=job.root
            )
        self._tune(trainable, sees)

    def _describe(self) -> None:
        around, allocation = self.around, self.allocation
        for note in self.prepared.notes:
            say(around.console, note)
        shape, cluster = allocation.shape, allocation.cluster
        where = "on this machine" if cluster.own else "on the cluster"
        size = f"{shape.workers} x {shape.cpus:g} CPU"
        size += f" and {shape.gpus:g} GPU" if shape.gpus else ""
        say(
            around.console,
            f"{allocation.in_flight} trials at a time {where}, each {size}"
            if allocation.pool is None
            else f"up to {allocation.in_flight} trials under way {where}, in lanes of {size}",
        )

    def _measured_base(self, job: SweepJob) -> SweepJob:
        """Measure the base once per domain; its own samples are made again for each study."""
        spec, shape, around = job.spec, self.allocation.shape, self.around
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
        around, allocation, study = self.around, self.allocation, self.study
        search, order = ordered_search(study, self.prepared.points, around.journal.records, sees)
        search.hold(allocation.slots)
        recorder = Recorder(
            around.journal,
            search,
            around.board,
            around.gauges,
            self.base,
            domain=study.domain,
            interrupt=around.interrupt,
            announce=announcer(around.console, around.board),
            drop=None if allocation.pool is None else allocation.pool.drop,
        )
        planned = planned_trials(study)
        tuner = tune.Tuner(
            tune.with_resources(trainable, DRIVER),
            tune_config=tune.TuneConfig(
                search_alg=search,
                scheduler=OrderedScheduler(build_rule(study.search), order),
                num_samples=planned + study.search.repetitions(planned),
                max_concurrent_trials=min(sees, allocation.in_flight),
                reuse_actors=allocation.pool is not None,
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
                f"all {around.board.study.total()} trials failed, so the sweep was given up; the "
                f"last one with: {around.board.recent[-1].error} ({around.paths.log} may tell more)"
            )


def _trial_name(trial: Any) -> str:
    """Name a Tune trial as the journal does, so that the dashboard and the report agree."""
    return str(trial.config["trial"]["id"])
