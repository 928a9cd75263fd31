"""A sweep's trials as runs of a tracker: MLflow, or Weights & Biases."""

from __future__ import annotations

import logging
from types import ModuleType
from typing import Any

from lorasweep.errors import UsageError, in_a_line
from lorasweep.service.ended import Ended, EndedSweep

_MEASURED = ("learning", "source_accuracy", "forgetting", "response_loss", "train_loss")
_COUNTED = ("tokens", "steps", "trainable", "wall_s", "train_s", "evaluate_s")
_NAME = "lorasweep.trial"


def log_to_mlflow(sweep: EndedSweep, uri: str, mlflow: ModuleType) -> str:
    """Log each trial as a run of the experiment that is named as the sweep.

    A trial that is there already is left alone, so that a sweep may be exported while it runs.

    Returns:
        What was logged, in words.

    Raises:
        UsageError: the tracker cannot be reached or refuses.
    """
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    try:
        client = mlflow.MlflowClient(tracking_uri=uri)
        experiment = _experiment(client, sweep.results.name)
        there = _logged(client, experiment)
        new = [ended for ended in sweep.ended if ended.result.trial not in there]
        for ended in new:
            _log_run(client, experiment, sweep, ended, mlflow)
    except (mlflow.exceptions.MlflowException, OSError) as error:
        raise UsageError(f"--mlflow: {uri} cannot be written ({in_a_line(error)})") from None
    before = len(sweep.ended) - len(new)
    again = f", {before} were there already" if before else ""
    return f"{len(new)} runs in the experiment {sweep.results.name} at {uri}{again}"


def _experiment(client: Any, name: str) -> str:
    found = client.get_experiment_by_name(name)
    return str(client.create_experiment(name) if found is None else found.experiment_id)


def _logged(client: Any, experiment: str) -> set[str]:
    """Name the trials that have a run."""
    names: set[str] = set()
    token = None
    while True:
        page = client.search_runs([experiment], max_results=1000, page_token=token)
        names |= {run.data.tags.get(_NAME, "") for run in page}
        if not (token := page.token):
            return names


def _log_run(
    client: Any, experiment: str, sweep: EndedSweep, ended: Ended, mlflow: ModuleType
) -> None:
    trial, record = ended.result, ended.record
    end = round(1000 * record.time)
    begin = round(1000 * (record.time - trial.wall_s))
    run = client.create_run(experiment, start_time=begin, run_name=trial.trial).info.run_id
    metric, entities = mlflow.entities.Metric, mlflow.entities
    client.log_batch(
        run,
        metrics=[
            *(
                metric(f"rung_{name}", value, end, step)
                for step, values in _rungs(ended)
                for name, value in values.items()
            ),
            *(metric(name, value, end, trial.steps) for name, value in _measures(ended).items()),
        ],
        params=[entities.Param(name, str(value)) for name, value in _settings(ended).items()],
        tags=[
            entities.RunTag(name, str(value))
            for name, value in {_NAME: trial.trial, **_about(sweep, ended)}.items()
        ],
    )
    states = {"COMPLETE": "FINISHED", "PRUNED": "KILLED"}
    client.set_terminated(run, states.get(trial.status, "FAILED"), end_time=end)


def log_to_wandb(sweep: EndedSweep, project: str, wandb: ModuleType) -> str:
    """Log each trial as a run of a project, in a group that is named as the sweep.

    A run is named by its trial, so exporting again goes on with the same runs.

    Args:
        project: PROJECT or ENTITY/PROJECT.

    Returns:
        What was logged, in words.

    Raises:
        UsageError: the tracker cannot be reached or refuses.
    """
    entity, _, name = project.rpartition("/")
    try:
        for ended in sweep.ended:
            trial = ended.result
            run = wandb.init(
                project=name,
                entity=entity or None,
                id=trial.trial,
                name=trial.trial,
                group=sweep.results.name,
                job_type=trial.method,
                tags=[trial.status, trial.stage],
                config={**_settings(ended), **_about(sweep, ended)},
                resume="allow",
                settings=wandb.Settings(silent=True, console="off"),
            )
            for step, values in _rungs(ended):
                run.log({f"rung_{key}": value for key, value in values.items()}, step=step)
            run.summary.update(_measures(ended))
            run.finish(exit_code=0 if trial.status in {"COMPLETE", "PRUNED"} else 1)
    except (wandb.errors.Error, OSError) as error:
        raise UsageError(f"--wandb: {project} cannot be written ({in_a_line(error)})") from None
    return f"{len(sweep.ended)} runs in the project {project}"


def _settings(ended: Ended) -> dict[str, Any]:
    trial = ended.result
    return {"method": trial.method, "seed": trial.seed, **trial.hyperparameters}


def _about(sweep: EndedSweep, ended: Ended) -> dict[str, str]:
    trial = ended.result
    about = {
        "sweep": sweep.results.name,
        "results": sweep.results.origin,
        "domain": trial.domain,
        "status": trial.status,
        "stage": trial.stage,
        "error": trial.error,
    }
    return {name: value for name, value in about.items() if value}


def _measures(ended: Ended) -> dict[str, float]:
    """Give what was measured at the end; a task's name as trackers allow it."""
    trial = ended.result
    measured = {name: getattr(trial, name) for name in (*_MEASURED, *_COUNTED)}
    measured |= {f"task/{name.replace('@', '-')}": score for name, score in trial.tasks.items()}
    return {name: float(value) for name, value in measured.items() if value is not None}


def _rungs(ended: Ended) -> list[tuple[int, dict[str, float]]]:
    return [
        (rung.step, {"response_loss": rung.response_loss})
        for rung in ended.record.rungs
        if rung.response_loss is not None
    ]
