"""A sweep as Optuna keeps studies: a SQLite file that its figures and its dashboard open."""

from __future__ import annotations

import json
import sqlite3
import warnings
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lorasweep.service.ended import Ended, EndedSweep
from lorasweep.spec.space import Axis, Level, Range
from lorasweep.spec.sweep import SweepSpec
from lorasweep.store.results import TrialResult

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

# As they were told to the search: what ended early or diverged is worse than all that completed,
# and what failed says nothing (`tune/search.py`).
_STATES = {"COMPLETE": "COMPLETE", "PRUNED": "PRUNED", "DIVERGED": "PRUNED", "FAILED": "FAIL"}
_ATTRIBUTES = (
    *("trial", "status", "stage", "seed", "source_accuracy", "forgetting", "response_loss"),
    *("train_loss", "tokens", "trainable", "tasks", "error"),
)
# The studies maximise, so what is better must be higher at a rung too.
_INTERMEDIATE = "minus the held-out response loss in nats per token, by percent of a trial's steps"


def write_studies(sweep: EndedSweep, path: Path) -> list[str]:
    """Write an Optuna study for each study, named `NAME METHOD` or `NAME DOMAIN/METHOD`.

    Args:
        path: file that is not there yet.

    Returns:
        The names of the studies.
    """
    import optuna

    loudness = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # The path is handed over as it is, since a URL would read some of its characters as its own.
    storage = optuna.storages.RDBStorage(
        "sqlite:///lorasweep.db", engine_kwargs={"creator": partial(_connect, path)}
    )
    try:
        studies = sweep.results.spec.studies if sweep.results.spec else ()
        return [_write_study(sweep, study, storage) for study in studies]
    finally:
        storage.remove_session()
        storage.engine.dispose()
        optuna.logging.set_verbosity(loudness)


def _connect(path: Path) -> sqlite3.Connection:
    """Open the file without waiting for the disk after each trial; it is moved once it is whole."""
    connection = sqlite3.connect(path, check_same_thread=False)
    connection.execute("PRAGMA synchronous = OFF")
    return connection


def _write_study(sweep: EndedSweep, study: SweepSpec, storage: optuna.storages.RDBStorage) -> str:
    import optuna

    name = f"{study.name} {study.study_name}"
    exported = optuna.create_study(study_name=name, storage=storage, direction="maximize")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        exported.set_metric_names(["learning"])
    base = sweep.results.bases.get(study.domain)
    fixed = study.hyperparameters.model_dump(mode="json", exclude={"method"}, exclude_none=True)
    about = {
        "question": study.question,
        "results": sweep.results.origin,
        "model": study.model.path,
        "data": study.data.path,
        "method": study.method,
        "domain": study.domain,
        "fixed": {k: v for k, v in fixed.items() if k not in study.space.axes},
        "base": None if base is None else base.model_dump(mode="json", exclude={"code"}),
        "intermediate_values": _INTERMEDIATE,
    }
    for key, value in about.items():
        if value:
            exported.set_user_attr(key, value)
    of_study = [
        ended
        for ended in sweep.ended
        if (ended.result.method, ended.result.domain) == (study.method, study.domain)
    ]
    tried = [ended.result.hyperparameters for ended in of_study]
    space = {
        axis: distribution(found, [levels[axis] for levels in tried if axis in levels])
        for axis, found in study.space.axes.items()
    }
    exported.add_trials(_frozen(number, ended, space) for number, ended in enumerate(of_study))
    _add_attributes(storage, name, [ended.result for ended in of_study])
    return name


def _add_attributes(
    storage: optuna.storages.RDBStorage, study: str, trials: Sequence[TrialResult]
) -> None:
    """Write what else is known of a study's trials, all at once.

    `add_trials` would find each trial again for each attribute, which takes most of its time.
    """
    with storage.engine.begin() as connection:
        numbers = connection.exec_driver_sql(
            "SELECT number, trial_id FROM trials JOIN studies USING (study_id)"
            " WHERE study_name = ?",
            (study,),
        )
        rows = [
            (trial_id, name, json.dumps(value))
            for number, trial_id in numbers
            for name in _ATTRIBUTES
            if (value := getattr(trials[number], name)) is not None and value != {}
        ]
        if rows:
            connection.exec_driver_sql(
                "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (?, ?, ?)",
                rows,
            )


def distribution(axis: Axis, tried: Iterable[Level]) -> BaseDistribution:
    """Give Optuna's distribution of an axis, wide enough for what was tried."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if isinstance(axis, Range):
        numbers = [float(level) for level in tried]
        low, high = min(axis.low, *numbers, axis.high), max(axis.low, *numbers, axis.high)
        return FloatDistribution(low, high, log=axis.log)
    return CategoricalDistribution(tuple(dict.fromkeys((*axis.values, *tried))))


def _frozen(
    number: int, ended: Ended, space: dict[str, BaseDistribution]
) -> optuna.trial.FrozenTrial:
    """Write a trial as Optuna would hold it, had it run there, its attributes left out."""
    import optuna

    trial, record = ended.result, ended.record
    is_scored = trial.status == "COMPLETE" and trial.learning is not None
    state = _STATES[trial.status] if is_scored or trial.status != "COMPLETE" else "FAIL"
    levels = trial.hyperparameters
    return optuna.trial.FrozenTrial(
        number=number,
        trial_id=number,
        state=optuna.trial.TrialState[state],
        value=trial.learning if is_scored else None,
        datetime_start=datetime.fromtimestamp(record.time - trial.wall_s),
        datetime_complete=datetime.fromtimestamp(record.time),
        params={name: levels[name] for name in space if name in levels},
        distributions={name: found for name, found in space.items() if name in levels},
        user_attrs={},
        system_attrs={},
        intermediate_values={
            rung.percent: -rung.response_loss
            for rung in record.rungs
            if rung.response_loss is not None
        },
    )
