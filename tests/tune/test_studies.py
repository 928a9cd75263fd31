"""A sweep of both methods in two domains, through the command line on real Ray and DeepSpeed."""

import json
import sys
from pathlib import Path

import pytest
import torch
import yaml

from lorasweep.store.kept import checks_of_best
from lorasweep.store.results import SweepResults, load_results
from tests.tune.conftest import run_on

pytestmark = pytest.mark.ray


def sweep(model: Path, data: Path) -> dict[str, object]:
    return {
        "name": "studies",
        "model": {"path": str(model)},
        "data": {"path": str(data), "heldout_examples": 12},
        "domains": {"short": {"data": {"limit": 40}}, "long": {"data": {"limit": 80}}},
        "methods": {
            "lora": {},
            "full": {"resources": {"workers": 2}, "deepspeed": {"stage": 3}},
        },
        "space": {"lr": {"low": 1e-2, "high": 1e-1}, "rank": [2, 4]},
        "hyperparameters": {"batch_size": 8},
        "train": {"steps": 6},
        "search": {"trials": 1, "confirm": 0, "scheduler": "none"},
        "evaluate": {"source": ["base_agreement"], "spectrum": True},
        "resources": {"max_concurrent": 1},
    }


@pytest.fixture(scope="module")
def finished(
    tiny_model: Path, pairs_file: Path, ray_address: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("studies")
    file, out = folder / "studies.yaml", folder / "out"
    file.write_text(
        yaml.safe_dump(sweep(tiny_model, pairs_file), sort_keys=False), encoding="utf-8"
    )
    words = [sys.executable, "-m", "lorasweep", "tune", str(file), "--out", str(out)]
    done = run_on(ray_address, words)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def results(finished: Path) -> SweepResults:
    return load_results(finished)


def test_every_method_has_its_trials_in_every_domain(results):
    assert {(t.domain, t.method, t.status) for t in results.trials} == {
        (domain, method, "COMPLETE") for domain in ("short", "long") for method in ("lora", "full")
    }
    assert set(results.bases) == {"short", "long"}


def test_plain_peft_and_transformers_find_the_losses_that_were_measured(results):
    checks = checks_of_best(results)
    assert [(check.domain, check.method) for check in checks] == [
        ("short", "lora"),
        ("short", "full"),
        ("long", "lora"),
        ("long", "full"),
    ]
    for check in checks:
        assert check.status == "agrees", check
        assert check.loaded == pytest.approx(check.measured, abs=1e-5)


def test_full_finetuning_has_a_learning_rate_a_decade_below_and_no_rank(results):
    for trial in results.trials:
        scale = 0.1 if trial.method == "full" else 1.0
        assert 1e-2 * scale <= float(trial.hyperparameters["lr"]) <= 1e-1 * scale
        assert ("rank" in trial.hyperparameters) == (trial.method == "lora")


def test_forgetting_is_counted_against_the_base_of_the_domain(results):
    for trial in results.trials:
        base = results.bases[trial.domain].source_accuracy
        assert base == 1.0  # the base agrees with itself
        assert trial.forgetting == pytest.approx(base - trial.source_accuracy)


def test_a_lora_update_has_at_most_its_rank_and_a_full_one_more(results):
    for trial in results.trials:
        assert trial.spectrum
        largest = max(matrix.update for matrix in trial.spectrum)
        if trial.method == "lora":
            assert largest <= int(trial.hyperparameters["rank"])
        else:
            assert largest > 4


def test_the_model_that_two_workers_tuned_under_stage_3_loads_in_plain_transformers(
    finished, tiny_model
):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = finished / "best" / "long" / "full"
    tuned = AutoModelForCausalLM.from_pretrained(folder)
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    AutoTokenizer.from_pretrained(folder)
    moved = [
        not torch.equal(left, right)
        for left, right in zip(tuned.parameters(), base.parameters(), strict=True)
    ]
    assert all(moved)


def test_one_report_has_both_domains_and_both_methods(finished):
    report = finished / "report"
    text = (report / "report.md").read_text(encoding="utf-8")
    for heading in ("## short", "## long", "#### lora", "#### full", "### Spectra"):
        assert heading in text
    analysis = json.loads((report / "analysis.json").read_text(encoding="utf-8"))
    studies = {f"{domain}/{method}" for domain in ("short", "long") for method in ("lora", "full")}
    assert set(analysis["recommendation"]) == studies
    assert {point["domain"] for point in analysis["front"]} == {"short", "long"}
    assert len(analysis["spectra"]) == 4
    assert (report / "figures" / "long-trade-off.png").is_file()
