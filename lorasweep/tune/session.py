"""One session of a sweep, from its opened journal to its last trial; the journal's only writer."""

from __future__ import annotations

import json
import time
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray import tune
from ray.tune.search import Searcher
from rich.console import Console

from lorasweep.errors import LorasweepError, SpecError
from lorasweep.evaluate.tasks import BASE_AGREEMENT
from lorasweep.spec.space import Level
from lorasweep.spec.sweep import SweepSpec, dump_sweep
from lorasweep.store import journal
from lorasweep.store.environment import environment
from lorasweep.store.paths import SweepPaths, write_atomically
from lorasweep.store.records import (
    BaseMeasured,
    Record,
    Scores,
    SessionChanged,
    SweepStarted,
    TrialFinished,
)
from lorasweep.train.checkpoint import drop_state
from lorasweep.tune.callbacks import Board, Recorder, count_known
from lorasweep.tune.cluster import DRIVER, Cluster, Shape, window
from lorasweep.tune.ground import Ground, begin
from lorasweep.tune.interrupt import Interrupt
from lorasweep.tune.live import View, announcer, live_view
from lorasweep.tune.metrics import Gauges
from lorasweep.tune.order import Order
from lorasweep.tune.prepare import Prepared
from lorasweep.tune.scheduler import OrderedScheduler, build_rule
from lorasweep.tune.search import OrderedSearch, build_search, planned_trials
from lorasweep.tune.trainable import SlotTrial
from lorasweep.tune.worker import SweepJob, measure_base, run_trial


@dataclass(frozen=True)
class Ending:
    """Hold how a session ended.

    state: `complete` or `interrupted`.
    ran: trials that ended in this session.
    """

    state: str
    ran: int


def _known(records: list[Record]) -> dict[str, TrialFinished]:
    """Give the trials that need not run again; a failed one is tried again."""
    return {
        record.trial: record
        for record in records
        if isinstance(record, TrialFinished) and record.status != "FAILED"
    }


def _window(records: list[Record], otherwise: int) -> int:
    """Give how far back a trial sees: as in the first session, so that a sweep repeats."""
    windows = [r.max_concurrent for r in records if isinstance(r, SessionChanged)]
    return next((window for window in windows if window), otherwise)


def _ordered_search(
    spec: SweepSpec, points: list[dict[str, Level]], records: list[Record], window: int
) -> tuple[OrderedSearch, Order]:
    order = Order(window)
    return OrderedSearch(build_search(spec, points), spec, order, _known(records)), order


def nothing_left(spec: SweepSpec, points: list[dict[str, Level]], records: list[Record]) -> bool:
    """Replay a journal and tell whether every trial of the sweep has ended."""
    if not _known(records):
        return False
    search, _ = _ordered_search(spec, points, records, _window(records, 1))
    return bool(search.suggest("replay") == Searcher.FINISHED)


class Session:
    """Hold what the steps of one session share; `run` reads from top to bottom."""

    def __init__(
        self, spec: SweepSpec, paths: SweepPaths, writer: journal.Journal, console: Console
    ) -> None:
        self.spec, self.paths, self.journal, self.console = spec, paths, writer, console
        self.started = False
        self._interrupt = Interrupt()

    def say(self, sentence: str) -> None:
        """Tell the person in front what is going on."""
        self.console.print(sentence, highlight=False, markup=False, soft_wrap=True)

    def open(self, prepared: Prepared) -> None:
        """Open the journal of a new sweep, or check that the data are still the same.

        Raises:
            SpecError: they are not, so earlier trials could not be compared with later ones.
        """
        if self.journal.repaired_bytes:
            self.say(
                f"cut off a torn last line of the journal, {self.journal.repaired_bytes} bytes"
            )
        data = prepared.data.fingerprint
        opened = [r for r in self.journal.records if isinstance(r, SweepStarted)]
        if opened and opened[0].data != data:
            raise SpecError(
                [
                    f"data.path: the data have changed since the sweep in {self.paths.root} began; "
                    "restore them, or choose another --out"
                ]
            )
        write_atomically(self.paths.sweep, dump_sweep(self.spec))
        write_atomically(self.paths.environment, json.dumps(environment(), indent=2) + "\n")
        if not opened:
            identity = self.spec.search_identity
            self.journal.append(
                SweepStarted(name=self.spec.name, identity=identity, data=data, time=time.time())
            )

    def run(
        self, prepared: Prepared, points: list[dict[str, Level]], connecting: Future[Cluster]
    ) -> Ending:
        """Run the session, and journal how it ended if it did not end well.

        Args:
            connecting: gives the cluster.
        """
        self.open(prepared)
        base = self._known_base(prepared.spec)
        ground = begin(self.spec, self.paths, connecting.result())
        try:
            ending = self._run_on(ground, prepared, points, base)
        except BaseException as error:
            if self.started:
                stopped = isinstance(error, KeyboardInterrupt)
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                self.journal.append(
                    SessionChanged(
                        state="interrupted" if stopped else "failed",
                        time=time.time(),
                        reason=None if stopped else reason,
                    )
                )
            raise
        self.journal.append(SessionChanged(state=ending.state, time=time.time()))
        self._drop_states()
        return ending

    def _run_on(
        self,
        ground: Ground,
        prepared: Prepared,
        points: list[dict[str, Level]],
        base: Scores | None,
    ) -> Ending:
        """Run the session, and end the lanes.

        Whoever waits for a lane must be gone before Ray is, which ends the whole process if a
        thread asks it anything afterwards.
        """
        try:
            return self._run(prepared, points, ground, base)
        finally:
            if ground.fleet is not None:
                for lane in ground.fleet.close(keep=self._interrupt.asked):
                    self.journal.append(lane)

    def _run(
        self,
        prepared: Prepared,
        points: list[dict[str, Level]],
        ground: Ground,
        base: Scores | None,
    ) -> Ending:
        """Say what there is, measure the base, and run the trials.

        Args:
            base: scores of the base, where an earlier session measured them.
        """
        for note in prepared.notes:
            self.say(note)
        shape, cluster = ground.shape, ground.cluster
        where = "on this machine" if cluster.own else "on the cluster"
        size = f"{shape.workers} x {shape.cpus:g} CPU"
        size += f" and {shape.gpus:g} GPU" if shape.gpus else ""
        self.say(
            (f"{ground.in_flight} trials at a time {where}, each {size}")
            if ground.fleet is None
            else (f"up to {ground.in_flight} trials under way {where}, in lanes of {size}")
        )
        if cluster.dashboard:
            self.say(f"dashboard http://{cluster.dashboard}")
        searched = planned_trials(self.spec)
        sees = _window(self.journal.records, window(self.spec, ground.in_flight, searched))
        planned = searched + self.spec.search.confirm * (self.spec.search.seeds - 1)
        self.journal.append(
            SessionChanged(
                state="started",
                time=time.time(),
                trials_planned=planned,
                max_concurrent=sees,
                note="; ".join(prepared.notes) or None,
            )
        )
        self.started = True
        job = SweepJob(
            prepared.spec,
            str(self.paths.root.resolve()),
            ray.put(prepared.data),
            None,
            shape.cpus,
        )
        if ground.fleet is None:
            base, job = self._base(job, shape, base)
            trainable = tune.with_parameters(run_trial, job=job, shape=shape)
        else:
            ground.fleet.begin(job, base)
            self._interrupt = Interrupt(ground.fleet.cut_off)
            trainable = tune.with_parameters(SlotTrial, desk=ground.fleet.desk, root=job.root)
        return self._tune(trainable, points, planned, sees, ground, base)

    def _tune(
        self,
        trainable: Any,
        points: list[dict[str, Level]],
        planned: int,
        sees: int,
        ground: Ground,
        base: Scores | None,
    ) -> Ending:
        """Let Tune run the trials to the last of them.

        Args:
            planned: trials in all.
            sees: how far back a trial sees.
            base: scores of the base, where they are known already.
        """
        search, order = _ordered_search(self.spec, points, self.journal.records, sees)
        search.hold(ground.slots)
        board = Board(planned)
        count_known(board, self.journal)
        recorder = Recorder(
            self.journal,
            search,
            board,
            Gauges(self.spec.name),
            base,
            interrupt=self._interrupt,
            announce=announcer(self.console, board),
            drop=None if ground.fleet is None else ground.fleet.drop,
        )
        tuner = tune.Tuner(
            tune.with_resources(trainable, DRIVER),
            tune_config=tune.TuneConfig(
                search_alg=search,
                scheduler=OrderedScheduler(build_rule(self.spec.search), order),
                num_samples=planned,
                max_concurrent_trials=min(sees, ground.in_flight),
                reuse_actors=ground.fleet is not None,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_name,
            ),
            run_config=tune.RunConfig(
                name=self.spec.name,
                storage_path=str(self.paths.ray.resolve()),
                callbacks=[recorder],
                stop=self._interrupt,
                verbose=0,
            ),
        )
        view = View(self.spec.name, board, tuple(self.spec.space.axes))
        with self._interrupt, live_view(self.console, view):
            tuner.fit()
        if board.hopeless:
            raise LorasweepError(
                f"all {board.ended_here} trials failed, so the sweep was given up; the last one "
                f"with: {board.recent[-1].error} ({self.paths.log} may tell more)"
            )
        return Ending("interrupted" if self._interrupt.asked else "complete", board.ended_here)

    def _known_base(self, spec: SweepSpec) -> Scores | None:
        """Give the base's scores if an earlier session measured them.

        Args:
            spec: the sweep with its suites resolved.

        Raises:
            SpecError: it measured other tasks, so the trials could not be compared.
        """
        measured = [r for r in self.journal.records if isinstance(r, BaseMeasured)]
        names = (*spec.evaluate.learning, *spec.evaluate.source)
        if measured and set(measured[-1].scores.tasks) != set(names):
            raise SpecError(
                [
                    "evaluate.source: the tasks that can be had have changed since the sweep in "
                    f"{self.paths.root} began, from {', '.join(measured[-1].scores.tasks)} to "
                    f"{', '.join(names)}; name the earlier ones, or choose another --out"
                ]
            )
        return measured[-1].scores if measured else None

    def _base(self, job: SweepJob, shape: Shape, known: Scores | None) -> tuple[Scores, SweepJob]:
        """Measure the base once per sweep; its own samples are made again in each session."""
        names = (*job.spec.evaluate.learning, *job.spec.evaluate.source)
        if known is not None and BASE_AGREEMENT not in names:
            return known, job
        self.say("measuring the base model")
        task = ray.remote(measure_base).options(
            num_cpus=job.cpus, num_gpus=shape.gpus, name="lorasweep measure base"
        )
        try:
            scores, samples, wall_s = ray.get(task.remote(job))
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, LorasweepError):  # the sentence, without Ray's traceback
                raise error.cause from None
            raise
        if not known:
            self.journal.append(BaseMeasured(scores=scores, wall_s=round(wall_s, 3)))
        reference = None if samples is None else ray.put(samples)
        return known or scores, replace(job, samples=reference)

    def _drop_states(self) -> None:
        """Remove what ended trials would go on from; a trial stopped early leaves its state."""
        for trial in _known(self.journal.records):
            drop_state(self.paths.trial(trial).state)


def _trial_name(trial: Any) -> str:
    """Name a Tune trial as the journal does, so that the dashboard and the report agree."""
    return str(trial.config["trial"]["id"])
