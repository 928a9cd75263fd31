"""One trial under real DeepSpeed against plain scripts, on one worker and on two."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from lorasweep import testbed
from lorasweep.data.shard import Shard
from lorasweep.data.tokens import Tokens
from lorasweep.errors import LorasweepError, OutOfMemoryError
from lorasweep.model.base import load_base
from lorasweep.model.packed import PackedModel
from lorasweep.spec.sweep import DeepSpeedSpec, ModelSpec
from lorasweep.spec.trial import LoraHyperparameters
from lorasweep.train import sharded_state
from lorasweep.train.deepspeed import DeepSpeedEngine
from lorasweep.train.progress import TrialNotes
from tests.examples import examples, prompted
from tests.reference_full import Finetuned, finetune
from tests.train.cleanup import close
from tests.train.deepspeed_setup import (
    ADAMW,
    IDS_BT,
    LION,
    SPEC,
    Setup,
    Trained,
    one_step,
    run_trial,
    run_trials,
    served_logits,
    slot_of,
    with_engine,
)
from tests.train.trial import CPU, distance, without_time
from tests.train.trial import Trial as PackedTrial
from tests.train.trial import train as train_packed
from tests.workers import TwoWorkers

STAGES: tuple[Literal[0, 1, 2, 3], ...] = (0, 1, 2, 3)
LION_SPEC = SPEC.model_copy(update={"optimizer": "lion"})
LORA = LoraHyperparameters(lr=1e-2, rank=4, batch_size=8, weight_decay=0.1)
WRECKING = ADAMW.model_copy(update={"lr": 10.0})
DROPPING = ADAMW.model_copy(update={"attention_dropout": 0.3})
# Relative norms of the difference of all weights after 8 steps, where gradients were summed in
# another order. Measured: 7e-7 for AdamW, 0 for Lion, in which one sign that rounding turns makes
# more. Losses differ by 3e-7 and norms by 1e-6.
SUMMED_ELSEWHERE = {"adamw": 1e-5, "lion": 1e-3}


@pytest.fixture
def setup(tiny_model: Path, tokens: Tokens) -> Setup:
    return Setup(tiny_model, tokens)


def scripted(setup: Setup) -> Finetuned:
    """Train a trial by the plain script."""
    batches = with_engine(setup, lambda engine: slot_of(engine).trial.batches)
    hyperparameters, train = setup.hyperparameters, setup.train
    return finetune(
        setup.folder,
        [
            [
                (ids.tolist(), prompt)
                for ids, prompt in (
                    prompted(setup.tokens, row) for row in batches.examples(step).tolist()
                )
            ]
            for step in range(setup.steps)
        ],
        lr=hyperparameters.lr,
        optimizer=train.optimizer,
        weight_decay=hyperparameters.weight_decay,
        warmup_steps=math.ceil(hyperparameters.warmup * setup.steps),
        clip=train.clip or math.inf,
    )


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """Load a model by transformers alone."""
    model = AutoModelForCausalLM.from_pretrained(str(folder))
    return {name: weight.detach().float() for name, weight in model.named_parameters()}


def logits_of(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = AutoModelForCausalLM.from_pretrained(str(folder))(IDS_BT).logits
    return logits


def check_equal(trained: Trained, plain: Finetuned, model: Path, optimizer: str) -> None:
    assert trained.losses == pytest.approx(plain.losses, rel=1e-5)
    assert trained.norms == pytest.approx(plain.norms, rel=1e-5)
    assert distance(plain.weights, weights_of(model)) < SUMMED_ELSEWHERE[optimizer]


def check_resumed(trained: Trained, saved: int) -> None:
    """Check that a resumed trial equals the uninterrupted one, bit for bit."""
    assert trained.again is not None
    rest, again = trained.steps[saved:], trained.again
    assert [without_time(progress) for progress in again.steps] == [
        without_time(progress) for progress in rest
    ]
    assert torch.equal(again.logits, trained.logits)


def test_two_workers_equal_a_plain_script_under_every_stage(
    setup: Setup, two_workers: TwoWorkers, tmp_path: Path
):
    setups = {str(stage): replace(setup, stage=stage, saved=5) for stage in STAGES}
    setups["lion"] = replace(setup, hyperparameters=LION, train=LION_SPEC)
    setups["lockstep"] = replace(setup, stage=3, lockstep=True)
    workers = two_workers(run_trials, setups, tmp_path)
    plain = {"adamw": scripted(setup), "lion": scripted(setups["lion"])}
    assert min(plain["adamw"].norms) < 2.5 < max(plain["adamw"].norms)  # some steps are clipped
    for name, trial in setups.items():
        one, other = (trained[name] for trained in workers)
        assert [without_time(step) for step in one.steps][:1] == [
            without_time(step) for step in other.steps
        ][:1]
        assert one.losses == other.losses
        assert one.norms == other.norms
        assert torch.equal(one.logits, other.logits)
        optimizer = trial.train.optimizer
        check_equal(one, plain[optimizer], tmp_path / name / "model", optimizer)
        assert torch.allclose(one.logits, logits_of(tmp_path / name / "model"), atol=1e-6)
        if trial.saved is not None:
            check_resumed(one, trial.saved)
            check_resumed(other, trial.saved)
    with pytest.raises(LorasweepError, match=r"resources.workers: must be 2, as when"):
        setups["2"].begin(Shard(), tmp_path / "2" / "state")


def test_other_settings_on_two_workers(setup: Setup, two_workers: TwoWorkers, tmp_path: Path):
    setups = {
        "bf16 1": replace(setup, stage=1, dtype="bf16", saved=6),
        "bf16 3": replace(setup, stage=3, dtype="bf16", saved=6),
        "offload 2": replace(setup, stage=2, offload=True),
        "offload 3": replace(setup, stage=3, offload=True, saved=6),
        "recompute": replace(setup, stage=3, train=SPEC.model_copy(update={"recompute": True})),
        "dropping": replace(setup, hyperparameters=DROPPING),
        "lora": replace(setup, stage=3, hyperparameters=LORA, saved=6),
        "diverging": replace(setup, stage=3, hyperparameters=WRECKING, steps=20),
    }
    first, second = two_workers(run_trials, setups, tmp_path)
    plain = scripted(setup)
    for name, trial in setups.items():
        one, other, model = first[name], second[name], tmp_path / name / "model"
        assert one.losses == other.losses
        assert [step.diverged for step in one.steps] == [step.diverged for step in other.steps]
        assert torch.equal(one.logits, other.logits)
        if trial.saved is not None:
            check_resumed(one, trial.saved)
            check_resumed(other, trial.saved)
        if trial.dtype == "bf16":  # measured: losses differ by 3e-4, weights by 5e-3
            assert one.losses == pytest.approx(plain.losses, rel=2e-3)
            assert one.losses[-1] < one.losses[0] - 0.5
            assert distance(plain.weights, weights_of(model)) < 0.02
            assert torch.allclose(one.logits, logits_of(model), atol=0.05)
        elif name.startswith(("offload", "recompute")):
            check_equal(one, plain, model, "adamw")

    dropped = first["dropping"].losses
    assert dropped != pytest.approx(plain.losses, rel=1e-3)  # and the number of workers is nothing
    alone = run_trial(replace(setups["dropping"], saved=4), tmp_path / "alone")
    check_resumed(alone, 4)
    assert alone.losses == pytest.approx(dropped, rel=1e-5)

    packed = train_packed(PackedTrial(setup.folder, setup.tokens, SPEC, LORA, 8, width=64))
    adapter = load_file(tmp_path / "lora" / "adapter" / "adapter_model.safetensors")
    assert first["lora"].losses == pytest.approx(packed.losses, rel=1e-5)
    assert distance(packed.adapter, adapter) < SUMMED_ELSEWHERE["adamw"]
    base = AutoModelForCausalLM.from_pretrained(str(setup.folder))
    tuned = PeftModel.from_pretrained(base, str(tmp_path / "lora" / "adapter"))
    with torch.no_grad():
        assert torch.allclose(tuned(IDS_BT).logits, first["lora"].logits, atol=1e-5)

    wrecked = first["diverging"]
    assert len(wrecked.steps) < 20
    assert wrecked.steps[-1].diverged
    assert wrecked.steps[-1].position.step == len(wrecked.steps) - 1


def load_sharded(folder: Path, shard: Shard) -> tuple[float, int]:
    """Load a base under stage 3; return a worker's share of it, and how much is unsharded."""
    model = ModelSpec(path=str(folder), dtype="fp32")
    engine = DeepSpeedEngine(model, DeepSpeedSpec(stage=3), shard, CPU)
    engine.load(ADAMW, SPEC, 0)
    weights = list(engine._model.module.parameters())
    share = sum(weight.ds_tensor.numel() for weight in weights) / engine._model.trainable
    whole = sum(weight.numel() for weight in weights)
    close(engine)
    return share, whole


def test_under_stage_3_no_worker_holds_the_whole_model(setup: Setup, two_workers: TwoWorkers):
    for share, whole in two_workers(load_sharded, setup.folder):
        assert share == pytest.approx(0.5, abs=0.01)
        assert whole == 0


def test_a_sharded_model_whose_embeddings_are_tied_is_saved_whole(
    two_workers: TwoWorkers, tmp_path: Path
):
    # Of the testbed's model even the embeddings stay sharded between steps.
    setup = Setup(testbed.MODEL, examples(testbed.MODEL), stage=3, steps=1)
    one, _ = two_workers(run_trials, {"tied": setup}, tmp_path)
    saved = tmp_path / "tied" / "model"
    check_equal(one["tied"], scripted(setup), saved, "adamw")
    assert torch.allclose(one["tied"].logits, logits_of(saved), atol=1e-5)
    model = AutoModelForCausalLM.from_pretrained(str(saved))
    assert model.lm_head.weight is model.model.embed_tokens.weight


def go_on_over_late_storage(setup: Setup, folder: Path, shard: Shard) -> tuple[int, float]:
    """Save twice and resume, while the second worker sees no state in the folder yet."""
    is_late = shard.worker == 1
    name = "not here yet" if is_late else sharded_state._FILE
    engine = setup.begin(shard)
    with mock.patch.object(sharded_state, "_FILE", name):
        for _ in range(2):
            engine.step()
            slot_of(engine).save_state(folder, TrialNotes())
    close(engine)
    engine = setup.begin(shard, None if is_late else folder)
    step, loss = slot_of(engine).position.step, one_step(engine).position.losses[-1]
    close(engine)
    return step, loss


def test_all_workers_resume_from_the_state_that_the_first_one_has(
    setup: Setup, two_workers: TwoWorkers, tmp_path: Path
):
    losses = scripted(setup).losses
    for step, loss in two_workers(go_on_over_late_storage, setup, tmp_path):
        assert step == 2
        assert loss == pytest.approx(losses[2], rel=1e-5)


def evaluate_unevenly(setup: Setup, shard: Shard) -> list[float]:
    """Train a step, let one worker evaluate more than the other, and train another step."""
    engine = setup.begin(shard)
    assert not engine.lockstep  # so small a model is gathered
    losses = []
    for _ in range(3):
        losses.append(one_step(engine).position.losses[-1])
        with engine.serving(["trial"]) as (served, _):
            for _ in range(1 + 2 * shard.worker):
                with served.one_copy(0) as model:
                    model(input_ids=IDS_BT)
    close(engine)
    return losses


def test_each_worker_evaluates_a_gathered_model_on_its_own(setup: Setup, two_workers: TwoWorkers):
    one, other = two_workers(evaluate_unevenly, replace(setup, stage=3))
    assert one == other == pytest.approx(scripted(setup).losses[:3], rel=1e-5)


def test_a_resumed_adapter_draws_the_same_dropout(setup: Setup, tmp_path: Path):
    dropping = LORA.model_copy(update={"dropout": 0.3})
    trained = run_trial(replace(setup, hyperparameters=dropping, saved=4), tmp_path / "dropping")
    check_resumed(trained, 4)
    without = run_trial(replace(setup, hyperparameters=LORA), tmp_path / "without")
    assert trained.losses != pytest.approx(without.losses, rel=1e-4)


def test_a_set_of_targets_of_ones_own_trains_as_in_a_lane(setup: Setup, tmp_path: Path):
    own = {"upper": ("up_proj", "v_proj")}
    upper = LORA.model_copy(update={"targets": "upper"})
    sharded = run_trial(replace(setup, hyperparameters=upper, own=own, steps=4), tmp_path)
    model = PackedModel(load_base(ModelSpec(path=str(setup.folder)), CPU), CPU, own)
    trial = PackedTrial(setup.folder, setup.tokens, SPEC, upper, 4, width=64)
    packed = train_packed(trial, model=model)
    assert sharded.losses == pytest.approx(packed.losses, rel=1e-5)
    adapter = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {name.split(".")[-3] for name in adapter} == {"up_proj", "v_proj"}
    assert distance(packed.adapter, adapter) < SUMMED_ELSEWHERE["adamw"]


@pytest.mark.parametrize("stage", [0, 3])
def test_a_single_worker_equals_the_plain_script(setup: Setup, stage: Any, tmp_path: Path):
    before = dict(os.environ)
    setup = replace(setup, stage=stage, saved=6)
    trained = run_trial(setup, tmp_path)
    check_equal(trained, scripted(setup), tmp_path / "model", "adamw")
    check_resumed(trained, 6)
    assert dict(os.environ) == before
    assert not torch.distributed.is_initialized()


def test_a_saved_model_is_a_transformers_folder(setup: Setup, tmp_path: Path):
    trained = run_trial(replace(setup, hyperparameters=DROPPING, steps=2), tmp_path)
    folder = tmp_path / "model"
    assert torch.equal(logits_of(folder), trained.logits)
    assert AutoTokenizer.from_pretrained(str(folder)).eos_token == "<|end|>"
    saved, base = (json.loads((f / "config.json").read_text()) for f in (folder, setup.folder))
    assert saved == base  # and so without the trial's dropout
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")  # which is tied


@pytest.mark.parametrize("stage", [0, 1])
def test_a_gradient_that_is_not_finite_changes_no_weight(setup: Setup, stage: Any):
    def poison(engine: DeepSpeedEngine) -> tuple[str | None, float]:
        before = served_logits(engine)
        weight = next(engine._model.module.parameters())
        weight.register_hook(lambda gradient: gradient * math.inf)
        progress = one_step(engine)
        assert torch.equal(served_logits(engine), before)
        assert slot_of(engine).position.step == 0
        return progress.diverged, progress.grad_norm

    diverged, norm = with_engine(replace(setup, stage=stage), poison)
    assert diverged == "the gradient is not finite"
    assert not math.isfinite(norm)


def test_a_step_that_does_not_fit_into_memory_is_reported_in_a_sentence(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    monkeypatch.setattr(DeepSpeedEngine, "_loss", fail)
    with pytest.raises(OutOfMemoryError, match=r"deepspeed.stage: a micro-batch must fit into"):
        with_engine(setup, lambda engine: engine.step())


def test_a_process_group_of_other_workers_is_refused(setup: Setup):
    with pytest.raises(LorasweepError, match=r"resources.workers: .* has joined none"):
        setup.begin(Shard(0, 2))


def test_a_state_of_another_kind_is_refused(setup: Setup, tmp_path: Path):
    with_engine(setup, lambda engine: slot_of(engine).save_state(tmp_path, TrialNotes()))
    with pytest.raises(LorasweepError, match=r"must hold the state of full under stage 3"):
        replace(setup, stage=3).begin(Shard(), tmp_path)


def test_a_crash_while_writing_a_state_leaves_the_old_one(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def crash(engine: DeepSpeedEngine) -> None:
        engine.step()
        slot_of(engine).save_state(tmp_path, TrialNotes(evaluate_s=1.0))
        engine.step()

        def write_half(folder: str, **_: Any) -> None:
            Path(folder).mkdir()
            raise KeyboardInterrupt

        monkeypatch.setattr(engine._model.engine, "save_checkpoint", write_half)
        with pytest.raises(KeyboardInterrupt):
            slot_of(engine).save_state(tmp_path, TrialNotes(evaluate_s=2.0))

    with_engine(setup, crash)
    engine = setup.begin(Shard(), tmp_path)
    assert slot_of(engine).position.step == 1
    assert slot_of(engine).notes == TrialNotes(evaluate_s=1.0)
    engine.step()
    slot_of(engine).save_state(tmp_path, TrialNotes())  # over what the crash has left
    close(engine)
    assert len([part for part in tmp_path.iterdir() if part.is_dir()]) == 1


def test_it_prints_nothing_and_leaves_nothing_behind(setup: Setup, tmp_path: Path):
    empty = tmp_path / "empty"
    empty.mkdir()
    script = f"""
        from pathlib import Path
        from dataclasses import replace
        from tests.train.deepspeed_setup import LION, Setup, SPEC, run_trial
        from tests.examples import examples, prompted

        folder = Path({str(setup.folder)!r})
        setup = Setup(folder, examples(folder), steps=2, dtype="bf16", saved=1)
        lion = SPEC.model_copy(update={{"optimizer": "lion"}})
        out = Path({str(tmp_path)!r})
        run_trial(replace(setup, stage=1, hyperparameters=LION, train=lion), out)
        run_trial(replace(setup, stage=3), out / "3")
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        cwd=empty,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (answer.stdout, answer.stderr, answer.returncode) == ("", "", 0)
    assert not list(empty.iterdir())
