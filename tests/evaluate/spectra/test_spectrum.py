import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped] # it has no stubs
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from lorasweep import testbed
from lorasweep.analysis.tradeoff.spectral import is_rounded
from lorasweep.errors import LorasweepError
from lorasweep.evaluate.spectra.spectrum import BaseSpectra, spectrum_of_update
from lorasweep.model.lora import initial_adapter, save_adapter
from lorasweep.model.targets import adapter_layers
from lorasweep.spec.trial import LoraHyperparameters

BASE = testbed.MODEL
MODULES = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
Q = "model.layers.1.self_attn.q_proj"


@pytest.fixture(scope="module", autouse=True)
def _numpy_has_one_thread():
    """Compute with one thread: on a busy machine, two threads wait for each other."""
    with threadpool_limits(1):
        yield


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def perturbed(model, scale, seed=0):
    """Change every parameter of a model, later ones more than earlier ones."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for number, weight in enumerate(model.parameters()):
            size = scale * (1 + number / 10)
            weight.add_(size * torch.randn(weight.shape, generator=generator))
    return model


def matrices(folder):
    """Read a model's linear layers of the blocks as numpy arrays, outputs x inputs."""
    model = load(folder)
    found = {}
    for name, module in model.named_modules():
        if name.rpartition(".")[2].startswith("c_"):  # GPT-2
            found[name] = module.weight.detach().numpy().T.astype(np.float64)
        elif isinstance(module, torch.nn.Linear) and name != "lm_head":
            found[name] = module.weight.detach().numpy().astype(np.float64)
    return found


def rank_90(singular):
    squares = singular**2
    explained = np.cumsum(squares) / squares.sum()
    return next(k for k in range(1, len(squares) + 1) if explained[k - 1] >= 0.9)


def entropy_rank(singular):
    p = singular[singular > 1e-9 * singular[0]] / singular.sum()
    return np.exp(-(p * np.log(p)).sum())


def assert_right(row, base, update):
    """Compare a measured row with the same numbers from numpy."""
    pretrained, base_values, _ = np.linalg.svd(base, full_matrices=False)
    finetuned, tuned_values, _ = np.linalg.svd(base + update, full_matrices=False)
    update_values = np.linalg.svd(update, compute_uv=False)
    cosines = [np.abs(pretrained.T @ vector).max() for vector in finetuned.T[:10]]
    assert (row.outputs, row.inputs) == base.shape
    assert (row.update, row.base, row.tuned) == tuple(
        rank_90(values) for values in (update_values, base_values, tuned_values)
    )
    assert row.intruders == sum(cosine < 0.5 for cosine in cosines)
    assert row.effective == pytest.approx(entropy_rank(update_values), rel=1e-4)
    assert row.share == pytest.approx(np.linalg.norm(update) / np.linalg.norm(base), rel=1e-6)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned")
    perturbed(load(BASE), 0.02).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def spectrum(tuned):
    return spectrum_of_update(BASE, tuned)


def test_full_finetuning_is_measured_as_numpy_does(tuned, spectrum):
    before, after = matrices(BASE), matrices(tuned)
    assert {row.name for row in spectrum} == set(before)
    for row in spectrum:
        assert_right(row, before[row.name], after[row.name] - before[row.name])
    assert sum(row.intruders for row in spectrum) > 0


def test_matrices_come_by_layer_then_by_module(spectrum):
    expected = [(layer, module) for layer in range(4) for module in MODULES]
    assert [(row.layer, row.module) for row in spectrum] == expected


def test_shards_and_one_file_are_measured_alike(tuned, spectrum, tmp_path):
    load(tuned).save_pretrained(tmp_path, max_shard_size="500KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 3
    assert spectrum_of_update(BASE, tmp_path) == spectrum
    assert spectrum_of_update(tmp_path, tmp_path) == spectrum_of_update(tuned, tuned)


def test_what_is_kept_of_the_base_changes_nothing(tuned, spectrum):
    spectra, full = BaseSpectra(free=0.0), BaseSpectra(free=1.0)
    for _ in range(2):
        assert spectrum_of_update(BASE, tuned, spectra=spectra) == spectrum
        assert spectrum_of_update(BASE, tuned, spectra=full) == spectrum
    assert len(spectra._known) == len(spectrum)
    assert not full._known


def alone_and_shared(tuned, shard):
    """Measure alone, then with the other worker; also count the matrices this one measured."""
    spectra = BaseSpectra(free=0.0)
    shared = spectrum_of_update(BASE, tuned, spectra=spectra, shard=shard)
    return spectrum_of_update(BASE, tuned), shared, len(spectra._known)


def test_workers_measure_a_share_each_and_find_what_one_finds_alone(tuned, two_workers):
    for alone, shared, own in two_workers(alone_and_shared, tuned):
        assert shared == alone
        assert own == len(shared) / 2


def test_an_unchanged_model_has_no_update():
    for row in spectrum_of_update(BASE, BASE):
        assert (row.update, row.noise, row.effective, row.share, row.intruders) == (0, 0, 0, 0, 0)
        assert row.tuned == row.noisy == row.base > 0


def test_rounding_to_bf16_is_no_update(tmp_path):
    load(BASE).to(torch.bfloat16).save_pretrained(tmp_path)
    assert {row.update for row in spectrum_of_update(BASE, tmp_path)} == {0}


@pytest.mark.parametrize(("rms", "drowned"), [(1e-5, True), (3e-5, True), (1e-3, False)])
def test_how_much_of_an_update_is_rounding_is_known(tmp_path, rms, drowned):
    draw = torch.Generator().manual_seed(0)
    size, rank, name = 256, 4, "model.layers.0.self_attn.q_proj.weight"
    base = (torch.randn(size, size, generator=draw) * 0.02).bfloat16()
    added = torch.randn(size, rank, generator=draw) @ torch.randn(rank, size, generator=draw)
    tuned = base.float() + added * (rms / added.square().mean().sqrt())
    for folder, weight in (("base", base), ("whole", tuned), ("half", tuned.bfloat16())):
        (tmp_path / folder).mkdir()
        save_file({name: weight}, tmp_path / folder / "model.safetensors")
    (whole,) = spectrum_of_update(tmp_path / "base", tmp_path / "whole")
    (half,) = spectrum_of_update(tmp_path / "base", tmp_path / "half")
    assert whole.update <= rank
    assert whole.rounding < 1e-3
    assert is_rounded([half]) == drowned
    if drowned:  # and so its rank is that of rounding
        assert half.update > 10 * rank
    else:
        assert half.update <= rank


def test_the_noise_is_of_high_rank_and_hides_in_the_base(tuned, tmp_path):
    """Biderman et al. 2024, v2, section 6: spectra alike prove nothing about the update's rank."""
    model = load(BASE)
    generator = torch.Generator().manual_seed(1)
    for name, weight in model.named_parameters():
        if "proj" in name:
            rows, columns = weight.shape
            left = torch.randn(rows, 1, generator=generator)
            direction = left @ torch.randn(1, columns, generator=generator)
            weight.data += 0.1 * direction * weight.norm() / direction.norm()
    model.save_pretrained(tmp_path)
    low_rank = spectrum_of_update(BASE, tmp_path)
    high_rank = spectrum_of_update(BASE, tuned)
    for low, high in zip(low_rank, high_rank, strict=True):
        assert low.update == 1
        assert low.effective == pytest.approx(1, abs=0.01)
        assert low.share == pytest.approx(0.1, rel=1e-4)
        # Of a square Gaussian matrix a little over half of the rank explains nine tenths.
        assert low.noise == high.noise > 0.5 * min(low.outputs, low.inputs)
        assert abs(low.noisy - low.base) <= 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_measures_what_a_cpu_measures(tuned, spectrum):
    measured = spectrum_of_update(BASE, tuned, device=torch.device("cuda"))
    for there, here in zip(measured, spectrum, strict=True):
        assert there.effective == pytest.approx(here.effective)
        assert there.share == pytest.approx(here.share)
        exact = {"effective": 0.0, "share": 0.0}
        assert there.model_copy(update=exact) == here.model_copy(update=exact)


def test_only_projections_inside_of_blocks_are_measured(tmp_path):
    weights = load_file(BASE / "model.safetensors")
    names = ["lm_head.weight", "model.up_proj.weight", "model.layers.0.mlp.router.weight"]
    weights |= {name: torch.ones(3, 3) for name in names}
    save_file(weights, tmp_path / "model.safetensors")
    assert len(spectrum_of_update(BASE, tmp_path)) == 28


def adapter_of(model, folder, hyperparameters, targets="all", seed=0):
    """Save an adapter whose B is not zero, and compute its update of every layer."""
    layers = adapter_layers(model, targets)
    adapter = initial_adapter(layers, hyperparameters, seed)
    generator = torch.Generator().manual_seed(seed)
    products = {}
    for layer in layers:
        a, b = layer.shapes(hyperparameters)
        adapter[b] = 0.3 * torch.randn(adapter[b].shape, generator=generator)
        products[layer.name] = adapter[b].double() @ adapter[a].double()
    save_adapter(folder, adapter, layers, hyperparameters, "base")
    scaling = hyperparameters.scaling
    return {name: scaling * product.numpy() for name, product in products.items()}


@given(rank=st.integers(1, 24), rslora=st.booleans(), seed=st.integers(0, 3))
@settings(max_examples=6)
def test_an_adapter_is_measured_as_numpy_measures_the_formed_product(
    tmp_path_factory, rank, rslora, seed
):
    folder = tmp_path_factory.mktemp("adapter")
    hyperparameters = LoraHyperparameters(rank=rank, alpha="rslora:8" if rslora else 16)
    updates = adapter_of(load(BASE), folder, hyperparameters, "attention", seed)
    before = matrices(BASE)
    spectrum = spectrum_of_update(BASE, folder)
    assert {row.name for row in spectrum} == set(updates)
    for row in spectrum[::6]:
        assert_right(row, before[row.name], updates[row.name])
    assert all(row.update <= rank and row.effective <= rank * 1.001 for row in spectrum)


def test_an_adapter_of_peft_itself_is_measured_as_what_peft_adds(tmp_path):
    torch.manual_seed(0)
    config = LoraConfig(
        r=6,
        lora_alpha=4,
        use_rslora=True,
        target_modules=["q_proj", "up_proj"],
        rank_pattern={"q_proj": 2},
        init_lora_weights=False,
    )
    adapted = get_peft_model(load(BASE), config)
    adapted.save_pretrained(tmp_path)
    modules = dict(adapted.get_base_model().named_modules())
    before = matrices(BASE)
    spectrum = spectrum_of_update(BASE, tmp_path)
    assert [(row.layer, row.module) for row in spectrum] == [
        (layer, module) for layer in range(4) for module in ("q_proj", "up_proj")
    ]
    for row in spectrum:
        update = modules[row.name].get_delta_weight("default").detach().double().numpy()
        assert_right(row, before[row.name], update)
        assert row.update <= (2 if row.module == "q_proj" else 6)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """Make a model whose weights are inputs x outputs; attention's projection is square."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("gpt2")
    ends = {"bos_token_id": 0, "eos_token_id": 1, "vocab_size": 50}
    model = GPT2LMHeadModel(GPT2Config(**ends, n_embd=32, n_head=4, n_layer=2, n_positions=32))
    perturbed(model, 0.1, seed=3).save_pretrained(folder)
    return folder


def test_gpt2_is_measured_as_outputs_by_inputs(gpt2, tmp_path):
    perturbed(load(gpt2), 0.03, seed=7).save_pretrained(tmp_path)
    before, after = matrices(gpt2), matrices(tmp_path)
    spectrum = spectrum_of_update(gpt2, tmp_path)
    assert {row.name for row in spectrum} == set(before)
    for row in spectrum:
        assert_right(row, before[row.name], after[row.name] - before[row.name])
    shapes = {row.name: (row.outputs, row.inputs) for row in spectrum}
    assert shapes["transformer.h.0.attn.c_attn"] == (96, 32)
    assert shapes["transformer.h.1.mlp.c_proj"] == (32, 128)


def test_an_adapter_of_gpt2_is_laid_on_the_transposed_weight(gpt2, tmp_path):
    updates = adapter_of(load(gpt2), tmp_path, LoraHyperparameters(rank=3, alpha=12))
    before = matrices(gpt2)
    spectrum = spectrum_of_update(gpt2, tmp_path)
    assert {row.name for row in spectrum} == set(updates) == set(before)
    for row in spectrum:
        assert_right(row, before[row.name], updates[row.name])


def test_the_hubs_names_of_gpt2_are_found(gpt2, tmp_path):
    weights = load_file(gpt2 / "model.safetensors")
    short = {name.removeprefix("transformer."): weight for name, weight in weights.items()}
    save_file(short, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((gpt2 / "config.json").read_text())
    assert {row.update for row in spectrum_of_update(tmp_path, gpt2)} == {0}


def test_a_model_of_another_size_is_refused(gpt2, tmp_path):
    ends = {"bos_token_id": 0, "eos_token_id": 1, "vocab_size": 50}
    config = GPT2Config(**ends, n_embd=16, n_head=4, n_layer=2, n_positions=32)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    message = r"c_attn: must be a matrix of its base's shape \(32, 96\), got \(16, 48\)"
    with pytest.raises(LorasweepError, match=message):
        spectrum_of_update(gpt2, tmp_path)
    with pytest.raises(LorasweepError, match=r"down_proj.*must be in .*, found nothing like it"):
        spectrum_of_update(gpt2, BASE)


def changed_config(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "plain LoRA.*got peft_type 'IA3'"),
        ({"lora_alpha": None}, "with lora_alpha None"),
        ({"use_dora": True}, "plain LoRA.*with lora_alpha 4.0 and use_dora"),
        ({"alpha_pattern": {"q_proj": 4}}, "and alpha_pattern"),
        ({"fan_in_fan_out": True}, r"must be a matrix of its base's shape \(128, 352\)"),
    ],
)
def test_an_adapter_that_would_be_misread_is_refused(tmp_path, changes, message):
    adapter_of(load(BASE), tmp_path, LoraHyperparameters(rank=2), "mlp")
    changed_config(tmp_path, **changes)
    with pytest.raises(LorasweepError, match=message):
        spectrum_of_update(BASE, tmp_path)


def test_half_an_adapter_is_refused(tmp_path):
    adapter_of(load(BASE), tmp_path, LoraHyperparameters(rank=2))
    path = tmp_path / "adapter_model.safetensors"
    factors = load_file(path)
    del factors[f"base_model.model.{Q}.lora_B.weight"]
    save_file(factors, path)
    with pytest.raises(LorasweepError, match=r"layers\.1.*lora_B\.weight.*must be in"):
        spectrum_of_update(BASE, tmp_path)


def test_a_folder_without_known_layers_is_refused(tmp_path):
    save_file({"model.layers.0.mixer.weight": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    with pytest.raises(LorasweepError, match=r"must hold adapters .* q_proj.*neither"):
        spectrum_of_update(BASE, tmp_path)


def test_a_diverged_checkpoint_is_refused(tmp_path):
    weights = load_file(BASE / "model.safetensors")
    weights[f"{Q}.weight"][0, 0] = float("nan")
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(LorasweepError, match=r"layers\.1\.self_attn\.q_proj.*must be finite"):
        spectrum_of_update(BASE, tmp_path)
