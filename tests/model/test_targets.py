"""Which layers each set of targets is, in many families, and what is in none."""

from __future__ import annotations

import functools
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lorasweep.errors import ModelError
from lorasweep.model.adapter import Adapter
from lorasweep.model.coverage import coverage, coverage_notes
from lorasweep.model.layers import ModelLayers, leaf
from lorasweep.model.lora import AdapterLayer
from lorasweep.model.packed import PackedModel
from lorasweep.model.routing import TrialRows
from lorasweep.model.shape import FAMILIES
from lorasweep.model.single import adapter_of, insert_adapter
from lorasweep.model.size import architecture_of
from lorasweep.model.targets import adapter_layers, find_layers, target_modules
from lorasweep.spec.targets import BUILT_IN, OwnSets
from lorasweep.spec.trial import LoraHyperparameters
from tests.model.families import CONFIGS, MORE, config_of, model_of

IDS_BT = torch.tensor([[5, 9, 200, 17, 33, 250, 8, 3], [1, 2, 3, 4, 5, 6, 7, 8]])
ROOT = Path(__file__).parents[2]
ALL = [*CONFIGS, *MORE]

LLAMA = "q_proj k_proj v_proj o_proj | up_proj down_proj | gate_proj"
NO_GATE = "q_proj k_proj v_proj o_proj | up_proj down_proj |"
FUSED_MLP = "q_proj k_proj v_proj o_proj | gate_up_proj down_proj |"
GPT2 = "c_attn c_proj | c_fc c_proj |"
GPT_J = "q_proj k_proj v_proj out_proj | fc_in fc_out |"
NEOX = "query_key_value dense | dense_h_to_4h dense_4h_to_h |"
EXPERTS = "experts.gate_up_proj experts.down_proj"
NO_MLP = f"q_proj k_proj v_proj o_proj | | | mlp.gate {EXPERTS}"
SHARED = f"{LLAMA} | mlp.gate {EXPERTS}"
LATENT = (
    "q_a_proj q_b_proj kv_a_proj_with_mqa kv_b_proj o_proj | up_proj down_proj | gate_proj | "
    f"mlp.gate {EXPERTS}"
)
# Of each family, by hand: the layers of attention, the MLP and its gate; and what is in no set.
EXPECTED = {
    **dict.fromkeys(["llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3"], LLAMA),
    **dict.fromkeys(["gemma3_text", "stablelm", "cohere", "cohere2", "olmo", "olmo2"], LLAMA),
    **dict.fromkeys(["granite", "smollm3", "ernie4_5", "exaone4"], LLAMA),
    **dict.fromkeys(["nemotron", "apertus"], NO_GATE),
    "glm4": FUSED_MLP,
    "phi3": "qkv_proj o_proj | gate_up_proj down_proj |",
    "phi": "q_proj k_proj v_proj dense | fc1 fc2 |",
    **dict.fromkeys(["gpt2", "gpt_bigcode"], GPT2),
    "gpt_neo": "q_proj k_proj v_proj out_proj | c_fc c_proj |",
    "gptj": GPT_J,
    "codegen": "qkv_proj out_proj | fc_in fc_out |",
    "opt": "q_proj k_proj v_proj out_proj | fc1 fc2 |",
    **dict.fromkeys(["gpt_neox", "falcon", "bloom"], NEOX),
    "mpt": "Wqkv out_proj | up_proj down_proj |",
    "starcoder2": "q_proj k_proj v_proj o_proj | c_fc c_proj |",
    "gemma3n_text": f"{LLAMA} | altup.correction_coefs altup.prediction_coefs "
    "altup.modality_router laurel.linear_left laurel.linear_right per_layer_input_gate "
    "per_layer_projection",
    "lfm2": "q_proj k_proj v_proj out_proj | w2 w3 | w1 | conv.in_proj conv.out_proj",
    **dict.fromkeys(["mixtral", "olmoe"], NO_MLP),
    "gpt_oss": NO_MLP.replace("mlp.gate", "mlp.router"),
    "phimoe": NO_MLP.replace("mlp.gate", "mlp.router"),
    "granitemoe": NO_MLP.replace("mlp.gate", "block_sparse_moe.router"),
    "minimax": "q_proj k_proj v_proj o_proj qkv_proj out_proj output_gate | | | "
    f"mlp.gate {EXPERTS}",
    **dict.fromkeys(["qwen3_moe", "glm4_moe", "ernie4_5_moe"], SHARED),
    "llama4_text": f"{LLAMA} | feed_forward.router {EXPERTS}",
    "laguna": f"{LLAMA.replace(' |', ' g_proj |', 1)} | mlp.gate {EXPERTS}",
    "hunyuan_v1_moe": f"{LLAMA} | gate.wg {EXPERTS}",
    "qwen2_moe": f"{SHARED} mlp.shared_expert_gate",
    "qwen3_next": f"{LLAMA.replace(' |', ' in_proj_qkvz in_proj_ba out_proj |', 1)} | mlp.gate "
    f"{EXPERTS} mlp.shared_expert_gate",
    **dict.fromkeys(["deepseek_v2", "deepseek_v3"], LATENT),
    "deepseek_v32": f"{LATENT} indexer.wq_b indexer.wk indexer.weights_proj",
    "jetmoe": "kv_proj | | | router.layer mlp.input_linear mlp.output_linear "
    "experts.input_linear experts.output_linear",
    "dbrx": "Wqkv out_proj | | | router.layer mlp.w1 mlp.v1 mlp.w2",
    "jamba": f"{LLAMA} | mamba.in_proj mamba.x_proj mamba.dt_proj mamba.out_proj "
    f"feed_forward.router {EXPERTS}",
    "mamba2": "| | | mixer.in_proj mixer.out_proj",
    **dict.fromkeys(["bamba", "falcon_h1"], f"{LLAMA} | mamba.in_proj mamba.out_proj"),
    "recurrent_gemma": f"{LLAMA} | temporal_block.linear_x temporal_block.linear_y "
    "temporal_block.linear_out rg_lru.input_gate_weight rg_lru.recurrent_gate_weight",
}


@functools.cache
def found_in(name: str) -> ModelLayers:
    return find_layers(model_of(name, "meta"))


def own_parts(name: str) -> set[str]:
    """List what is in no set of a family by the last two components of the names."""
    listed = [part.name for part in coverage(found_in(name), {}).in_no_set]
    return {".".join(name.split(".")[-2:]) for name in listed}


@pytest.mark.parametrize("name", ALL)
def test_every_layer_of_a_family_is_where_it_belongs(name):
    attention, mlp, gate, *none = (set(part.split()) for part in EXPECTED[name].split("|"))
    found: dict[str, set[str]] = {"attention": set(), "mlp": set(), "gate": set(), "": set()}
    for layer in found_in(name).layers:
        found[layer.section].add(leaf(layer.name))
    del found[""]
    assert found == {"attention": attention, "mlp": mlp, "gate": gate}
    assert own_parts(name) == (none[0] if none else set())


@pytest.mark.parametrize("name", ALL)
def test_every_linear_layer_of_the_blocks_is_in_a_set_or_said_to_be_in_none(name):
    model = model_of(name, "meta")
    found = find_layers(model)
    in_sets = {layer.name for layer in found.layers if layer.section}
    said = {part.name for part in coverage(found, {}).in_no_set}
    outside = {out.name for out in found.left_out if not out.in_blocks}
    for full, module in model.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        inside = re.search(r"\.\d+\.(.*)", full)
        is_said = inside is not None and inside.group(1) in said
        assert (full in in_sets) + is_said + (full in outside) == 1, full
    shares = [part.share for part in coverage(found, {}).in_no_set]
    adapted = sum(layer.weights for layer in found.layers if layer.section) / found.weights
    assert sum(shares) + adapted == pytest.approx(1)


@pytest.mark.parametrize("name", [name for name in ALL if name != "mamba2"])
def test_every_layer_that_can_be_adapted_sees_all_tokens_at_once(name):
    """Packed training tells trials apart by their rows, in their order."""
    model = model_of(name).eval()
    layers = find_layers(model).layers
    seen: dict[str, set[int]] = {}
    for layer in layers:

        def note(_: Any, inputs: tuple[Any, ...], full: str = layer.name) -> None:
            seen.setdefault(full, set()).add(inputs[0].numel() // inputs[0].shape[-1])

        model.get_submodule(layer.name).register_forward_pre_hook(note)
    with torch.no_grad():
        model(IDS_BT)
    assert seen == {layer.name: {IDS_BT.numel()} for layer in layers}


def sets_of(found: ModelLayers, own: OwnSets) -> list[str]:
    return [*coverage(found, own).sets, *own]


@pytest.mark.parametrize("name", ALL)
def test_planned_parameters_are_those_of_the_adapter_that_training_makes(name, monkeypatch):
    model = model_of(name, "meta")
    found = find_layers(model)
    if not found.layers:
        return
    own: OwnSets = {"last": r"\.1\.", "one": (leaf(found.layers[0].name),)}
    ways = [architecture_of(config_of(name))]
    if name in FAMILIES:  # laid out by transformers too
        monkeypatch.delitem(FAMILIES, name)
        ways.append(architecture_of(config_of(name)))
    for targets in sets_of(found, own):
        hyperparameters = LoraHyperparameters(rank=3, targets=targets)
        layers = adapter_layers(model, targets, own)
        trained = Adapter(layers, hyperparameters, 0).trainable
        assert [shape.trainable(hyperparameters, own) for shape in ways] == [trained] * len(ways)
    parameters = sum(weight.numel() for weight in model.parameters())
    assert [shape.parameters for shape in ways] == [parameters] * len(ways)


@pytest.mark.parametrize("name", ["gemma3"])
def test_no_layer_of_another_modality_is_in_any_set(name):
    model = model_of(name, "meta")
    vision = [n for n, m in model.named_modules() if "vision" in n and isinstance(m, nn.Linear)]
    assert len(vision) > 5
    named = {layer for targets in BUILT_IN for layer in target_modules(model, targets)}
    assert named
    assert not named & {*vision}
    assert all("language_model" in layer for layer in named)
    with pytest.raises(ModelError, match=r"targets.x: '_proj' matches model.vision_tower.*outside"):
        target_modules(model, "x", {"x": "_proj"})
    own: OwnSets = {"x": ("q_proj",), "y": r"language_model.*q_proj"}
    assert target_modules(model, "x", own) == target_modules(model, "y", own)


@pytest.mark.parametrize(
    ("name", "targets", "sentence"),
    [
        ("mixtral", "mlp", "'mlp' finds no mlp layer in this model that can have an adapter, since "
         "the experts of a block are one parameter and no layers; its linear layers are k_proj, "
         "o_proj, q_proj, v_proj; use 'attention'"),
        ("mixtral", "all", "'all' finds no mlp layer"),
        ("mamba2", "attention", "'attention' finds no attention layer in this model; its linear "
         "layers are none"),
        ("gpt2", "qv", "'qv' is the layers of queries and values, and this model has none of their "
         "own for both, but c_attn, c_proj; use 'attention'"),
        ("deepseek_v2", "qv", "but q_a_proj, q_b_proj, kv_a_proj_with_mqa, kv_b_proj, o_proj"),
        ("llama", "typo", "targets.typo: 'qproj' names no layer of this model's blocks; they end "
         "in down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj, as in "
         "model.layers.0.self_attn.q_proj"),
        ("llama", "far", r"targets.far: 'layers\\.9\\.' names no layer of this model's blocks"),
        ("llama", "head", "targets.head: 'lm_head' is lm_head, which gets no adapter: it is the "
         "output head"),
        ("llama", "any", "targets.any: '.' matches lm_head, which gets no adapter: it is the "
         "output head; narrow it"),
        ("bamba", "mamba", "targets.mamba: 'in_proj' is model.layers.0.mamba.in_proj, which gets "
         "no adapter: kernels of Mamba take the weights themselves"),
        ("qwen2_moe", "experts", "which gets no adapter: the experts of a block are one parameter"),
    ],
)  # fmt: skip
def test_a_set_that_is_not_what_it_says_is_refused_with_what_there_is(name, targets, sentence):
    own: OwnSets = {
        "typo": ("q_proj", "qproj"),
        "far": r"layers\.9\.",
        "head": ("q_proj", "lm_head"),
        "any": ".",
        "mamba": ("in_proj",),
        "experts": ("experts.gate_up_proj",),
    }
    model = model_of(name, "meta")
    ways = [find_layers(model), architecture_of(config_of(name)).linear]
    for found in ways:
        with pytest.raises(ModelError) as caught:
            coverage(found, own, [targets])
        assert sentence in str(caught.value)


def notes(name: str, *sets: str, own: OwnSets | None = None) -> list[str]:
    return coverage_notes(coverage(found_in(name), own or {}, sets), own or {})


def test_dense_models_need_no_notes_and_partial_sets_are_said():
    assert notes("llama", "attention", "mlp", "all", "qv") == []
    mlp, left, routers = notes("qwen2_moe", "attention", "mlp")
    assert re.fullmatch(r"'mlp' is \d+(\.\d+)?% of the model's mlp weights, since the rest .*", mlp)
    assert left.startswith("in no set of targets: mlp.experts.gate_up_proj (")
    assert "of the linear weights, since the experts of a block are one parameter" in left
    assert routers.startswith("in no set of targets: mlp.gate (")
    assert routers.endswith("of the linear weights, since it routes tokens to experts")
    (fused,) = notes("minimax", "qv")[:1]
    assert fused == "'qv' finds no layer for values alone in 1 of the blocks with attention"


def test_a_set_of_ones_own_is_said_with_its_blocks_and_share():
    own: OwnSets = {"upper": ("up_proj",), "last": r"layers\.1\..*_proj"}
    upper, last = notes("llama", "upper", "last", own=own)
    assert upper == "'upper' is the set up_proj: 2 layers in blocks 0-1, 20% of the linear weights"
    assert last.startswith(r"'last' is the set layers\.1\..*_proj: 7 layers in block 1, 50% of")


OWN: OwnSets = {"upper": ("up_proj", "o_proj"), "last": r"layers\.1\..*(q|down)_proj"}
SEVERAL = [
    LoraHyperparameters(rank=3, targets="upper"),
    LoraHyperparameters(rank=9, targets="all", alpha=7.5),
    LoraHyperparameters(rank=2, targets="last"),
    LoraHyperparameters(rank=4, targets="upper"),
    LoraHyperparameters(rank=8, targets="attention", alpha="rslora:4"),
]


def losses_of(logits_BTV: torch.Tensor, ids_BT: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), ids_BT[:, 1:].flatten())


def alone_in_peft(
    name: str, layers: tuple[AdapterLayer, ...], adapter: Adapter, ids_BT: torch.Tensor
) -> tuple[torch.Tensor, dict[str, torch.Tensor | None]]:
    """Compute logits and gradients of one adapter by PEFT's own layers."""
    base = model_of(name).requires_grad_(False).eval()
    insert_adapter(base, layers, adapter.hyperparameters, 0)
    parameters = adapter_of(base)
    for full, value in adapter.named().items():
        parameters[full].data.copy_(value)
    logits = base(ids_BT).logits
    losses_of(logits, ids_BT).backward()
    return logits, {full: parameter.grad for full, parameter in parameters.items()}


@pytest.mark.parametrize("name", ["llama", "deepseek_v2", "qwen3_next", "gemma3", "bamba"])
def test_sets_of_ones_own_train_side_by_side_as_each_alone_in_peft(name):
    packed = PackedModel(model_of(name).requires_grad_(False).eval(), torch.device("cpu"), OWN)
    adapters = packed.stack([packed.adapter(one, seed) for seed, one in enumerate(SEVERAL)])
    generator = torch.Generator().manual_seed(0)
    for adapter in adapters:
        for full, value in adapter.named().items():
            if "lora_B" in full:
                value.copy_(0.1 * torch.randn(value.shape, generator=generator))
    ids_BT = torch.cat([(IDS_BT + 7 * i) % 261 for i in range(len(adapters))])
    with packed.route([TrialRows(adapter) for adapter in adapters]) as model:
        parts = model(ids_BT).logits.split(2)
        own = list(zip(parts, ids_BT.split(2), strict=True))
        torch.autograd.backward([losses_of(part, ids) for part, ids in own])
    for adapter, (logits, ids) in zip(adapters, own, strict=True):
        expected, gradients = alone_in_peft(name, adapter.layers, adapter, ids)
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
        found = adapter.views(adapter.gradients_P)
        assert found.keys() == gradients.keys()
        for full, gradient in gradients.items():
            assert gradient is not None
            torch.testing.assert_close(found[full], gradient, atol=1e-6, rtol=1e-3)


def test_a_layer_is_placed_by_the_layers_beside_it_where_nothing_else_says_where():
    def block(*names: str) -> nn.Module:
        return nn.ModuleDict({name: nn.Linear(2, 2) for name in names})

    blocks = [block("q_proj", "out_proj"), block("fc1", "dense"), block("in_proj", "out_proj")]
    layers = find_layers(nn.ModuleDict({"blocks": nn.ModuleList(blocks)})).layers
    assert [layer.section for layer in layers] == ["attention"] * 2 + ["mlp"] * 2 + [""] * 2


def test_an_expert_that_is_a_layer_gets_no_adapter_since_it_sees_its_own_tokens_only():
    def mlp() -> nn.Module:
        return nn.ModuleDict({"w1": nn.Linear(2, 2), "w2": nn.Linear(2, 2), "w3": nn.Linear(2, 2)})

    moe = nn.ModuleDict({"experts": nn.ModuleList([mlp(), mlp()]), "gate": nn.Linear(2, 2)})
    block = nn.ModuleDict({"block_sparse_moe": moe, "attn": nn.ModuleDict({"wq": nn.Linear(2, 2)})})
    found = find_layers(nn.ModuleDict({"layers": nn.ModuleList([block])}))
    assert {layer.name: layer.section for layer in found.layers} == {
        "layers.0.block_sparse_moe.gate": "",
        "layers.0.attn.wq": "attention",
    }
    assert {out.section for out in found.left_out} == {"mlp", "gate"}


def test_the_table_of_families_is_up_to_date():
    generated = runpy.run_path(str(ROOT / "docs" / "generate_targets.py"))
    assert len(generated["FAMILIES"]) > 60
    page = (ROOT / "docs" / "targets.md").read_text(encoding="utf-8")
    assert generated["page"]() == page
