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
from lorasweep.lanes.capacity import window
from lorasweep.lanes.client import SlotClient
from lorasweep.lanes.cluster import TUNE_TRIAL, Cluster
from lorasweep.lanes.job import measure_base, run_trial
from lorasweep.lanes.messages import MeasuredBase, SweepJob, from_config
from lorasweep.lanes.pool import Allocation, allocate
from lorasweep.spec.grid import planned_trials
from lorasweep.store.journal import Journal
from lorasweep.store.paths import SweepPaths
from lorasweep.store.records import StudyStarted
from lorasweep.store.scores import Scores
from lorasweep.tune.base import BaseScores
from lorasweep.tune.callbacks import Recorder
from lorasweep.tune.interrupt import Interrupt
from lorasweep.tune.live import View, announcer, live_view, say
from lorasweep.tune.metrics import Gauges
from lorasweep.tune.prepare import Prepared
from lorasweep.tune.progress import SweepProgress
from lorasweep.tune.replay import ordered_search, window_of
from lorasweep.tune.scheduler import OrderedScheduler, scheduler_factory


@dataclass(frozen=True)
class SessionContext:
    """What all studies of a session share.

    view: draws the progress.
    interrupt: whether the session is ending.
    """

    paths: SweepPaths
    journal: Journal
    console: Console
    progress: SweepProgress
    view: View
    gauges: Gauges
    interrupt: Interrupt


def run_study(
    name: str,
    prepared: Prepared,
    context: SessionContext,
    cluster: Cluster,
    base: Scores | None,
    started: Callable[[], None],
) -> None:
    """Start a study's lanes, run its trials, and end the lanes.

    The pool's threads must have ended before Ray is shut down: Ray ends the whole process if a
    thread calls it afterwards.

    Args:
        name: of the study, in what Ray shows and writes.
        base: scores of the base, if they are known already.
        started: called once trials are about to run.

    Raises:
        ResourceError: the cluster cannot hold the study.
        LorasweepError: all its trials have failed.
    """
    planned = planned_trials(prepared.study)
    allocation = allocate(name, prepared.study, planned, context.paths, cluster)
    try:
        _StudyRun(name, prepared, context, allocation, base).run(started)
    finally:
        if allocation.pool is not None:
            for lane in allocation.pool.close(keep=context.interrupt.ending):
                context.journal.append(lane)


class _StudyRun:
    """One study in one session."""

    def __init__(
        self,
        name: str,
        prepared: Prepared,
        context: SessionContext,
        allocation: Allocation,
        base: Scores | None,
    ) -> None:
        self.name, self.study, self.prepared = name, prepared.study, prepared
        self.context, self.allocation = context, allocation
        self.base = BaseScores(context.journal, prepared.study.domain, base)

    def run(self, started: Callable[[], None]) -> None:
        """Describe the study, hand its job to the lanes or measure the base, and run the trials."""
        context, allocation, study = self.context, self.allocation, self.study
        self._describe()
        started()
        width = window_of(
            study,
            context.journal.records,
            window(study, allocation.in_flight, planned_trials(study)),
        )
        context.journal.append(
            StudyStarted(method=study.method, domain=study.domain, window=width, time=time.time())
        )
        job = SweepJob(
            self.prepared.spec,
            str(context.paths.root.resolve()),
            ray.put(self.prepared.data),
            None,
            allocation.resources.cpus,
        )
        # Always of this study's lanes, never of those of a study before.
        context.interrupt.wake = None if allocation.pool is None else allocation.pool.cut_off
        if allocation.pool is None:
            job = self._with_base(job)
            trainable = tune.with_parameters(run_trial, job=job, resources=allocation.resources)
        else:
            known, broker = self.base.scores, allocation.pool.broker
            allocation.pool.start(job, None if known is None else MeasuredBase(known))
            trainable = tune.with_parameters(SlotClient, broker=broker, root=job.root)
        self._tune(trainable, width)

    def _with_base(self, job: SweepJob) -> SweepJob:
        """Measure the base, unless an earlier study of the domain or session did.

        Its own samples are not journalled, so they are drawn again for each study that needs them.
        """
        spec, context = job.spec, self.context
        needs_samples = BASE_AGREEMENT in (*spec.evaluate.learning, *spec.evaluate.source)
        if self.base.scores is not None and not needs_samples:
            return job
        say(context.console, "measuring the base model")
        measured, samples = measure_base(job, self.allocation.resources)
        self.base.record(measured)
        return replace(job, samples=None if samples is None else ray.put(samples))

    def _describe(self) -> None:
        context, allocation = self.context, self.allocation
        for note in self.prepared.notes:
            say(context.console, note)
        resources = allocation.resources
        where = "on this machine" if allocation.cluster.own else "on the cluster"
        size = f"{resources.workers} x {resources.cpus:g} CPU"
        size += f" and {resources.gpus:g} GPU" if resources.gpus else ""
        say(
            context.console,
            f"{allocation.in_flight} trials at a time {where}, each {size}"
            if allocation.pool is None
            else f"up to {allocation.in_flight} trials under way {where}, in lanes of {size}",
        )

    def _tune(self, trainable: Any, width: int) -> None:
        """Let Tune run the trials to the last of them.

        Raises:
            LorasweepError: all trials have failed.
        """
        context, allocation, study = self.context, self.allocation, self.study
        search, sequence = ordered_search(
            study, self.prepared.points, context.journal.records, width
        )
        search.limit_at_first(allocation.slots)
        recorder = Recorder(
            context.journal,
            search,
            context.progress,
            context.gauges,
            self.base,
            domain=study.domain,
            interrupt=context.interrupt,
            announce=announcer(context.console, context.progress),
            pool=allocation.pool,
        )
        planned = planned_trials(study)
        tuner = tune.Tuner(
            tune.with_resources(trainable, TUNE_TRIAL),
            tune_config=tune.TuneConfig(
                search_alg=search,
                scheduler=OrderedScheduler(scheduler_factory(study.search), sequence),
                num_samples=planned + study.search.repetitions(planned),
                max_concurrent_trials=min(width, allocation.in_flight),
                reuse_actors=allocation.pool is not None,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_name,
            ),
            run_config=tune.RunConfig(
                name=self.name,
                storage_path=str(context.paths.ray.resolve()),
                callbacks=[recorder],
                stop=context.interrupt,
                verbose=0,
            ),
        )
        with context.interrupt, live_view(context.console, context.view):
            tuner.fit()
        if context.interrupt.given_up:
            raise LorasweepError(
                f"all {context.progress.of_study.total()} trials failed, so the sweep was given "
                f"up; the last one with: {context.progress.recent[-1].error} "
                f"({context.paths.log} may tell more)"
            )


def _trial_name(trial: Any) -> str:
    """Name a Tune trial as the journal does, so that the dashboard and the report agree."""
    return from_config(trial.config).trial.id
