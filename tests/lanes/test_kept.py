"""Kept weights through plain transformers and PEFT: agreement with the engine, and sabotage."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lorasweep.evaluate.kept import plain_loss
from lorasweep.lanes.messages import KeptLoss, TrialEnded, TrialReport
from lorasweep.lanes.worker import measure_kept
from lorasweep.spec.sweep import ModelSpec, SweepSpec
from lorasweep.store.journal import Journal
from lorasweep.store.kept import TOLERANCES, content_hash_of
from lorasweep.store.paths import SweepPaths
from lorasweep.store.records import KeptChecked, SessionChanged
from lorasweep.store.results import load_history, load_results
from lorasweep.tune.kept import DueCheck, compare, due_check
from tests.data.conftest import make_tokenizer
from tests.folders import sweep_folder
from tests.lanes.conftest import MakeSweep, run_here
from tests.model.families import model_of

pytestmark = pytest.mark.filterwarnings("default")

CPU = torch.device("cpu")


class Trained:
    """One trial that a runner has trained to its end in this process."""

    def __init__(self, spec: SweepSpec, root: Path) -> None:
        self.runner = run_here(spec, root)
        trial = spec.trial({"lr": 2e-2})
        self.runner.admit(self.runner.prepare(trial))
        reports: list[TrialReport] = []
        while trial.id in self.runner.engine.slots:
            reports += self.runner.step()
        assert isinstance(reports[-1], TrialEnded)
        loss = reports[-1].scores.response_loss
        assert loss is not None
        self.folder = SweepPaths(root).trial(trial.id).adapter
        self.due = DueCheck(trial.id, "lora", "", self.folder, "c", loss)

    def check(self, folder: Path | None = None) -> KeptChecked:
        """Load the folder as a worker does at the end of a sweep, and compare."""
        heldout, model = self.runner.data.heldout, self.runner.spec.model
        loss = measure_kept(model, str(folder or self.folder), "lora", heldout, 1, on_gpu=False)
        return compare(self.due, loss, wall_s=1.0)


@pytest.fixture(scope="module")
def train(
    make_sweep: MakeSweep, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Trained]:
    def trained(name: str = "", dtype: str = "fp32", targets: str = "all") -> Trained:
        folder = tmp_path_factory.mktemp("kept")
        spec = make_sweep(
            train={"steps": 6},
            search={"scheduler": "none"},
            hyperparameters={"batch_size": 8, "rank": 4, "targets": targets},
            evaluate={"learning": ["response_accuracy"], "source": []},
        )
        if name:
            base = folder / "base"
            model_of(name).save_pretrained(str(base))
            make_tokenizer(framing=False).save_pretrained(str(base))
            spec = spec.model_copy(update={"model": ModelSpec(path=str(base), dtype=dtype)})
        return Trained(spec, folder / "out")

    return trained


@pytest.fixture(scope="module")
def tiny(train: Callable[..., Trained]) -> Trained:
    return train()


def altered(
    tiny: Trained, folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> Path:
    """Copy the kept adapter with other tensors."""
    folder.mkdir()
    for file in tiny.folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file(change(tensors), folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


def test_plain_peft_agrees_with_the_engine(tiny):
    check = tiny.check()
    assert check.status == "agrees"
    assert check.reason is None
    assert check.loaded == pytest.approx(check.measured, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "dtype", "targets"),
    [
        ("llama", "bf16", "all"),
        ("deepseek_v2", "fp32", "all"),  # some of whose layers PEFT would take for experts
        ("deepseek_v2", "bf16", "attention"),
    ],
)
def test_plain_peft_agrees_in_either_dtype(train, name, dtype, targets):
    check = train(name, dtype, targets).check()
    assert check.dtype == dtype
    assert check.status == "agrees", check
    # A tenth of what is called rounding is enough here.
    assert abs(check.loaded - check.measured) < TOLERANCES[dtype] / 10


def test_one_tensor_that_was_altered_is_noticed(tiny, tmp_path):
    def alter(tensors):
        name = next(name for name in tensors if "lora_B" in name)
        return {**tensors, name: tensors[name] + 0.1}

    check = tiny.check(altered(tiny, tmp_path / "altered", alter))
    assert check.status == "differs"
    assert abs(check.loaded - check.measured) > check.tolerance


def test_tensors_that_do_not_arrive_are_counted(tiny, tmp_path):
    def misname(tensors):
        (first, value), *rest = tensors.items()
        return {first.replace("layers.0", "layers.9"): value, **dict(rest)}

    check = tiny.check(altered(tiny, tmp_path / "misnamed", misname))
    assert check.status == "differs"
    assert check.reason == "27 of 28 tensors arrive, and PEFT makes 28"


def test_weights_that_are_not_finite_differ(tiny, tmp_path):
    broken = altered(tiny, tmp_path / "nan", lambda t: {k: v * math.nan for k, v in t.items()})
    assert tiny.check(broken).status == "differs"


def test_a_damaged_folder_is_unloadable_with_the_reason(tiny, tmp_path):
    folder = altered(tiny, tmp_path / "torn", lambda tensors: tensors)
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    check = tiny.check(folder)
    assert check.status == "unloadable"
    assert check.reason


def test_the_loss_is_that_of_one_example_after_another(tiny):
    from transformers import AutoModelForCausalLM

    heldout = tiny.runner.data.heldout
    model = AutoModelForCausalLM.from_pretrained(str(tiny.runner.spec.model.path)).eval()
    losses = []
    for row in range(len(heldout)):
        ids, carries_loss = heldout.example(row)
        with torch.no_grad():
            logits = model(torch.tensor(ids.tolist())[None]).logits[0]
        losses += [
            -float(logits[i - 1].log_softmax(-1)[int(ids[i])])
            for i in range(1, len(ids))
            if carries_loss[i]
        ]
    assert plain_loss(model, heldout, CPU) == pytest.approx(np.mean(losses), rel=1e-6)


def test_what_did_not_fit_or_is_gone_is_unchecked_and_no_mismatch():
    due = DueCheck("t", "lora", "", None, "", 1.0)
    for loss in (KeptLoss("unchecked", reason="its folder is gone"),):
        check = compare(due, loss, wall_s=0.0)
        assert (check.status, check.reason) == ("unchecked", "its folder is gone")


def test_a_check_is_due_once_for_the_same_files(tmp_path):
    paths = SweepPaths(sweep_folder(tmp_path / "mine", trials=3))
    spec = load_results(paths.root).spec
    assert spec is not None

    def due() -> DueCheck | None:
        return due_check(spec, paths, load_history(paths.root)[1])

    def append(record: SessionChanged | KeptChecked) -> None:
        with Journal(paths.journal, paths.lock) as journal:
            journal.append(record)

    assert due() is None, "a sweep that an earlier lorasweep completed"
    append(SessionChanged(state="interrupted", time=3e9))
    gone = due()
    assert gone is not None
    assert gone.folder is None
    adapter = paths.trial(gone.trial).adapter
    adapter.mkdir(parents=True)
    (adapter / "adapter_model.safetensors").write_text("weights")
    found = due()
    assert found is not None
    assert found == replace(gone, folder=adapter, content=content_hash_of(adapter))
    loss = KeptLoss("loaded", found.measured, "fp32")
    append(compare(found, loss, wall_s=1.0))
    assert due() is None
    append(SessionChanged(state="complete", time=4e9))
    assert due() is None
    (adapter / "adapter_model.safetensors").write_text("others")
    assert due() is not None, "the files have changed since"
