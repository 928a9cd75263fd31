"""What is saved of an adapter is what plain PEFT loads, or the sweep is refused in a sentence."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM

from lorasweep.errors import ModelError
from lorasweep.model.arrival import Arrival, arrival, check_targets
from lorasweep.model.lora import AdapterLayer, initial_adapter, save_adapter
from lorasweep.model.peft_names import taken_for_experts
from lorasweep.model.shape import FAMILIES
from lorasweep.model.single import adapter_of, insert_adapter
from lorasweep.model.targets import adapter_layers, find_layers
from lorasweep.service.plan import plan_sweep
from lorasweep.spec.sweep import SweepSpec, parse_sweep
from lorasweep.spec.targets import TARGET_SETS
from lorasweep.spec.trial import LoraHyperparameters
from tests.model.families import CONFIGS, model_of

IDS_BT = torch.tensor([[5, 9, 200, 17, 33, 250, 8, 3, 4, 77]])
REWRITTEN = ["deepseek_v2", "deepseek_v3", "glm4_moe", "hunyuan_v1_moe", "qwen3_moe", "qwen3_next"]
REFUSED = {("laguna", "mlp"), ("laguna", "all")}


def sets_of(name: str) -> list[str]:
    """List the named sets that a family has layers of."""
    sections = {layer.section for layer in find_layers(model_of(name, "meta")).layers}
    return [t for t in TARGET_SETS if t == "attention" or sections & {"mlp", "gate"}]


@pytest.mark.parametrize("name", CONFIGS)
def test_every_tensor_of_a_named_set_arrives_in_plain_peft(name):
    for targets in sets_of(name):
        empty = model_of(name, "meta")
        hyperparameters = LoraHyperparameters(rank=3, dropout=0.1)
        found = arrival(empty, adapter_layers(empty, targets), hyperparameters)
        assert found.is_whole == ((name, targets) not in REFUSED), f"{targets}: {found}"


@pytest.mark.parametrize("name", FAMILIES)
def test_families_that_are_not_tried_out_before_a_sweep_are_tried_out_here(name):
    assert sets_of(name) == list(TARGET_SETS)
    assert not {(name, targets) for targets in TARGET_SETS} & REFUSED
    empty = model_of(name, "meta")
    assert not any(layer.by_weight for layer in adapter_layers(empty, "all"))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("seed", range(3))
def test_any_set_of_ones_own_arrives_of_these_families(name, seed):
    """Some layers of some blocks, as a list or an expression may name them."""
    empty = model_of(name, "meta")
    layers = adapter_layers(empty, "all")
    some = tuple(random.Random(seed).sample(layers, 1 + seed * (len(layers) // 2 - 1)))
    assert arrival(empty, some, LoraHyperparameters(rank=3)).is_whole


@pytest.mark.parametrize(
    ("name", "own", "by_weight"),
    [
        ("deepseek_v2", ["q_a_proj", "kv_b_proj"], 0),
        ("deepseek_v2", ["down_proj"], 2),
        ("deepseek_v2", ["gate_proj"], 2),  # half of what PEFT would join
        ("deepseek_v2", r"layers\.1\..*(up|o)_proj", 1),
        ("qwen3_next", ["shared_expert.up_proj", "o_proj"], 2),
        ("llama", r"layers\.1\.", 0),
    ],
)
def test_sets_of_ones_own_are_tried_out_too(name, own, by_weight, tmp_path: Path):
    model_of(name).save_pretrained(str(tmp_path))
    content = {"model": {"path": str(tmp_path)}, "targets": {"mine": own}}
    study = parse_sweep({**content, "space": {"targets": ["mine"]}})
    if name in FAMILIES:
        layers = adapter_layers(model_of(name, "meta"), "mine", study.targets)
        found = arrival(model_of(name, "meta"), layers, LoraHyperparameters(rank=3))
    else:
        found = check_targets(study, name)["mine"]
    assert found.is_whole
    assert found.by_weight == by_weight


@pytest.mark.parametrize("name", REWRITTEN)
def test_layers_that_peft_takes_for_experts_would_be_lost_by_name(name):
    empty = model_of(name, "meta")
    layers = adapter_layers(empty, "mlp")
    assert all(layer.by_weight for layer in layers)
    named = tuple(AdapterLayer(one.name, one.inputs, one.outputs) for one in layers)
    assert arrival(empty, named, LoraHyperparameters(rank=3)).arrived == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["llama", "qwen2_moe", *REWRITTEN])
def test_plain_peft_computes_what_was_trained(name, dtype, tmp_path: Path):
    hyperparameters = LoraHyperparameters(rank=3, alpha="rslora:4", targets="all", dropout=0.2)
    base = model_of(name).to(dtype).eval()
    base.save_pretrained(str(tmp_path / "base"))
    layers = adapter_layers(base, "all")
    insert_adapter(base, layers, hyperparameters, seed=1)
    generator = torch.Generator().manual_seed(2)
    for weight in adapter_of(base).values():
        weight.data += 0.1 * torch.randn(weight.shape, generator=generator).to(dtype)
    save_adapter(tmp_path / "adapter", adapter_of(base), layers, hyperparameters, "base")
    plain = AutoModelForCausalLM.from_pretrained(str(tmp_path / "base"), dtype=dtype)
    with torch.no_grad():
        untuned = plain(IDS_BT).logits
        tuned = PeftModel.from_pretrained(plain, str(tmp_path / "adapter")).eval()
        loaded, trained = tuned(IDS_BT).logits, base.eval()(IDS_BT).logits
    rounding = 1e-5 if dtype == torch.float32 else 2e-2
    assert (trained - untuned).abs().max() > 10 * rounding
    assert torch.allclose(loaded, trained, atol=rounding, rtol=0)


def test_half_of_what_peft_would_join_is_named_by_weight_too():
    model = model_of("deepseek_v2", "meta")
    gates = [la.name for la in find_layers(model).layers if la.name.endswith("gate_proj")]
    assert taken_for_experts(model, gates) == {*gates}
    outputs = [la.name for la in find_layers(model).layers if la.name.endswith("o_proj")]
    assert outputs
    assert not taken_for_experts(model, outputs)


def test_names_that_reach_further_than_they_should_are_counted():
    empty = model_of("llama", "meta")
    (layer,) = (one for one in adapter_layers(empty, "mlp") if one.name.endswith("0.mlp.up_proj"))
    short = AdapterLayer("up_proj", layer.inputs, layer.outputs)
    found = arrival(empty, (short,), LoraHyperparameters(rank=3))
    assert found == Arrival(saved=2, arrived=0, others=4, by_weight=0)
    assert "makes 4 that nobody trained" in str(found)


def test_a_configuration_that_peft_does_not_keep_is_refused_with_what_works(tmp_path: Path):
    model_of("laguna").save_pretrained(str(tmp_path))
    study = parse_sweep({"model": {"path": str(tmp_path)}, "space": {"targets": True}})
    with pytest.raises(
        ModelError,
        match=r"^space.targets: an adapter of 'mlp' cannot be kept, since of this model "
        r"plain PEFT \S+ takes back 6 of its 12 tensors; use attention, all of whose tensors "
        r"arrive$",
    ):
        check_targets(study, "laguna")
    content = {"model": {"path": str(tmp_path)}, "space": {"targets": ["attention"]}}
    check_targets(parse_sweep(content), "laguna")


def test_updates_that_bf16_would_round_away_are_refused(tmp_path: Path):
    model_of("deepseek_v2").save_pretrained(str(tmp_path))

    def sweep(dtype: str, targets: list[str]) -> SweepSpec:
        model = {"path": str(tmp_path), "dtype": dtype}
        return parse_sweep({"model": model, "space": {"targets": targets}})

    with pytest.raises(
        ModelError,
        match=r"^space.targets: an adapter of 'all' cannot be kept of a base in bf16, since plain "
        r"PEFT \S+ takes 6 of its \d+ layers for experts .* rounds it away; use attention, all of "
        r"whose tensors arrive, or set model.dtype=fp32$",
    ):
        check_targets(sweep("bf16", ["all"]), "deepseek_v2")
    check_targets(sweep("bf16", ["attention"]), "deepseek_v2")
    found = check_targets(sweep("fp32", ["all"]), "deepseek_v2")
    assert found["all"].by_weight == 6
    assert found == check_targets(sweep("auto", ["all"]), "deepseek_v2")
    (study,) = plan_sweep(sweep("auto", ["all"]).model_copy()).studies
    assert "on GPUs dtype auto is bf16" in study.notes[-1]


def test_a_dense_family_is_read_without_torch_and_peft():
    script = (
        "import sys; from lorasweep.model.arrival import check_targets\n"
        "from lorasweep.spec.sweep import parse_sweep\n"
        "check_targets(parse_sweep({'space': {'targets': True}}), 'llama')\n"
        "assert not {'torch', 'peft'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_workers_import_peft_only_for_families_that_it_rewrites():
    script = (
        "import sys; from tests.model.families import model_of\n"
        "from lorasweep.model.targets import adapter_layers\n"
        "assert len(adapter_layers(model_of('llama', 'meta'), 'all')) == 14\n"
        "assert 'peft' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_dropout_of_an_update_to_the_weight_is_left_out_of_the_files(tmp_path: Path):
    """PEFT refuses it there, and an adapter that is not trained further drops nothing."""
    model = model_of("deepseek_v2", "meta")
    hyperparameters = LoraHyperparameters(rank=3, dropout=0.2)
    for targets, dropout in (("attention", 0.2), ("all", 0.0)):
        layers = adapter_layers(model, targets)
        adapter = initial_adapter(layers, hyperparameters, 0)
        save_adapter(tmp_path, adapter, layers, hyperparameters, "base")
        config = LoraConfig.from_pretrained(str(tmp_path))
        assert config.lora_dropout == dropout
        assert bool(config.target_parameters) == (targets == "all")
