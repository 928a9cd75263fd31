import json
import shutil

import pytest
import torch

from lorasweep import testbed
from lorasweep.errors import ModelError
from lorasweep.model.base import base_path, compute_dtype, load_base, load_tokenizer, read_facts
from lorasweep.spec.sweep import ModelSpec

CPU = torch.device("cpu")
FAMILIES = ["llama", "qwen2", "gpt2", "gpt_neox"]


@pytest.fixture
def broken(family, tmp_path):
    """A copy of a valid folder, to be broken."""
    shutil.copytree(family("llama"), tmp_path / "model")
    return tmp_path / "model"


def spec_of(folder, **fields):
    return ModelSpec(path=str(folder), **fields)


def refusal(load, *arguments):
    with pytest.raises(ModelError) as caught:
        load(*arguments)
    sentence = str(caught.value)
    assert sentence.startswith("model.path: ")
    assert "\n" not in sentence
    return sentence


def edit_config(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(("dtype", "expected"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_a_base_is_loaded_frozen_in_the_dtype_asked_for(family, name, dtype, expected):
    model = load_base(spec_of(family(name), dtype=dtype), CPU)
    parameters = list(model.parameters())
    assert parameters
    assert not any(parameter.requires_grad for parameter in parameters)
    assert {parameter.dtype for parameter in parameters} == {expected}
    assert {parameter.device for parameter in parameters} == {CPU}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_base_has_no_dropout_of_its_own_even_in_training(family, name, attention):
    model = load_base(spec_of(family(name), attention=attention), CPU).train()
    ids = torch.arange(8)[None]
    assert model(ids).logits.equal(model(ids).logits)


def test_the_configuration_had_dropout_before_loading(family):
    from transformers import AutoModelForCausalLM

    ids = torch.arange(8)[None]
    usual = AutoModelForCausalLM.from_pretrained(str(family("gpt2"))).train()
    assert not usual(ids).logits.equal(usual(ids).logits)
    base = load_base(spec_of(family("gpt2"), dtype="fp32"), CPU)
    assert base(ids).logits.equal(usual.eval()(ids).logits)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_facts_of_a_base_are_read_without_its_weights(family, name):
    facts = read_facts(spec_of(family(name)))
    assert facts.model_type == name
    assert (facts.hidden_size, facts.positions, facts.vocabulary) == (16, 32, 261)


def test_the_dtype_is_bf16_only_on_a_gpu_that_supports_it(monkeypatch):
    gpu = torch.device("cuda")
    assert compute_dtype(ModelSpec(), CPU) == torch.float32
    for fast, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda fast=fast: fast)
        assert compute_dtype(ModelSpec(), gpu) == expected
        assert compute_dtype(ModelSpec(dtype="fp32"), gpu) == torch.float32


def test_a_path_is_the_testbed_a_folder_or_a_hub_name(family):
    assert base_path(ModelSpec(path="testbed")) == str(testbed.MODEL)
    assert base_path(spec_of(family("llama"))) == str(family("llama"))
    assert base_path(ModelSpec(path="org/model")) == "org/model"


@pytest.mark.parametrize("load", [read_facts, load_tokenizer, lambda spec: load_base(spec, CPU)])
@pytest.mark.parametrize("place", ["missing", "empty"])
def test_a_folder_without_a_model_is_refused(tmp_path, load, place):
    (tmp_path / "empty").mkdir()
    words = refusal(load, spec_of(tmp_path / place))
    assert f"must be a Hugging Face folder with a config.json, got '{tmp_path / place}'" in words


def test_pickled_weights_are_refused(broken):
    (broken / "model.safetensors").rename(broken / "pytorch_model.bin")
    assert "must hold its weights as safetensors" in refusal(load_base, spec_of(broken), CPU)


def test_truncated_weights_are_refused(broken):
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "the weights of" in refusal(load_base, spec_of(broken), CPU)


@pytest.mark.parametrize("text", ["{", "{}", '{"model_type": "no-such-type"}'])
def test_a_configuration_that_says_nothing_is_refused(broken, text):
    (broken / "config.json").write_text(text)
    assert "the configuration of" in refusal(read_facts, spec_of(broken))


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, "T5For"),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "BertForMaskedLM"),
        ({"model_type": "clip", "architectures": None}, "clip"),
        (
            {"model_type": "bart", "architectures": ["BartForConditionalGeneration"]},
            "BartForConditionalGeneration",
        ),
        ({"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification"),
    ],
)
def test_a_model_that_is_not_causal_is_refused(broken, fields, kind):
    edit_config(broken, **fields)
    words = refusal(read_facts, spec_of(broken))
    assert f"must be a causal language model, got a '{kind}" in words


def test_a_configuration_without_architectures_is_judged_by_its_type(broken):
    edit_config(broken, architectures=None)
    assert read_facts(spec_of(broken)).model_type == "llama"


def test_a_tokenizer_without_padding_pads_with_its_end_of_text_token(family, broken):
    path = broken / "tokenizer_config.json"
    config = json.loads(path.read_text())
    del config["pad_token"]
    path.write_text(json.dumps(config))
    tokenizer = load_tokenizer(spec_of(broken))
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 1
    assert tokenizer("ab")["input_ids"] == load_tokenizer(spec_of(family("llama")))("ab").input_ids


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gpt2", "gpt_neox"])
def test_a_folder_without_a_tokenizer_is_refused(family, tmp_path, model_type):
    folder = tmp_path / "bare"
    shutil.copytree(family(model_type), folder, ignore=shutil.ignore_patterns("token*"))
    words = refusal(load_tokenizer, spec_of(folder))
    assert "tokenizer" in words


def test_a_tokenizer_whose_end_of_text_token_is_not_embedded_is_refused(broken):
    edit_config(broken, vocab_size=1)
    words = refusal(load_tokenizer, spec_of(broken))
    assert "must have an end-of-text token below the model's 1 embedded tokens, got 1" in words
