import json
import math

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from lorasweep.errors import ModelError
from lorasweep.model.base import load_base
from lorasweep.model.lora import initial_adapter, save_adapter
from lorasweep.model.targets import adapter_layers, target_modules
from lorasweep.spec.sweep import ModelSpec
from lorasweep.spec.targets import TARGET_SETS
from lorasweep.spec.trial import LoraHyperparameters

CPU = torch.device("cpu")
IDS = torch.tensor([[5, 9, 200, 17, 33, 250, 8]])

# The names by family, and of each the size of its input and of its output.
ATTENTION = {
    "llama": {"q_proj": (16, 16), "k_proj": (16, 8), "v_proj": (16, 8), "o_proj": (16, 16)},
    "gpt2": {"c_attn": (16, 48), "c_proj": (16, 16)},
    "gpt_neox": {"query_key_value": (16, 48), "dense": (16, 16)},
}
MLP = {
    "llama": {"gate_proj": (16, 40), "up_proj": (16, 40), "down_proj": (40, 16)},
    "gpt2": {"c_fc": (16, 64), "c_proj": (64, 16)},
    "gpt_neox": {"dense_h_to_4h": (16, 40), "dense_4h_to_h": (40, 16)},
}
ATTENTION["qwen2"], MLP["qwen2"] = ATTENTION["llama"], MLP["llama"]
PLACES = {
    "llama": "model.layers.{}.{}.{}",
    "qwen2": "model.layers.{}.{}.{}",
    "gpt2": "transformer.h.{}.{}.{}",
    "gpt_neox": "gpt_neox.layers.{}.{}.{}",
}
BLOCKS = {
    "llama": ("self_attn", "mlp"),
    "qwen2": ("self_attn", "mlp"),
    "gpt2": ("attn", "mlp"),
    "gpt_neox": ("attention", "mlp"),
}
FAMILIES = list(PLACES)


def layers_of(name, targets):
    """List the full names of a set's layers with their sizes, as the family names them."""
    attention, mlp = BLOCKS[name]
    parts = {
        "attention": [(attention, ATTENTION[name])],
        "mlp": [(mlp, MLP[name])],
        "all": [(attention, ATTENTION[name]), (mlp, MLP[name])],
    }
    return {
        PLACES[name].format(layer, block, leaf): sizes
        for layer in range(2)
        for block, leaves in parts[targets]
        for leaf, sizes in leaves.items()
    }


@pytest.fixture
def load(family):
    def load_family(name, dtype="fp32"):
        return load_base(ModelSpec(path=str(family(name)), dtype=dtype), CPU)

    return load_family


def peft_of(model, hyperparameters, seed=0):
    """Wrap a base as a script with PEFT would, from a seed."""
    torch.manual_seed(seed)
    alpha, rslora = hyperparameters.resolved_alpha
    config = LoraConfig(
        r=hyperparameters.rank,
        lora_alpha=alpha,
        use_rslora=rslora,
        lora_dropout=hyperparameters.dropout,
        target_modules=target_modules(model, hyperparameters.targets),
        fan_in_fan_out=model.config.model_type == "gpt2",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def trained_by(model):
    """Collect the adapter of a PEFT model, by the names that PEFT saves it under."""
    return {
        name.replace(".default", ""): parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def stirred(adapter):
    """Fill B, which starts at zero, so that the adapter has an effect."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(value.shape, generator=generator) if "lora_B" in name else value
        for name, value in adapter.items()
    }


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("targets", TARGET_SETS)
def test_a_target_set_is_exactly_the_layers_of_its_name(load, name, targets):
    assert target_modules(load(name), targets) == sorted(layers_of(name, targets))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("targets", TARGET_SETS)
def test_an_adapter_layer_knows_its_features_and_whether_its_weight_is_transposed(
    load, name, targets
):
    model = load(name)
    layers = adapter_layers(model, targets)
    told = {layer.name: (layer.inputs, layer.outputs) for layer in layers}
    assert told == layers_of(name, targets)
    assert {layer.transposed for layer in layers} == {name == "gpt2"}
    order = [module for module, _ in model.named_modules() if module in told]
    assert [layer.name for layer in layers] == order


@pytest.mark.parametrize("targets", TARGET_SETS)
def test_a_model_with_other_layers_is_refused_with_their_names(targets):
    model = nn.Sequential(nn.Linear(2, 2))
    for find in (target_modules, adapter_layers):
        with pytest.raises(ModelError) as caught:
            find(model, targets)
        assert str(caught.value).startswith(f"space.targets: {targets!r} finds no ")
        assert str(caught.value).endswith("its linear layers are 0")


def test_all_is_refused_if_only_half_of_it_is_found():
    model = nn.ModuleDict({"q_proj": nn.Linear(2, 2), "mix": nn.Linear(2, 2)})
    assert target_modules(model, "attention") == ["q_proj"]
    with pytest.raises(ModelError, match="'all' finds no mlp layer in this model; its linear"):
        target_modules(model, "all")


@pytest.mark.parametrize("name", FAMILIES)
def test_ungated_is_all_but_the_gates_and_needs_gates(load, name):
    model = load(name)
    everything = target_modules(model, "all")
    ungated = [layer for layer in everything if not layer.endswith("gate_proj")]
    if ungated == everything:
        with pytest.raises(ModelError, match="this model has none; use 'all'"):
            target_modules(model, "ungated")
    else:
        assert target_modules(model, "ungated") == ungated


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("targets", TARGET_SETS)
@pytest.mark.parametrize(("rank", "seed"), [(1, 0), (3, 1), (16, 2), (17, 2**31 - 1)])
def test_an_adapter_is_initialised_as_by_peft_bit_for_bit(load, name, targets, rank, seed):
    hyperparameters = LoraHyperparameters(rank=rank, targets=targets)
    theirs = trained_by(peft_of(load(name), hyperparameters, seed))
    torch.rand(3)  # whatever else is drawn
    ours = initial_adapter(
        adapter_layers(load(name), targets), LoraHyperparameters(rank=rank), seed
    )
    assert ours.keys() == theirs.keys()
    assert {value.dtype for value in ours.values()} == {torch.float32}
    for key, value in theirs.items():
        assert torch.equal(ours[key], value)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_an_adapter_of_a_bf16_base_is_initialised_in_fp32_where_peft_rounds_it(load, name):
    theirs = trained_by(peft_of(load(name, "bf16"), LoraHyperparameters(rank=5), 3))
    hyperparameters = LoraHyperparameters(rank=5)
    exact = initial_adapter(adapter_layers(load(name), "all"), hyperparameters, 3)
    ours = initial_adapter(adapter_layers(load(name, "bf16"), "all"), hyperparameters, 3)
    for key, value in theirs.items():
        assert torch.equal(ours[key], exact[key])
        assert torch.equal(ours[key].bfloat16().float(), value)


def test_the_seed_alone_determines_an_initial_adapter(load):
    layers = adapter_layers(load("llama"), "all")
    before = torch.get_rng_state()
    first, again, other = (
        initial_adapter(layers, LoraHyperparameters(), seed) for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), before)
    for name, value in first.items():
        assert value.equal(again[name])
        assert value.equal(other[name]) == ("lora_B" in name)
        assert bool(value.any()) == ("lora_A" in name)


@pytest.fixture
def saved(load, family, tmp_path):
    def save(name, hyperparameters):
        layers = adapter_layers(load(name), hyperparameters.targets)
        adapter = stirred(initial_adapter(layers, hyperparameters, 0))
        save_adapter(tmp_path / "adapter", adapter, layers, hyperparameters, str(family(name)))
        return tmp_path / "adapter", adapter

    return save


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("alpha", ["1r", 7.5, "rslora:8"])
@pytest.mark.parametrize("targets", TARGET_SETS)
def test_peft_loads_a_saved_adapter(load, family, saved, name, alpha, targets):
    hyperparameters = LoraHyperparameters(rank=3, alpha=alpha, dropout=0.1, targets=targets)
    folder, adapter = saved(name, hyperparameters)
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    again = PeftModel.from_pretrained(load(name), str(folder), is_trainable=True)
    read = trained_by(again)
    assert read.keys() == adapter.keys()
    assert all(read[key].equal(value) for key, value in adapter.items())
    config = again.peft_config["default"]
    assert config.base_model_name_or_path == str(family(name))
    assert (config.lora_alpha, config.use_rslora) == hyperparameters.resolved_alpha
    assert (config.r, config.lora_dropout, config.task_type) == (3, 0.1, "CAUSAL_LM")
    assert config.target_modules == set(layers_of(name, targets))
    assert config.fan_in_fan_out == (name == "gpt2")
    scalings = [m.scaling["default"] for m in again.modules() if hasattr(m, "lora_A")]
    assert len(scalings) == len(layers_of(name, targets))
    assert all(math.isclose(scaling, hyperparameters.scaling) for scaling in scalings)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_saved_adapter_is_what_peft_itself_would_save(load, saved, tmp_path, name):
    hyperparameters = LoraHyperparameters(rank=3, alpha="rslora:6")
    folder, adapter = saved(name, hyperparameters)
    theirs = peft_of(load(name), hyperparameters)
    missing = theirs.load_state_dict(
        {key.replace(".weight", ".default.weight"): value for key, value in adapter.items()},
        strict=False,
    )
    assert not missing.unexpected_keys
    theirs.save_pretrained(str(tmp_path / "theirs"), save_embedding_layers=False)
    from safetensors.torch import load_file

    ours_saved = load_file(folder / "adapter_model.safetensors")
    theirs_saved = load_file(tmp_path / "theirs" / "adapter_model.safetensors")
    assert ours_saved.keys() == theirs_saved.keys()
    assert all(ours_saved[key].equal(value) for key, value in theirs_saved.items())
    places = (folder, tmp_path / "theirs")
    ours, peft = (LoraConfig.from_pretrained(str(place)).to_dict() for place in places)
    differing = {key for key in ours.keys() | peft.keys() if ours.get(key) != peft.get(key)}
    assert differing <= {"auto_mapping", "base_model_name_or_path"}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_saved_adapter_changes_the_logits_of_the_base(load, saved, name):
    folder, _ = saved(name, LoraHyperparameters(rank=2))
    before = logits(load(name))
    assert not torch.allclose(logits(PeftModel.from_pretrained(load(name), str(folder))), before)


def test_saving_does_not_ask_the_hub_about_the_base(load, tmp_path, monkeypatch):
    import peft.utils.save_and_load as saving

    def ask(*arguments):
        raise AssertionError(f"asked the hub for {arguments}")

    monkeypatch.setattr(saving, "check_file_exists_on_hf_hub", ask)
    layers = adapter_layers(load("llama"), "all")
    adapter = initial_adapter(layers, LoraHyperparameters(), 0)
    save_adapter(tmp_path, adapter, layers, LoraHyperparameters(), "org/model")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "org/model"


def test_only_the_adapter_is_saved_and_not_the_stack_it_is_a_view_of(load, tmp_path):
    layers = adapter_layers(load("llama"), "attention")
    initial = initial_adapter(layers, LoraHyperparameters(rank=2), 0)
    held = {name: torch.zeros(9, *value.shape) for name, value in initial.items()}
    views = {name: value[4] for name, value in held.items()}
    save_adapter(tmp_path, views, layers, LoraHyperparameters(rank=2), "org/model")
    numbers = sum(2 * (layer.inputs + layer.outputs) for layer in layers)
    assert (tmp_path / "adapter_model.safetensors").stat().st_size < 4 * numbers + 4000
