"""Whole sweeps through the command line on real Ray, of a model and data that nobody tuned for."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lorasweep.store.kept import checks_of_best, describe
from lorasweep.store.results import SweepResults, load_results
from tests.tune.conftest import environment_for, run_on

pytestmark = pytest.mark.ray

SETTINGS = (
    "train.steps=12",
    "hyperparameters.batch_size=8",
    "search.startup_trials=2",
    "search.confirm=1",
    "data.heldout_examples=12",
    "evaluate.source=[base_agreement]",
    "resources.max_concurrent=2",  # which fixes how far back a trial sees
)


def command(model: Path, data: Path, out: Path, *further: str) -> list[str]:
    words = [sys.executable, "-m", "lorasweep", "tune", "--space", "lr=1e-3..1e-1,targets,rank=2|4"]
    words += ["--model", str(model), "--data", str(data), "--trials", "3", "--out", str(out)]
    for setting in (*SETTINGS, *further):
        words += ["--set", setting]
    return words


def measured(results: SweepResults) -> dict[str, tuple[object, ...]]:
    """Everything that must repeat: the trials, and all that was measured on them."""
    return {
        t.trial: (
            t.status,
            t.number,
            t.stage,
            t.seed,
            t.learning,
            t.source_accuracy,
            t.response_loss,
        )
        for t in results.trials
    }


@pytest.fixture(scope="module")
def finished_sweep(tiny_model, pairs_file, ray_address, tmp_path_factory):
    out = tmp_path_factory.mktemp("sweep") / "out"
    done = run_on(ray_address, command(tiny_model, pairs_file, out))
    assert done.returncode == 0, done.stderr
    assert str(out / "report" / "report.md") in done.stdout
    return out


def test_every_trial_ends_in_the_journal_with_its_measurements(finished_sweep):
    results = load_results(finished_sweep)
    assert results.state == "complete"
    assert results.base is not None
    assert results.base.source_accuracy == 1.0
    assert [t.stage for t in results.trials].count("search") == 3
    assert [t.stage for t in results.trials].count("confirm") == 1
    for trial in results.trials:
        assert trial.status in {"COMPLETE", "PRUNED", "DIVERGED"}
        if trial.status == "COMPLETE":
            assert trial.learning is not None
            assert trial.source_accuracy is not None
            assert 0 <= trial.learning <= 1
            assert trial.forgetting == pytest.approx(1 - trial.source_accuracy)
            assert trial.steps == 12
            assert trial.tokens > 0


def test_the_best_adapter_loads_in_plain_peft(finished_sweep, tiny_model):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    model = PeftModel.from_pretrained(base, finished_sweep / "best" / "lora")
    best = max(
        load_results(finished_sweep).trials,
        key=lambda t: -1.0 if t.learning is None else t.learning,
    )
    assert model.peft_config["default"].r == best.hyperparameters["rank"]


def test_plain_peft_finds_the_loss_that_was_measured(finished_sweep):
    results = load_results(finished_sweep)
    (check,) = checks_of_best(results)
    assert check.status == "agrees"
    assert check.loaded == pytest.approx(check.measured, abs=1e-6)
    assert check.measured == next(t.response_loss for t in results.trials if t.trial == check.trial)
    report = (finished_sweep / "report" / "report.md").read_text(encoding="utf-8")
    assert describe(check)[1:] in report  # where it begins with a capital


def test_weights_that_somebody_changed_are_noticed_and_exit_1(
    finished_sweep, tiny_model, pairs_file, ray_address, tmp_path
):
    from safetensors.torch import load_file, save_file

    out = tmp_path / "out"
    shutil.copytree(finished_sweep, out)
    (check,) = checks_of_best(load_results(out))
    file = out / "trials" / check.trial / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if "lora_B" in name)
    save_file({**tensors, name: tensors[name] + 1.0}, file, metadata={"format": "pt"})
    words = command(tiny_model, pairs_file, out)
    said = f"he kept adapter of trial {check.trial} is not the one that was measured"
    changed = run_on(ray_address, words)
    assert changed.returncode == 1, changed.stderr
    assert said in changed.stdout
    assert said in (out / "report" / "report.md").read_text(encoding="utf-8")
    before = (out / "journal.jsonl").read_bytes()
    again = run_on(ray_address, words)
    assert again.returncode == 1
    assert said in again.stdout
    assert (out / "journal.jsonl").read_bytes() == before, "the same files were checked again"


def test_the_report_and_its_data_are_there(finished_sweep):
    report = finished_sweep / "report"
    assert (report / "report.md").read_text(encoding="utf-8").startswith("#")
    assert json.loads((report / "analysis.json").read_text(encoding="utf-8"))["schema_version"]
    assert (report / "trials.csv").read_text(encoding="utf-8").count("\n") == 5


def test_the_same_command_again_does_nothing(finished_sweep, tiny_model, pairs_file, ray_address):
    journal = finished_sweep / "journal.jsonl"
    before = journal.read_bytes()
    again = run_on(ray_address, command(tiny_model, pairs_file, finished_sweep))
    assert again.returncode == 0
    assert "nothing to do" in again.stderr
    assert journal.read_bytes() == before


def test_status_shows_the_sweep(finished_sweep):
    words = [sys.executable, "-m", "lorasweep", "status", str(finished_sweep), "--json"]
    facts = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    assert facts["state"] == "complete"
    assert sum(facts["trials"].values()) == 4
    assert facts["best"]["learning"] == max(
        t.learning or 0 for t in load_results(finished_sweep).trials
    )


def test_an_interrupted_sweep_goes_on_to_the_very_same_results(
    finished_sweep, tiny_model, pairs_file, ray_address, tmp_path
):
    out = tmp_path / "out"
    words = command(tiny_model, pairs_file, out)
    environment = environment_for(ray_address)
    first = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)
    journal = out / "journal.jsonl"
    deadline = time.time() + 600
    while time.time() < deadline and first.poll() is None:
        if journal.is_file() and '"record":"trial"' in journal.read_text(encoding="utf-8"):
            break
        time.sleep(0.2)
    first.send_signal(signal.SIGINT)
    _, stderr = first.communicate(timeout=600)
    assert first.returncode == 130, stderr
    assert "run the same command again to resume" in stderr
    part = load_results(out)
    assert part.state == "interrupted"
    ended = [t for t in part.trials if t.status != "PENDING"]
    assert 1 <= len(ended) < 4

    rest = run_on(ray_address, words)
    assert rest.returncode == 0, rest.stderr
    assert measured(load_results(out)) == measured(load_results(finished_sweep))
    started = [
        json.loads(line)["trial"]
        for line in journal.read_text(encoding="utf-8").splitlines()
        if '"record":"trial_started"' in line
    ]
    assert all(started.count(t.trial) == 1 for t in ended), "a trial that had ended ran again"


def test_jobs_of_their_own_give_the_results_of_lanes(
    finished_sweep, tiny_model, pairs_file, ray_address, tmp_path
):
    out = tmp_path / "out"
    done = run_on(ray_address, [*command(tiny_model, pairs_file, out), "--slots", "1"])
    assert done.returncode == 0, done.stderr
    assert measured(load_results(out)) == measured(load_results(finished_sweep))
    assert load_results(finished_sweep).lanes
    assert not load_results(out).lanes


def test_two_workers_give_the_results_of_one(
    finished_sweep, tiny_model, pairs_file, ray_address, tmp_path
):
    out = tmp_path / "out"
    settings = ("resources.workers=2", "search.confirm=0", "search.trials=1")
    done = run_on(ray_address, command(tiny_model, pairs_file, out, *settings))
    assert done.returncode == 0, done.stderr
    alone = {t.trial: t for t in load_results(finished_sweep).trials}
    shared = [t for t in load_results(out).trials if t.status == "COMPLETE" and t.trial in alone]
    assert shared
    for trial in shared:
        expected = alone[trial.trial]
        assert trial.tokens == expected.tokens
        # The order of summation differs; twelve steps amplify that to well below this.
        assert trial.response_loss == pytest.approx(expected.response_loss, abs=1e-4)
        assert trial.learning == pytest.approx(expected.learning, abs=0.02)


@pytest.mark.usefixtures("finished_sweep")
def test_nothing_is_left_on_the_cluster(ray_address):
    script = (
        "import ray, json, sys; from ray.util import placement_group_table\n"
        "ray.init(sys.argv[1], log_to_driver=False)\n"
        "states = {g['state'] for g in placement_group_table().values()}\n"
        "print(json.dumps([sorted(states), ray.available_resources()['CPU']]))"
    )
    words = [sys.executable, "-c", script, ray_address]
    shown = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    assert json.loads(shown) == [["REMOVED"], 2.0]


def test_changed_data_are_refused(finished_sweep, tiny_model, pairs_file, ray_address, tmp_path):
    import shutil

    out = tmp_path / "out"
    shutil.copytree(finished_sweep, out)
    kept = pairs_file.read_text(encoding="utf-8")
    try:
        pairs_file.write_text(kept + kept.splitlines()[0] + "\n", encoding="utf-8")
        words = [*command(tiny_model, pairs_file, out), "--trials", "5"]
        done = run_on(ray_address, words)
    finally:
        pairs_file.write_text(kept, encoding="utf-8")
    assert done.returncode == 2
    assert "data.path: the data have changed" in done.stderr


def test_a_shape_that_cannot_fit_is_refused(tiny_model, pairs_file, ray_address, tmp_path):
    for setting, sentence in (
        ("resources.workers=4", "one trial of 4 workers needs 4 CPUs and the cluster has 2"),
        ("resources.gpus=1", "resources.gpus: must be 0 or auto where the cluster has no GPU"),
    ):
        out = tmp_path / setting.replace("=", "-")
        done = run_on(ray_address, command(tiny_model, pairs_file, out, setting))
        assert done.returncode == 2
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr


def test_a_cluster_that_wants_a_token_is_one_sentence(
    tiny_model, pairs_file, ray_address, tmp_path
):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")} | {
        "RAY_ADDRESS": ray_address,
        "RAY_AUTH_MODE": "token",
        "HOME": str(tmp_path),
    }
    words = command(tiny_model, pairs_file, tmp_path / "out")
    done = subprocess.run(
        words, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 2
    assert "wants a token; set RAY_AUTH_MODE=token" in done.stderr
    assert "Traceback" not in done.stderr
