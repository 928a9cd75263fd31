import os
import sqlite3
import sys
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import optuna
import pytest
from pyarrow import parquet as files

from lorasweep.errors import SpecError, UsageError
from lorasweep.service.export import export
from lorasweep.service.export_optuna import distribution
from lorasweep.spec.space import Choices, Range
from lorasweep.store.journal import Journal
from lorasweep.store.paths import SweepPaths
from lorasweep.store.records import TrialFinished
from lorasweep.store.results import load_results
from lorasweep.store.table import read_table
from tests.folders import DIVERGED, FAILED, PRUNED, sweep_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write a sweep of two methods, each with a trial of every kind."""
    return sweep_folder(
        tmp_path_factory.mktemp("results") / "mine",
        trials=9,
        ends=(PRUNED, DIVERGED, FAILED),
        begun=1,
        methods={"lora": {}, "full": {}},
    )


@contextmanager
def studies(path):
    """Open the studies of a file, whatever its name."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    creator = partial(sqlite3.connect, path, check_same_thread=False)
    storage = optuna.storages.RDBStorage("sqlite:///x", engine_kwargs={"creator": creator})
    try:
        names = optuna.get_all_study_names(storage)
        yield {name: optuna.load_study(study_name=name, storage=storage) for name in names}
    finally:
        storage.remove_session()
        storage.engine.dispose()


@pytest.fixture(scope="module")
def opened(folder, tmp_path_factory):
    """Export the sweep and open its studies."""
    path = tmp_path_factory.mktemp("optuna") / "st?udy 100%.db"
    lines = export(folder, optuna=path)
    assert lines == [f"optuna   {path} (mine lora, mine full, without 2 unfinished trials)"]
    with studies(path) as found:
        yield found


def test_each_study_is_a_study_with_every_trial_that_has_ended(opened, folder):
    results = load_results(folder)
    assert list(opened) == ["mine lora", "mine full"]
    for study, method in zip(opened.values(), ("lora", "full"), strict=True):
        own = [t for t in results.trials if t.method == method and t.status != "PENDING"]
        assert study.direction == optuna.study.StudyDirection.MAXIMIZE
        assert study.metric_names == ["learning"]
        assert study.user_attrs["base"]["source_accuracy"] == 0.8
        assert set(study.user_attrs["fixed"]).isdisjoint({"lr", "rank"})
        assert [t.user_attrs["trial"] for t in study.trials] == [t.trial for t in own]
        assert study.best_value == max(t.learning for t in own if t.learning is not None)
        assert {t.state.name for t in study.trials} == {"COMPLETE", "PRUNED", "FAIL"}


def test_a_trial_keeps_all_that_was_measured(opened, folder):
    first = load_results(folder).trials[0]
    trial = opened["mine lora"].trials[0]
    assert trial.value == first.learning
    assert trial.params == {k: first.hyperparameters[k] for k in ("lr", "rank")}
    assert trial.distributions == {
        "lr": optuna.distributions.FloatDistribution(1e-5, 1e-2, log=True),
        "rank": optuna.distributions.CategoricalDistribution((4, 16, 64)),
    }
    for name in ("seed", "status", "forgetting", "source_accuracy", "response_loss", "tokens"):
        assert trial.user_attrs[name] == getattr(first, name)
    assert trial.user_attrs["tasks"] == {"gsm8k@5": 0.5}
    assert trial.duration.total_seconds() == first.wall_s
    assert trial.datetime_complete == datetime.fromtimestamp(1e9 + 8)


def test_optuna_sees_incomplete_trials_as_the_search_did(opened):
    pruned, diverged, failed = opened["mine lora"].trials[-3:]
    assert (pruned.state.name, pruned.user_attrs["status"]) == ("PRUNED", "PRUNED")
    assert (diverged.state.name, diverged.user_attrs["status"]) == ("PRUNED", "DIVERGED")
    assert (failed.state.name, failed.user_attrs["error"]) == ("FAIL", "the disk is full")
    assert [t.value for t in (pruned, diverged, failed)] == [None, None, None]
    # Higher is better at a rung too, since the study maximises.
    assert list(pruned.intermediate_values) == [50]
    assert -3 <= pruned.intermediate_values[50] <= -2


def test_optuna_can_continue_the_study(opened):
    study = opened["mine lora"]
    importances = optuna.importance.get_param_importances(study)
    assert set(importances) == {"lr", "rank"}
    study.sampler = optuna.samplers.TPESampler(seed=0)
    asked = study.ask(study.trials[0].distributions)
    assert set(asked.params) == {"lr", "rank"}


def test_optunas_figures_are_drawn(opened):
    pytest.importorskip("plotly")
    study = opened["mine lora"]
    draw = optuna.visualization
    for figure in (
        draw.plot_param_importances(study),
        draw.plot_optimization_history(study),
        draw.plot_intermediate_values(study),
        draw.plot_timeline(study),
    ):
        assert figure.data


def test_a_distribution_holds_what_was_tried_outside_of_its_axis():
    wide = distribution(Range(low=1e-4, high=1e-2, log=True), [1e-5, 1e-3])
    assert wide == optuna.distributions.FloatDistribution(1e-5, 1e-2, log=True)
    more = distribution(Choices(values=(4, 16)), [64, 4])
    assert more == optuna.distributions.CategoricalDistribution((4, 16, 64))


def test_a_domain_has_a_study_of_its_own(tmp_path):
    domains = {"code": {"data": {"path": "c.jsonl"}}, "math": {"data": {"path": "m.jsonl"}}}
    folder = sweep_folder(tmp_path / "both", trials=3, domains=domains)
    export(folder, optuna=tmp_path / "s.db")
    with studies(tmp_path / "s.db") as found:
        counts = {name: len(study.trials) for name, study in found.items()}
    assert counts == {"both code/lora": 3, "both math/lora": 3}


def test_a_failed_trial_that_was_tried_again_counts_as_it_ended(tmp_path):
    folder = sweep_folder(tmp_path / "mine", trials=2, ends=(FAILED,))
    paths = SweepPaths(folder)
    with Journal(paths.journal, paths.lock) as journal:
        last = next(r for r in reversed(journal.records) if isinstance(r, TrialFinished))
        journal.append(last.model_copy(update={"status": "COMPLETE", "learning": 0.9}))
    export(folder, optuna=tmp_path / "s.db")
    with studies(tmp_path / "s.db") as found:
        assert found["mine lora"].best_value == 0.9


def test_the_exported_csv_is_read_back_to_the_same_trials(folder, tmp_path):
    export(folder, csv=tmp_path / "t.csv")
    results = load_results(folder)
    again = read_table(tmp_path / "t.csv", results.axes)
    assert again.axes == results.axes
    assert again.trials == tuple(
        t.model_copy(update={"spectrum": (), "code": {}}) for t in results.trials
    )


def test_parquet_has_the_columns_of_the_csv_with_types(folder, tmp_path):
    export(folder, csv=tmp_path / "t.csv", parquet=tmp_path / "t.parquet")
    table = files.read_table(tmp_path / "t.parquet")
    header = (tmp_path / "t.csv").read_text().splitlines()[0]
    assert table.column_names == header.split(",")
    rows = table.to_pylist()
    trials = load_results(folder).trials
    assert [row["trial"] for row in rows] == [t.trial for t in trials]
    assert [row["learning"] for row in rows] == [t.learning for t in trials]
    assert [row["rank"] for row in rows] == [t.hyperparameters.get("rank") for t in trials]
    assert str(table.schema.field("alpha").type) == "string"


def test_levels_of_both_kinds_become_text_in_parquet(tmp_path):
    folder = sweep_folder(tmp_path / "mine", trials=2)
    paths = SweepPaths(folder)
    with Journal(paths.journal, paths.lock) as journal:
        last = next(r for r in reversed(journal.records) if isinstance(r, TrialFinished))
        fixed = last.configuration.model_copy(update={"alpha": 32.0})
        journal.append(last.model_copy(update={"trial": "other", "configuration": fixed}))
    export(folder, parquet=tmp_path / "t.parquet")
    levels = files.read_table(tmp_path / "t.parquet")["alpha"].to_pylist()
    assert sorted(levels) == ["2r", "2r", "32.0"]


def test_a_sweep_without_trials_is_exported_too(tmp_path):
    folder = sweep_folder(tmp_path / "mine", trials=0)
    lines = export(folder, csv=tmp_path / "t.csv", optuna=tmp_path / "t.db")
    assert len(lines) == 2
    with studies(tmp_path / "t.db") as found:
        assert found["mine lora"].trials == []


def test_several_outputs_at_once_and_none_without_force(folder, tmp_path):
    parquet, csv = tmp_path / "new" / "s.parquet", tmp_path / "new" / "t.csv"
    assert [line.split()[0] for line in export(folder, parquet=parquet, csv=csv)] == [
        "csv",
        "parquet",
    ]
    csv.write_text("mine")
    with pytest.raises(SpecError) as caught:
        export(folder, parquet=parquet, csv=csv, optuna=tmp_path)
    assert caught.value.problems == (
        f"--optuna: must be a file, and {tmp_path} is a folder",
        f"--csv: {csv} exists already; --force replaces it",
        f"--parquet: {parquet} exists already; --force replaces it",
    )
    assert csv.read_text() == "mine"
    export(folder, parquet=parquet, csv=csv, force=True)
    assert csv.read_text().startswith("trial,")
    assert sorted(path.name for path in parquet.parent.iterdir()) == ["s.parquet", "t.csv"]


def test_an_export_to_nowhere_is_refused(folder, tmp_path):
    with pytest.raises(SpecError, match="must be given an output"):
        export(folder)
    with pytest.raises(SpecError, match="a file of its own"):
        export(folder, optuna=tmp_path / "x", csv=tmp_path / "x")
    with pytest.raises(UsageError, match="must be a results folder"):
        export(tmp_path / "none", csv=tmp_path / "x")


def test_a_file_that_cannot_be_written_is_one_sentence(folder, tmp_path):
    (tmp_path / "file").write_text("")
    for option in ("csv", "optuna", "parquet"):
        asked: dict[str, Any] = {option: tmp_path / "file" / "x"}
        with pytest.raises(UsageError, match=f"^--{option}: .* cannot be written"):
            export(folder, **asked)


@pytest.mark.parametrize(
    ("option", "package"), [("mlflow", "mlflow-skinny"), ("wandb", "wandb"), ("parquet", "pyarrow")]
)
def test_a_missing_library_is_named_before_anything_is_written(
    folder, tmp_path, monkeypatch, option, package
):
    for module in ("mlflow", "wandb", "pyarrow"):
        monkeypatch.setitem(sys.modules, module, None)
    asked: dict[str, Any] = {option: tmp_path / "x" if option == "parquet" else "somewhere"}
    with pytest.raises(UsageError, match=f"^--{option}: needs {package}, .* pip install {package}"):
        export(folder, csv=tmp_path / "t.csv", **asked)
    assert not (tmp_path / "t.csv").exists()


class Page(list[SimpleNamespace]):
    """Page of MLflow runs; `token` leads to the next one."""

    def __init__(self, trials, token=None):
        super().__init__(SimpleNamespace(data=SimpleNamespace(tags=t)) for t in trials)
        self.token = token


@pytest.fixture
def mlflow(monkeypatch):
    """Mock of MLflow with an empty store."""
    fake = MagicMock()
    fake.exceptions.MlflowException = ValueError
    for kind in ("Metric", "Param", "RunTag"):
        setattr(fake.entities, kind, lambda *given: given)
    client = fake.MlflowClient.return_value
    client.get_experiment_by_name.return_value = None
    client.search_runs.return_value = Page([])
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    return client


def test_mlflow_gets_a_run_for_each_trial(folder, mlflow):
    said = "18 runs in the experiment mine at http://x, without 2 unfinished trials"
    assert export(folder, mlflow="http://x") == [f"mlflow   {said}"]
    ended = [call.args[1] for call in mlflow.set_terminated.call_args_list]
    assert ended == [*["FINISHED"] * 6, "KILLED", "FAILED", "FAILED"] * 2
    trial = load_results(folder).trials[0]
    created, logged = mlflow.create_run.call_args_list[0], mlflow.log_batch.call_args_list[0]
    assert created.kwargs["run_name"] == trial.trial
    end = mlflow.set_terminated.call_args_list[0].kwargs["end_time"]
    assert end - created.kwargs["start_time"] == 7500
    assert dict(logged.kwargs["tags"])["lorasweep.trial"] == trial.trial
    assert dict(logged.kwargs["params"])["rank"] == str(trial.hyperparameters["rank"])
    measured = {name: rest for name, *rest in logged.kwargs["metrics"]}
    assert measured["learning"] == [trial.learning, end, 10]
    assert measured["rung_response_loss"][2] == 5


def test_mlflow_gets_each_trial_only_once(folder, mlflow):
    names = [trial.trial for trial in load_results(folder).trials]
    pages = Page([{"lorasweep.trial": names[0]}], "next"), Page([{"lorasweep.trial": names[1]}, {}])
    mlflow.search_runs.side_effect = pages
    (line,) = export(folder, mlflow="http://x")
    assert "16 runs in the experiment mine at http://x, besides 2 logged before" in line
    mlflow.search_runs.side_effect = OSError("gone")
    with pytest.raises(UsageError, match=r"--mlflow: http://x cannot be written \(gone\)"):
        export(folder, mlflow="http://x")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of MLflow's own use of SQLAlchemy
def test_mlflow_itself_takes_them(folder, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path / 'ml.db'}"
    export(folder, mlflow=uri)
    (line,) = export(folder, mlflow=uri)
    assert "besides 18 logged before" in line
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("mine")
    runs = client.search_runs([experiment.experiment_id])
    trials = {t.trial: t for t in load_results(folder).trials}
    assert len(runs) == 18
    for run in runs:
        trial = trials[run.data.tags["lorasweep.trial"]]
        assert run.data.metrics.get("learning") == trial.learning
        assert float(run.data.params["lr"]) == trial.hyperparameters["lr"]


def test_wandb_gets_a_run_for_each_trial(folder, monkeypatch):
    fake = MagicMock()
    fake.errors.Error = ValueError
    runs = [MagicMock(summary={}) for _ in range(18)]
    fake.init.side_effect = runs
    monkeypatch.setitem(sys.modules, "wandb", fake)
    assert export(folder, wandb="me/finetuning") == [
        "wandb    18 runs in the project me/finetuning, without 2 unfinished trials"
    ]
    given, trial = fake.init.call_args_list[0].kwargs, load_results(folder).trials[0]
    assert (given["entity"], given["project"]) == ("me", "finetuning")
    assert (given["id"], given["group"]) == (trial.trial, "mine")
    assert given["config"]["rank"] == trial.hyperparameters["rank"]
    assert runs[0].summary["forgetting"] == trial.forgetting
    assert runs[0].log.call_args.kwargs == {"step": 5}
    assert [run.finish.call_args.kwargs["exit_code"] for run in runs[6:9]] == [0, 1, 1]
    fake.init.side_effect = ValueError("no key\nat all")
    with pytest.raises(UsageError, match=r"--wandb: p cannot be written \(no key at all\)"):
        export(folder, wandb="p")


def test_wandb_itself_takes_them_offline(folder, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    export(folder, wandb="finetuning")
    assert len(list(Path(tmp_path, "wandb").glob("offline-run-*"))) == 18


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_journal_that_must_not_be_read_is_one_sentence(tmp_path):
    folder = sweep_folder(tmp_path / "mine", trials=1)
    SweepPaths(folder).journal.chmod(0)
    with pytest.raises(UsageError, match="cannot be read"):
        export(folder, csv=tmp_path / "t.csv")
