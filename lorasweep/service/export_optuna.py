"""Export a sweep as Optuna studies, in a SQLite file that Optuna's plots and dashboard open."""

from __future__ import annotations

import json
import sqlite3
import warnings
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lorasweep.service.finished import FinishedSweep, FinishedTrial
from lorasweep.spec.space import Axis, Level, Range
from lorasweep.spec.sweep import SweepSpec
from lorasweep.store.results import TrialResult
from lorasweep.store.scores import SCORES

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

# As the search saw them (`tune/search.py`): a trial that was stopped or diverged is worse than any
# that completed, and a failed one says nothing.
_STATES = {"COMPLETE": "COMPLETE", "PRUNED": "PRUNED", "DIVERGED": "PRUNED", "FAILED": "FAIL"}
# Learning is the value, steps and times are Optuna's own.
_ATTRIBUTES = (
    *("trial", "status", "stage", "seed"),
    *(name for name in SCORES if name != "learning"),
    *("tokens", "trainable", "tasks", "error"),
)
# The studies maximise, so what is better must be higher at a rung too.
_INTERMEDIATE = "minus the held-out response loss in nats per token, by percent of a trial's steps"


def write_studies(sweep: FinishedSweep, path: Path) -> list[str]:
    """Write an Optuna study for each study, named `NAME METHOD` or `NAME DOMAIN/METHOD`.

    Args:
        path: a file that does not exist yet.

    Returns:
        The names of the studies.
    """
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # The connection is made from the path itself: in a URL, some of its characters would be syntax.
    storage = optuna.storages.RDBStorage(
        "sqlite:///lorasweep.db", engine_kwargs={"creator": partial(_connect, path)}
    )
    try:
        studies = sweep.results.spec.studies if sweep.results.spec else ()
        return [_write_study(sweep, study, storage) for study in studies]
    finally:
        storage.remove_session()
        storage.engine.dispose()
        optuna.logging.set_verbosity(verbosity)


def _connect(path: Path) -> sqlite3.Connection:
    """Open the file without an fsync after each trial; only a complete file is moved into place."""
    connection = sqlite3.connect(path, check_same_thread=False)
    connection.execute("PRAGMA synchronous = OFF")
    return connection


def _write_study(
    sweep: FinishedSweep, study: SweepSpec, storage: optuna.storages.RDBStorage
) -> str:
    import optuna

    name = f"{study.name} {study.study_name}"
    exported = optuna.create_study(study_name=name, storage=storage, direction="maximize")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        exported.set_metric_names(["learning"])
    base = sweep.results.bases.get(study.domain)
    fixed = study.hyperparameters.model_dump(mode="json", exclude={"method"}, exclude_none=True)
    attributes = {
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
    for key, value in attributes.items():
        if value:
            exported.set_user_attr(key, value)
    own = [
        finished
        for finished in sweep.trials
        if (finished.result.method, finished.result.domain) == (study.method, study.domain)
    ]
    tried = [finished.result.hyperparameters for finished in own]
    space = {
        axis: distribution(found, [levels[axis] for levels in tried if axis in levels])
        for axis, found in study.space.axes.items()
    }
    exported.add_trials(_to_optuna(number, finished, space) for number, finished in enumerate(own))
    _add_attributes(storage, name, [finished.result for finished in own])
    return name


def _add_attributes(
    storage: optuna.storages.RDBStorage, study: str, trials: Sequence[TrialResult]
) -> None:
    """Insert the user attributes of all trials of a study with one statement.

    `add_trials` would look up each trial again for each attribute, which takes most of its time.
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
    """Convert an axis to Optuna's distribution, widened to hold every level that was tried."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if isinstance(axis, Range):
        numbers = [float(level) for level in tried]
        low, high = min(axis.low, *numbers, axis.high), max(axis.low, *numbers, axis.high)
        return FloatDistribution(low, high, log=axis.log)
    return CategoricalDistribution(tuple(dict.fromkeys((*axis.values, *tried))))


def _to_optuna(
    number: int, finished: FinishedTrial, space: dict[str, BaseDistribution]
) -> optuna.trial.FrozenTrial:
    """Convert a trial to Optuna's, without its user attributes."""
    import optuna

    trial = finished.result
    is_scored = trial.status == "COMPLETE" and trial.learning is not None
    state = _STATES[trial.status] if is_scored or trial.status != "COMPLETE" else "FAIL"
    levels = trial.hyperparameters
    return optuna.trial.FrozenTrial(
        number=number,
        trial_id=number,
        state=optuna.trial.TrialState[state],
        value=trial.learning if is_scored else None,
        datetime_start=datetime.fromtimestamp(finished.started),
        datetime_complete=datetime.fromtimestamp(finished.record.time),
        params={name: levels[name] for name in space if name in levels},
        distributions={name: found for name, found in space.items() if name in levels},
        user_attrs={},
        system_attrs={},
        intermediate_values={percent: -loss for percent, _, loss in finished.rung_losses},
    )
