"""Log a sweep's trials as runs of a tracker: MLflow, or Weights & Biases."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from lorasweep.errors import UsageError, in_a_line
from lorasweep.report.wording import plural
from lorasweep.service.finished import FinishedSweep, FinishedTrial
from lorasweep.spec.space import Level
from lorasweep.store.results import TrialResult
from lorasweep.store.scores import MEASURES

_TRIAL_TAG = "lorasweep.trial"


@dataclass(frozen=True)
class _Run:
    """A trial as trackers store it.

    start, end: in seconds since the epoch.
    parameters: hyperparameters, method and seed; tags: where the trial belongs and how it ended.
    metrics: measured at the end; rungs: step and metrics of each rung.
    """

    trial: TrialResult
    start: float
    end: float
    parameters: dict[str, Level]
    tags: dict[str, str]
    metrics: dict[str, float]
    rungs: list[tuple[int, dict[str, float]]]


def _to_run(sweep: FinishedSweep, finished: FinishedTrial) -> _Run:
    trial = finished.result
    tags = {
        "sweep": sweep.results.name,
        "results": sweep.results.origin,
        "domain": trial.domain,
        "status": trial.status,
        "stage": trial.stage,
        "error": trial.error,
    }
    metrics = {name: getattr(trial, name) for name in MEASURES}
    # Trackers do not take every character in a metric's name.
    metrics |= {f"task/{name.replace('@', '-')}": score for name, score in trial.tasks.items()}
    return _Run(
        trial=trial,
        start=finished.started,
        end=finished.record.time,
        parameters={"method": trial.method, "seed": trial.seed, **trial.hyperparameters},
        tags={name: value for name, value in tags.items() if value},
        metrics={name: float(value) for name, value in metrics.items() if value is not None},
        rungs=[(step, {"rung_response_loss": loss}) for _, step, loss in finished.rung_losses],
    )


def log_to_mlflow(sweep: FinishedSweep, uri: str, mlflow: ModuleType) -> str:
    """Log each trial as a run of the MLflow experiment that has the sweep's name.

    A trial that is there already is skipped, so a sweep may be exported again while it runs.

    Returns:
        What was logged, in words.

    Raises:
        UsageError: the tracker cannot be reached or refuses.
    """
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    try:
        client = mlflow.MlflowClient(tracking_uri=uri)
        experiment = _experiment(client, sweep.results.name)
        logged = _logged_trials(client, experiment)
        new = [finished for finished in sweep.trials if finished.result.trial not in logged]
        for finished in new:
            _log_run(client, experiment, _to_run(sweep, finished), mlflow.entities)
    except (mlflow.exceptions.MlflowException, OSError) as error:
        raise UsageError(f"--mlflow: {uri} cannot be written ({in_a_line(error)})") from None
    before = len(sweep.trials) - len(new)
    again = f", besides {before} logged before" if before else ""
    return f"{plural(len(new), 'run')} in the experiment {sweep.results.name} at {uri}{again}"


def _experiment(client: Any, name: str) -> str:
    found = client.get_experiment_by_name(name)
    return str(client.create_experiment(name) if found is None else found.experiment_id)


def _logged_trials(client: Any, experiment: str) -> set[str]:
    """Collect the trials that have a run already."""
    names: set[str] = set()
    token = None
    while True:
        page = client.search_runs([experiment], max_results=1000, page_token=token)
        names |= {run.data.tags.get(_TRIAL_TAG, "") for run in page}
        if not (token := page.token):
            return names


def _log_run(client: Any, experiment: str, run: _Run, entities: Any) -> None:
    begin, end = round(1000 * run.start), round(1000 * run.end)
    created = client.create_run(experiment, start_time=begin, run_name=run.trial.trial).info.run_id
    client.log_batch(
        created,
        metrics=[
            entities.Metric(name, value, end, step)
            for step, values in (*run.rungs, (run.trial.steps, run.metrics))
            for name, value in values.items()
        ],
        params=[entities.Param(name, str(value)) for name, value in run.parameters.items()],
        tags=[
            entities.RunTag(name, value)
            for name, value in {_TRIAL_TAG: run.trial.trial, **run.tags}.items()
        ],
    )
    states = {"COMPLETE": "FINISHED", "PRUNED": "KILLED"}
    client.set_terminated(created, states.get(run.trial.status, "FAILED"), end_time=end)


def log_to_wandb(sweep: FinishedSweep, project: str, wandb: ModuleType) -> str:
    """Log each trial as a Weights & Biases run, in a group that has the sweep's name.

    A run has its trial's id, so exporting again updates the same runs.

    Args:
        project: PROJECT or ENTITY/PROJECT.

    Returns:
        What was logged, in words.

    Raises:
        UsageError: the tracker cannot be reached or refuses.
    """
    entity, _, name = project.rpartition("/")
    try:
        for finished in sweep.trials:
            run, trial = _to_run(sweep, finished), finished.result
            logged = wandb.init(
                project=name,
                entity=entity or None,
                id=trial.trial,
                name=trial.trial,
                group=sweep.results.name,
                job_type=trial.method,
                tags=[trial.status, trial.stage],
                config={**run.parameters, **run.tags},
                resume="allow",
                settings=wandb.Settings(silent=True, console="off"),
            )
            for step, values in run.rungs:
                logged.log(values, step=step)
            logged.summary.update(run.metrics)
            logged.finish(exit_code=0 if trial.status in {"COMPLETE", "PRUNED"} else 1)
    except (wandb.errors.Error, OSError) as error:
        raise UsageError(f"--wandb: {project} cannot be written ({in_a_line(error)})") from None
    return f"{plural(len(sweep.trials), 'run')} in the project {project}"
