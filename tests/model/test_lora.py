import math

import pytest
import torch
from peft import PeftModel
from torch import nn

from lorasweep.errors import ModelError
from lorasweep.model.base import load_base
from lorasweep.model.lora import adapter_parameters, attach_lora, save_adapter, target_modules
from lorasweep.spec.sweep import ModelSpec
from lorasweep.spec.trial import TARGET_SETS, LoraHyperparameters

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
    """Give the full names of a set's layers with their sizes, as the family writes them."""
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


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


def stirred(model):
    """Fill B, which begins as zero, so that the adapter does something."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in adapter_parameters(model).items():
        if "lora_B" in name:
            parameter.data.normal_(generator=generator)
    return model


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("targets", TARGET_SETS)
def test_a_target_set_is_exactly_the_layers_of_its_name(load, name, targets):
    assert target_modules(load(name), targets) == sorted(layers_of(name, targets))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("targets", TARGET_SETS)
def test_an_adapter_has_rank_times_in_plus_out_parameters_on_these_layers(load, name, targets):
    model = attach_lora(load(name), LoraHyperparameters(rank=3, targets=targets), 0)
    layers = layers_of(name, targets)
    parameters = adapter_parameters(model)
    assert sum(p.numel() for p in parameters.values()) == sum(
        3 * (rows + columns) for rows, columns in layers.values()
    )
    prefix = "base_model.model."
    adapted = {key.removeprefix(prefix).partition(".lora_")[0] for key in parameters}
    assert adapted == set(layers)
    assert list(parameters) == sorted(parameters)


@pytest.mark.parametrize("targets", TARGET_SETS)
def test_a_model_with_other_layers_is_refused_with_their_names(targets):
    model = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(ModelError) as caught:
        target_modules(model, targets)
    assert str(caught.value).startswith(f"space.targets: {targets!r} finds no ")
    assert str(caught.value).endswith("its linear layers are 0")


def test_all_is_refused_where_only_half_of_it_is_known():
    model = nn.ModuleDict({"q_proj": nn.Linear(2, 2), "fc_in": nn.Linear(2, 2)})
    assert target_modules(model, "attention") == ["q_proj"]
    with pytest.raises(ModelError, match="'all' finds no mlp layer in this model; its linear"):
        target_modules(model, "all")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_fresh_adapter_leaves_the_base_as_it_is(load, name):
    before = logits(load(name))
    model = attach_lora(load(name), LoraHyperparameters(rank=4), 0)
    assert logits(model).equal(before)
    assert not logits(stirred(model)).equal(before)


def test_the_seed_alone_decides_how_an_adapter_begins(load):
    def begin(seed):
        torch.rand(seed + 3)  # whatever was drawn before
        parameters = adapter_parameters(attach_lora(load("llama"), LoraHyperparameters(), seed))
        return {name: parameter.detach() for name, parameter in parameters.items()}

    first, again, other = begin(0), begin(0), begin(1)
    assert first.keys() == again.keys() == other.keys()
    for name in first:
        assert first[name].equal(again[name])
        assert first[name].equal(other[name]) == ("lora_B" in name)
        assert bool(first[name].any()) == ("lora_A" in name)


@pytest.mark.parametrize("alpha", ["1r", "2r", 32, 7.5, "rslora:16"])
@pytest.mark.parametrize("rank", [2, 9])
def test_every_rule_of_alpha_gives_the_scaling_that_peft_applies(load, alpha, rank):
    hyperparameters = LoraHyperparameters(rank=rank, alpha=alpha)
    model = attach_lora(load("llama"), hyperparameters, 0)
    scalings = [m.scaling["default"] for m in model.modules() if hasattr(m, "lora_A")]
    assert len(scalings) == len(layers_of("llama", "all"))
    assert all(math.isclose(scaling, hyperparameters.scaling) for scaling in scalings)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_an_adapted_layer_adds_scaled_b_times_a(load, name):
    hyperparameters = LoraHyperparameters(rank=3, alpha="rslora:6", targets="mlp")
    model = stirred(attach_lora(load(name), hyperparameters, 0))
    layer = next(m for m in model.modules() if hasattr(m, "lora_A"))
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    x = torch.randn(2, a.shape[1])
    with torch.no_grad():
        expected = layer.base_layer(x) + 6 / math.sqrt(3) * x @ a.T @ b.T
        torch.testing.assert_close(layer(x), expected)


def test_dropout_is_that_of_the_trial(load):
    model = attach_lora(load("gpt2"), LoraHyperparameters(dropout=0.25), 0)
    found = [m.p for m in model.modules() if isinstance(m, nn.Dropout)]
    assert sum(p == 0.25 for p in found) == len(layers_of("gpt2", "all"))
    assert set(found) == {0.0, 0.25}


@pytest.mark.parametrize("name", FAMILIES)
def test_an_adapter_is_fp32_also_on_a_base_of_half_precision(load, name):
    model = attach_lora(load(name, "bf16"), LoraHyperparameters(rank=2), 0)
    trained = adapter_parameters(model)
    assert {parameter.dtype for parameter in trained.values()} == {torch.float32}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}
    assert all("lora_" in name for name in trained)
    assert torch.isfinite(logits(model)).all()


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("alpha", ["2r", "rslora:8"])
def test_a_saved_adapter_is_an_ordinary_peft_folder(load, family, tmp_path, name, alpha):
    hyperparameters = LoraHyperparameters(rank=3, alpha=alpha, dropout=0.1)
    model = stirred(attach_lora(load(name), hyperparameters, 0)).eval()
    folder = tmp_path / "adapter"
    save_adapter(model, folder, str(family(name)))
    again = PeftModel.from_pretrained(load(name), str(folder))
    assert logits(again).equal(logits(model))
    assert again.peft_config["default"].base_model_name_or_path == str(family(name))
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".md", ".safetensors"]


def test_saving_asks_no_hub_about_the_base(load, tmp_path, monkeypatch):
    import peft.utils.save_and_load as saving

    def ask(*arguments):
        raise AssertionError(f"asked the hub for {arguments}")

    monkeypatch.setattr(saving, "check_file_exists_on_hf_hub", ask)
    save_adapter(attach_lora(load("llama"), LoraHyperparameters(), 0), tmp_path, "org/model")
