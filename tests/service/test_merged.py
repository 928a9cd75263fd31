"""`tune --merge` on sweeps whose journal is written by hand; the adapters and the base are real."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from lorasweep.errors import LorasweepError, SpecError
from lorasweep.model.base import empty_base
from lorasweep.model.lora import initial_adapter, save_adapter
from lorasweep.model.targets import adapter_layers
from lorasweep.service.merged import check_merge, merge_best
from lorasweep.spec.sweep import ModelSpec, parse_sweep
from lorasweep.spec.trial import LoraHyperparameters
from lorasweep.store.journal import Journal
from lorasweep.store.paths import SweepPaths
from lorasweep.store.results import load_results
from tests.folders import sweep_folder
from tests.store.test_kept import check


@pytest.fixture
def paths(tmp_path: Path, tiny_model: Path) -> SweepPaths:
    """Write a finished sweep whose trials have left their adapters."""
    folder = sweep_folder(tmp_path / "mine", trials=3, model={"path": str(tiny_model)})
    layers = adapter_layers(empty_base(ModelSpec(path=str(tiny_model))), "all")
    paths = SweepPaths(folder)
    for number, trial in enumerate(load_results(folder).trials):
        hyperparameters = LoraHyperparameters(rank=2)
        drawn = initial_adapter(layers, hyperparameters, number)
        adapter = {name: value + 0.01 for name, value in drawn.items()}
        save_adapter(paths.trial(trial.trial).adapter, adapter, layers, hyperparameters, "base")
    return paths


def merge(paths: SweepPaths) -> list[str]:
    return merge_best(load_results(paths.root), paths)


def best(paths: SweepPaths) -> str:
    return max(load_results(paths.root).trials, key=lambda t: t.learning or 0).trial


@contextmanager
def small_files(largest: int) -> Iterator[None]:
    """Let the system refuse files above a size, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_the_best_adapter_is_merged_once(paths, tiny_model):
    lines = merge(paths)
    assert lines == [f"merged   {paths.merged()}"]
    assert paths.merged_trial().read_text() == f"{best(paths)}\n"
    assert [p.name for p in paths.merged().parent.iterdir()] == ["lora-merged"]
    loaded = AutoModelForCausalLM.from_pretrained(str(paths.merged()))
    base = AutoModelForCausalLM.from_pretrained(str(tiny_model))
    moved = [
        name
        for (name, one), other in zip(loaded.named_parameters(), base.parameters(), strict=True)
        if not torch.equal(one, other)
    ]
    assert len(moved) == len(adapter_layers(base, "all"))
    written = (paths.merged() / "model.safetensors").stat().st_mtime_ns
    assert merge(paths) == lines
    assert (paths.merged() / "model.safetensors").stat().st_mtime_ns == written


def test_a_new_best_takes_the_place_of_an_earlier_one(paths):
    merge(paths)
    paths.merged_trial().write_text("another\n")
    merge(paths)
    assert paths.merged_trial().read_text() == f"{best(paths)}\n"


def test_a_folder_of_somebody_elses_is_left_alone(paths):
    paths.merged().mkdir(parents=True)
    (paths.merged() / "mine").write_text("mine")
    with pytest.raises(LorasweepError, match=r"lora-merged must be free or .*; move it away$"):
        merge(paths)
    assert [p.name for p in paths.merged().iterdir()] == ["mine"]


def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(paths):
    with (
        small_files(10_000),
        pytest.raises(LorasweepError, match=r"lora-merged cannot be written \(.*only merges then$"),
    ):
        merge(paths)
    assert list(paths.merged().parent.iterdir()) == []
    merge(paths)
    assert paths.merged_trial().is_file()


def test_an_adapter_that_is_gone_or_another_is_not_merged(paths):
    with Journal(paths.journal, paths.lock) as journal:
        journal.append(check(best(paths), status="differs", loaded=2.0))
    with pytest.raises(LorasweepError, match=r"^--merge: nothing was merged, since the kept adap"):
        merge(paths)
    with Journal(paths.journal, paths.lock) as journal:
        journal.append(check(best(paths)))
    adapter = paths.trial(best(paths)).adapter
    adapter.rename(adapter.with_name("elsewhere"))
    with pytest.raises(LorasweepError, match=r"^--merge: the adapter of trial \w+ is gone"):
        merge(paths)


def test_nothing_to_merge_is_said_before_anything_starts(tmp_path):
    with pytest.raises(SpecError, match=r"^--merge: must come with a LoRA study"):
        check_merge(parse_sweep({"methods": {"full": {}}, "space": {"lr": True}}))
    empty = SweepPaths(sweep_folder(tmp_path / "begun", trials=0, begun=1))
    with pytest.raises(LorasweepError, match="no LoRA trial has completed"):
        merge(empty)
