"""Run a sweep from its specification to its last trial, as the journal's only writer."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import ray
from ray import tune
from ray.tune import Stopper
from rich.console import Console

from lorasweep.errors import SpecError, UsageError
from lorasweep.spec.presets import first_points
from lorasweep.spec.sweep import SweepSpec, dump_sweep, parse_sweep, read_yaml
from lorasweep.store.environment import environment
from lorasweep.store.journal import Journal
from lorasweep.store.paths import SweepPaths, write_atomically
from lorasweep.store.records import (
    BaseMeasured,
    SessionChanged,
    SweepStarted,
    TrialFinished,
)
from lorasweep.tune.quiet import libraries_quiet


@dataclass(frozen=True)
class Ending:
    """Hold how a session ended.

    state: `complete` or `interrupted`.
    ran: trials that ended in this session.
    """

    state: str
    ran: int


def tune_sweep(
    spec: SweepSpec, folder: Path, console: Console, address: str | None = None
) -> Ending:
    """Run a sweep, or go on with it, until every trial has ended.

    Args:
        spec: the sweep.
        folder: its results folder; one that holds an earlier part of this sweep is continued.
        console: where the live view goes.
        address: of an existing Ray cluster.

    Raises:
        UsageError: something the user can mend: model, data, tasks, resources, or the folder.
    """
    paths = SweepPaths(folder)
    _claim(paths, spec)
    with (
        Journal(paths.journal, paths.lock) as journal,
        libraries_quiet(paths.log, console) as quiet,
    ):
        session = _Session(spec, paths, journal, quiet)
        if journal.repaired_bytes:
            session.say(
                f"{paths.journal}: cut off a torn last line, {journal.repaired_bytes} bytes"
            )
        try:
            return session.run(address)
        except BaseException as error:
            if session.started:
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                journal.append(SessionChanged(state="failed", time=time.time(), reason=reason))
            raise


def _claim(paths: SweepPaths, spec: SweepSpec) -> None:
    """Write the sweep into a new folder; refuse the folder of another sweep."""
    if paths.sweep.is_file():
        earlier = parse_sweep(read_yaml(paths.sweep))
        if earlier.search_identity != spec.search_identity:
            raise SpecError([_difference(paths, earlier, spec)])
    elif paths.root.exists() and any(paths.root.iterdir()):
        raise UsageError(
            f"--out: must be a new folder or the results of this sweep, and {paths.root} holds "
            "other files; choose another"
        )
    write_atomically(paths.sweep, dump_sweep(spec))


def _difference(paths: SweepPaths, earlier: SweepSpec, spec: SweepSpec) -> str:
    """Name the first few fields in which two sweeps differ."""
    old, new = _flat(earlier.model_dump(mode="json")), _flat(spec.model_dump(mode="json"))
    fields = [
        f"{key} {old.get(key)!r} there and {new.get(key)!r} here"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not key.startswith(("name", "question", "resources"))
    ]
    return (
        f"--out: {paths.root} holds the results of another sweep ({'; '.join(fields[:3])}); "
        "choose another folder"
    )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    parts: dict[str, Any] = {}
    for key, item in value.items():
        parts |= _flat(item, f"{prefix}.{key}" if prefix else str(key))
    return parts


class _Session:
    """Hold what the steps of one session share; `run` reads from top to bottom."""

    def __init__(
        self, spec: SweepSpec, paths: SweepPaths, journal: Journal, console: Console
    ) -> None:
        self.spec, self.paths, self.journal, self.console = spec, paths, journal, console
        self.started = False

    def run(self, address: str | None) -> Ending:
        """Prepare, measure the base, run the trials, and keep the best adapter."""
        from lorasweep.data.prepare import prepare_data
        from lorasweep.evaluate.tasks import resolve_suites
        from lorasweep.model.base import load_tokenizer, read_facts
        from lorasweep.tune.cluster import connect, fit

        self.say("reading model and data")
        facts = read_facts(self.spec.model)
        tokenizer = load_tokenizer(self.spec.model)
        points = first_points(self.spec, facts.hidden_size, facts.model_type)
        if self._complete(points):
            return Ending("complete", 0)
        data = prepare_data(self.spec.data, tokenizer, facts.positions)
        suites, notes = resolve_suites(self.spec.evaluate)
        for note in (*data.notes, *notes):
            self.say(note)
        self._open(data.fingerprint)
        write_atomically(self.paths.environment, json.dumps(environment(), indent=2) + "\n")

        # Tune's own result files, signal handler and terminal output would double ours.
        os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
        os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
        os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
        cluster = connect(address, self.spec.name)
        try:
            shape = fit(self.spec.resources, cluster)
            where = "on this machine" if cluster.own else "on the cluster"
            self.say(
                f"{shape.max_concurrent} trials at a time {where}, each {shape.workers} x "
                f"{shape.cpus:g} CPU{f' and {shape.gpus:g} GPU' if shape.gpus else ''}"
                + (f"; dashboard http://{cluster.dashboard}" if cluster.dashboard else "")
            )
            return self._tune(shape, points, data, suites, "; ".join((*data.notes, *notes)))
        finally:
            ray.shutdown()

    def say(self, sentence: str) -> None:
        """Tell the person in front what is going on."""
        self.console.print(sentence, highlight=False, markup=False, soft_wrap=True)

    def known(self) -> dict[str, TrialFinished]:
        """Give the trials that need not run again; a failed one is tried again."""
        return {
            record.trial: record
            for record in self.journal.records
            if isinstance(record, TrialFinished) and record.status != "FAILED"
        }

    def window(self, otherwise: int) -> int:
        """Give how far back a trial sees: as in the first session, so that a sweep repeats."""
        for record in self.journal.records:
            if isinstance(record, SessionChanged) and record.max_concurrent:
                return record.max_concurrent
        return otherwise

    def _search(self, points: list[dict[str, Any]], window: int) -> Any:
        from lorasweep.tune.order import Order
        from lorasweep.tune.search import OrderedSearch, build_search

        order = Order(window)
        inner = build_search(self.spec, points)
        return OrderedSearch(inner, self.spec, order, self.known()), order

    def _complete(self, points: list[dict[str, Any]]) -> bool:
        """Replay the journal and tell whether a trial is left to run."""
        if not self.known():
            return False
        search, _ = self._search(points, self.window(1))
        return bool(search.suggest("replay") == "FINISHED")

    def _open(self, data: str) -> None:
        """Open the journal of a new sweep, or check that the data are still the same."""
        opened = [r for r in self.journal.records if isinstance(r, SweepStarted)]
        if opened and opened[0].data != data:
            raise SpecError(
                [
                    f"data.path: the data have changed since the sweep in {self.paths.root} began; "
                    "restore them, or choose another --out"
                ]
            )
        if not opened:
            self.journal.append(
                SweepStarted(
                    name=self.spec.name,
                    identity=self.spec.search_identity,
                    data=data,
                    time=time.time(),
                )
            )

    def _tune(
        self, shape: Any, points: list[dict[str, Any]], data: Any, suites: Any, note: str
    ) -> Ending:
        from lorasweep.tune.callbacks import Board, Recorder, count_known
        from lorasweep.tune.cluster import DRIVER
        from lorasweep.tune.live import View, announcer, live_view
        from lorasweep.tune.metrics import Gauges
        from lorasweep.tune.scheduler import OrderedScheduler, build_rule
        from lorasweep.tune.search import planned_trials
        from lorasweep.tune.worker import SweepJob, run_trial

        window = self.window(shape.max_concurrent)
        confirmations = self.spec.search.confirm * (self.spec.search.seeds - 1)
        planned = planned_trials(self.spec) + confirmations
        self.journal.append(
            SessionChanged(
                state="started",
                time=time.time(),
                trials_planned=planned,
                max_concurrent=window,
                note=note or None,
            )
        )
        self.started = True
        resolved = self.spec.model_copy(update={"evaluate": suites})
        job = SweepJob(resolved, str(self.paths.root.resolve()), ray.put(data), None, shape.cpus)
        base, job = self._base(job, shape)

        search, order = self._search(points, window)
        board = Board(planned)
        count_known(board, self.journal)
        interrupt = _Interrupt()
        recorder = Recorder(
            self.journal,
            search,
            board,
            Gauges(self.spec.name),
            base,
            interrupted=interrupt.stop_all,
            announce=announcer(self.console, board),
        )
        trainable = tune.with_resources(
            tune.with_parameters(run_trial, job=job, shape=shape), DRIVER
        )
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=search,
                scheduler=OrderedScheduler(build_rule(self.spec.search), order),
                num_samples=planned,
                max_concurrent_trials=min(window, shape.max_concurrent),
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_name,
            ),
            run_config=tune.RunConfig(
                name=self.spec.name,
                storage_path=str(self.paths.ray.resolve()),
                callbacks=[recorder],
                stop=interrupt,
                verbose=0,
            ),
        )
        view = View(self.spec.name, board, tuple(self.spec.space.axes))
        with interrupt, live_view(self.console, view):
            tuner.fit()
        state = "interrupted" if interrupt.asked else "complete"
        self.journal.append(SessionChanged(state=state, time=time.time()))
        self._keep_best()
        self._drop_states()
        return Ending(state, board.ended_here)

    def _base(self, job: Any, shape: Any) -> tuple[Any, Any]:
        """Measure the base once per sweep; its own samples are made again in each session."""
        from lorasweep.tune.worker import measure_base

        measured = [r for r in self.journal.records if isinstance(r, BaseMeasured)]
        agreement = "base_agreement" in (*job.spec.evaluate.source, *job.spec.evaluate.learning)
        if measured and not agreement:
            return measured[-1].scores, job
        self.say("measuring the base model")
        task = ray.remote(measure_base).options(
            num_cpus=job.cpus, num_gpus=shape.gpus, name="lorasweep measure base"
        )
        scores, samples, wall_s = ray.get(task.remote(job))
        if not measured:
            self.journal.append(BaseMeasured(scores=scores, wall_s=round(wall_s, 3)))
        reference = None if samples is None else ray.put(samples)
        return scores, replace(job, samples=reference)

    def _keep_best(self) -> None:
        """Leave the adapter of the best trial where a user looks for it."""
        complete = [r for r in self.known().values() if r.learning is not None]
        if not complete:
            return
        best = min(complete, key=lambda r: (-(r.learning or 0.0), r.number))
        source = self.paths.trial(best.trial).adapter
        target = self.paths.best(best.configuration.method)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}")
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(source, temporary)
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)

    def _drop_states(self) -> None:
        """Remove what ended trials would go on from; a trial stopped early leaves its state."""
        for trial in self.known():
            shutil.rmtree(self.paths.trial(trial).state, ignore_errors=True)


def _trial_name(trial: Any) -> str:
    """Name a Tune trial as the journal does, so that the dashboard and the report agree."""
    return str(trial.config["trial"]["id"])


class _Interrupt(Stopper):  # type: ignore[misc]
    """Stop all of Tune's trials once a person or the system asks for it.

    What runs is not journalled as ended, so the same command goes on from there. A second signal
    ends the process at once.
    """

    def __init__(self) -> None:
        self.asked = False
        self._handlers: dict[int, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"asked": self.asked, "_handlers": {}}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *raised: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.asked
