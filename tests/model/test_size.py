"""Sizes of models and trials, against the tables of Biderman et al. and transformers itself."""

import pytest

from lorasweep.errors import ModelError
from lorasweep.model.published import PUBLISHED
from lorasweep.model.shape import FAMILIES
from lorasweep.model.size import (
    GIGABYTE,
    architecture_of,
    flops_per_token,
    full_memory,
    lora_memory,
    read_architecture,
)
from lorasweep.spec.sweep import ModelSpec
from lorasweep.spec.trial import LoraHyperparameters

LLAMA = PUBLISHED["meta-llama/Llama-2-7b-hf"]
SHARE = 27  # the rank at which adapters on all linear layers hold 1% of Llama-2-7B's parameters
GPUS = (1, 8, 16, 32, 64)
# Biderman et al. (2024, v2, appendix H): GB per GPU of a 7B model.
APPENDIX_H = {
    ("adamw", "full"): (112, 14, 7, 3.5, 1.75),
    ("adamw", "lora"): (15.12, 1.89, 0.945, 0.4725, 0.236),
    ("lion", "full"): (84, 10.5, 5.25, 2.625, 1.3125),
    ("lion", "lora"): (14.84, 1.855, 0.9275, 0.464, 0.232),
}
# The same on one GPU and, of 70B, on eight.
LARGER = [
    (70e9, "adamw", "full", 1, 1120),
    (70e9, "adamw", "full", 8, 140),
    (70e9, "adamw", "lora", 1, 151.2),
    (70e9, "adamw", "lora", 8, 18.9),
    (70e9, "lion", "full", 1, 840),
    (70e9, "lion", "full", 8, 105),
    (70e9, "lion", "lora", 1, 148.4),
    (70e9, "lion", "lora", 8, 18.55),
    (405e9, "adamw", "full", 1, 6480),
    (405e9, "adamw", "lora", 1, 874.8),
    (405e9, "lion", "full", 1, 4860),
    (405e9, "lion", "lora", 1, 858.6),
]


def gigabytes(parameters, trained, optimizer, method, gpus, stage=3):
    if method == "full":
        memory = full_memory(int(parameters), optimizer)
    else:
        memory = lora_memory(int(parameters), int(trained), optimizer)
    return memory.per_gpu(gpus, stage) / GIGABYTE


def test_the_parameters_of_llama_2_are_those_of_the_paper():
    assert LLAMA.parameters == pytest.approx(6.74e9, rel=5e-4)
    assert LLAMA.trainable(LoraHyperparameters(targets="attention", rank=1)) == 1_048_576
    assert LLAMA.trainable(LoraHyperparameters(targets="mlp", rank=1)) == 1_449_984
    assert LLAMA.trainable(LoraHyperparameters(targets="all", rank=1)) == 2_498_560


@pytest.mark.parametrize(
    ("rank", "targets", "millions"),
    [
        (16, "attention", 16.8),
        (16, "mlp", 23.2),
        (16, "all", 40.0),
        (64, "attention", 67.1),
        (64, "mlp", 92.8),
        (64, "all", 159.9),
        (256, "attention", 268.4),
        (256, "mlp", 371.2),
        (256, "all", 639.6),
        (2048, "all", 5117.1),
    ],
)
def test_the_adapters_are_those_of_the_papers_table(rank, targets, millions):
    assert LLAMA.trainable(LoraHyperparameters(targets=targets, rank=rank)) == pytest.approx(
        millions * 1e6, rel=5e-3
    )


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("meta-llama/Llama-2-13b-hf", 13.016),
        ("meta-llama/Llama-2-70b-hf", 68.977),
        ("meta-llama/Llama-3.1-8B", 8.030),
        ("meta-llama/Llama-3.1-70B", 70.554),
        ("meta-llama/Llama-3.1-405B", 405.854),
        ("meta-llama/Llama-3.2-1B", 1.236),
        ("meta-llama/Llama-3.2-3B", 3.213),
        ("mistralai/Mistral-7B-v0.1", 7.242),
        ("Qwen/Qwen2.5-0.5B", 0.494),
        ("Qwen/Qwen2.5-1.5B", 1.544),
        ("Qwen/Qwen2.5-7B", 7.616),
    ],
)
def test_published_models_have_the_parameters_on_their_cards(name, billions):
    assert PUBLISHED[name].parameters == pytest.approx(billions * 1e9, rel=5e-4)


@pytest.mark.parametrize(("optimizer", "method"), APPENDIX_H)
def test_state_memory_of_7b_is_that_of_appendix_h(optimizer, method):
    for gpus, table in zip(GPUS, APPENDIX_H[optimizer, method], strict=True):
        ours = gigabytes(7e9, 7e7, optimizer, method, gpus)
        assert round(ours, 3) == pytest.approx(table, abs=6e-4)  # the table's last digit is rounded


@pytest.mark.parametrize(("parameters", "optimizer", "method", "gpus", "table"), LARGER)
def test_state_memory_of_larger_models_is_that_of_appendix_h(
    parameters, optimizer, method, gpus, table
):
    ours = gigabytes(parameters, parameters / 100, optimizer, method, gpus)
    assert ours == pytest.approx(table, rel=1e-9)


@pytest.mark.parametrize(("optimizer", "method"), APPENDIX_H)
@pytest.mark.parametrize("gpus", GPUS)
def test_the_real_llama_2_is_within_5_percent_of_appendix_h(optimizer, method, gpus):
    trained = LLAMA.trainable(LoraHyperparameters(targets="all", rank=SHARE))
    assert trained / LLAMA.parameters == pytest.approx(0.01, rel=5e-3)
    table = APPENDIX_H[optimizer, method][GPUS.index(gpus)]
    ours = gigabytes(LLAMA.parameters, trained, optimizer, method, gpus)
    assert ours == pytest.approx(table, rel=0.05)


def test_a_stage_of_zero_shards_more_than_the_one_before():
    memory = full_memory(10**9, "adamw")
    on_eight = [memory.per_gpu(8, stage) / GIGABYTE for stage in range(4)]
    assert on_eight == pytest.approx([16, 9, 5.5, 2])
    assert [memory.per_gpu(1, stage) for stage in range(4)] == [16e9] * 4


def test_slots_share_the_base_and_nothing_else():
    one, eight = (lora_memory(10**9, 10**6, "adamw", slots=slots) for slots in (1, 8))
    assert one.per_gpu(1, 0) == 2e9 + 16e6
    assert eight.per_gpu(1, 0) == 2e9 + 8 * 16e6
    assert lora_memory(10**9, 0, "adamw", frozen_bytes=4).weights == 4e9


def test_lora_takes_slightly_over_two_thirds_of_the_flops():
    full = flops_per_token(LLAMA, "full", 0)
    assert full == 6 * (LLAMA.parameters - 32_000 * 4096 - 4096 * 65)  # embedding and norms apart
    share = (
        flops_per_token(LLAMA, "lora", LLAMA.trainable(LoraHyperparameters(targets="all", rank=16)))
        / full
    )
    assert 2 / 3 < share < 0.68
    # Attention scores, which are left out: as in Chowdhery et al. (2022, PaLM), appendix B.
    assert 12 * LLAMA.layers * LLAMA.hidden_size * 4096 / full == pytest.approx(0.16, abs=0.005)


def sizes(**changes):
    return {"vocab_size": 91, "hidden_size": 24, "num_hidden_layers": 2, **changes}


def configurations():
    from transformers import GPT2Config, GPTNeoXConfig, LlamaConfig, Qwen2Config, Qwen3Config

    heads = {"num_attention_heads": 4, "intermediate_size": 40}
    grouped = {**heads, "num_key_value_heads": 2}
    return {
        "llama": LlamaConfig(**sizes(**grouped)),
        "llama tied": LlamaConfig(**sizes(**heads, tie_word_embeddings=True)),
        "llama biased": LlamaConfig(
            **sizes(**grouped, attention_bias=True, mlp_bias=True, head_dim=8)
        ),
        "qwen2": Qwen2Config(**sizes(**grouped, tie_word_embeddings=True)),
        "qwen3": Qwen3Config(**sizes(**grouped, head_dim=8)),
        "gpt2": GPT2Config(vocab_size=91, n_embd=24, n_layer=2, n_head=4, n_positions=32),
        "gpt_neox": GPTNeoXConfig(**sizes(**heads)),
        "gpt_neox plain": GPTNeoXConfig(**sizes(**heads, attention_bias=False)),
    }


KINDS = [
    "llama",
    "llama tied",
    "llama biased",
    "qwen2",
    "qwen3",
    "gpt2",
    "gpt_neox",
    "gpt_neox plain",
]


@pytest.mark.parametrize("kind", KINDS)
def test_counts_from_a_configuration_are_those_of_the_model_and_its_peft_adapter(kind, monkeypatch):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from lorasweep.model.targets import target_modules

    config = configurations()[kind]
    shape = architecture_of(config)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        assert shape.parameters == sum(weight.numel() for weight in model.parameters())
        for targets in ("attention", "mlp", "all"):
            model = AutoModelForCausalLM.from_config(config)
            modules = target_modules(model, targets)
            fan = kind == "gpt2"
            adapter = LoraConfig(r=3, target_modules=modules, fan_in_fan_out=fan)
            trained = get_peft_model(model, adapter).get_nb_trainable_parameters()[0]
            assert shape.trainable(LoraHyperparameters(targets=targets, rank=3)) == trained
    # What transformers lays out agrees with the arithmetic, where both can be had.
    monkeypatch.delitem(FAMILIES, config.model_type)
    laid_out = architecture_of(config)
    assert laid_out.parameters == shape.parameters
    assert laid_out.multiplied == shape.multiplied
    assert laid_out.trainable(LoraHyperparameters(targets="all", rank=3)) == shape.trainable(
        LoraHyperparameters(targets="all", rank=3)
    )


def test_the_embedded_base_is_read_from_its_configuration():
    shape = read_architecture(ModelSpec())
    assert shape.parameters == 1_066_112
    assert (shape.positions, shape.published) == (256, False)


def test_a_published_model_that_is_not_on_this_machine_is_taken_from_the_table(
    monkeypatch, tmp_path
):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    shape = read_architecture(ModelSpec(path="meta-llama/Llama-2-7b-hf"))
    assert shape.published
    assert shape.parameters == LLAMA.parameters


def test_an_unknown_model_is_refused_in_one_sentence(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"^model\.path: the configuration of 'no/such'"):
        read_architecture(ModelSpec(path="no/such"))


def test_a_model_that_is_not_a_language_model_is_refused():
    from transformers import ViTConfig

    with pytest.raises(ModelError, match="must be a causal language model, got a 'vit'"):
        architecture_of(ViTConfig())
