import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from lorasweep import testbed
from lorasweep.errors import LorasweepError, ModelError
from lorasweep.evaluate.spectra.weights import Weights, base_folder, layer_number
from lorasweep.spec.sweep import ModelSpec

Q = "model.layers.0.self_attn.q_proj.weight"


def write(folder, tensors, name="model.safetensors"):
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / name)
    return folder


def test_one_file_and_shards_are_read_alike(tmp_path):
    one, two = torch.arange(6.0).view(2, 3), torch.ones(4, dtype=torch.bfloat16)
    whole = write(tmp_path / "whole", {"one": one, "two": two})
    parts = write(tmp_path / "parts", {"one": one}, "model-00001-of-00002.safetensors")
    write(parts, {"two": two}, "model-00002-of-00002.safetensors")
    index = {"one": "model-00001-of-00002.safetensors", "two": "model-00002-of-00002.safetensors"}
    (parts / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    for weights in (Weights(whole), Weights(parts)):
        assert sorted(weights.files) == ["one", "two"]
        assert torch.equal(weights.read("one"), one)
        assert weights.read("two").dtype == torch.bfloat16


@pytest.mark.parametrize("held", ["h.0.attn.c_attn.weight", "a.b.h.0.attn.c_attn.weight"])
def test_a_name_is_found_whatever_stands_before_the_blocks(tmp_path, held):
    weights = Weights(write(tmp_path, {held: torch.ones(2, 2)}))
    assert weights.find("transformer.h.0.attn.c_attn.weight") == held
    assert weights.find(held) == held
    with pytest.raises(LorasweepError, match=r"h\.1\.attn.*must be in .*, found nothing"):
        weights.find("transformer.h.1.attn.c_attn.weight")


def test_a_name_that_could_be_two_is_not_guessed(tmp_path):
    names = ["text.layers.0.up.weight", "vision.layers.0.up.weight"]
    weights = Weights(write(tmp_path, {name: torch.ones(2, 2) for name in names}))
    assert weights.find(names[1]) == names[1]
    with pytest.raises(LorasweepError, match=r"found text\.layers.* and vision\.layers"):
        weights.find("model.layers.0.up.weight")


def test_the_number_of_a_layer_is_the_first_one_in_its_name():
    assert layer_number("model.layers.12.mlp.experts.3.up_proj") == 12
    assert layer_number("lm_head") is None


def test_a_folder_without_safetensors_is_refused(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(LorasweepError, match=r"must hold its weights as safetensors.*again with"):
        Weights(tmp_path)


def test_a_missing_shard_is_named(tmp_path):
    index = {"weight_map": {"one": "model-00001-of-00001.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(LorasweepError, match=r"lacks model-00001-of-00001\.safetensors"):
        Weights(tmp_path)


def test_damaged_files_are_named(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"no safetensors")
    with pytest.raises(
        LorasweepError, match=r"model\.safetensors'?: must be an undamaged safetensors"
    ):
        Weights(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("{")
    with pytest.raises(LorasweepError, match=r"index\.json'?: must be readable JSON"):
        Weights(tmp_path)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.tensor([[1.0, float("nan")]]), r"q_proj.*must be finite"),
        (torch.tensor([[1.0, float("-inf")]]), r"q_proj.*must be finite"),
        (torch.ones(2, 2, dtype=torch.int8), r"q_proj.*unquantised, got int8"),
    ],
)
def test_weights_that_say_nothing_are_refused(tmp_path, tensor, message):
    weights = Weights(write(tmp_path, {Q: tensor}))
    with pytest.raises(LorasweepError, match=message):
        weights.read(Q)


def test_a_local_base_is_its_own_folder(tmp_path):
    assert base_folder(ModelSpec()) == testbed.MODEL
    copied = tmp_path / "copied"
    shutil.copytree(testbed.MODEL, copied)
    assert base_folder(ModelSpec(path=str(copied))) == copied


class Hub:
    """Fake the hub: its snapshot is local only after the first download."""

    def __init__(self, folder, is_cached):
        self.folder, self.is_cached, self.asked = folder, is_cached, []

    def snapshot_download(self, name, *, revision, allow_patterns, local_files_only):
        assert (name, revision) == ("some/model", "v2")
        assert "model.safetensors" in allow_patterns
        self.asked.append("cache" if local_files_only else "hub")
        if local_files_only and not self.is_cached:
            raise FileNotFoundError("not in the cache")
        return str(self.folder)


@pytest.mark.parametrize(("is_cached", "asked"), [(True, ["cache"]), (False, ["cache", "hub"])])
def test_the_hub_is_asked_only_for_what_is_not_here(monkeypatch, is_cached, asked):
    hub = Hub(testbed.MODEL, is_cached)
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub.snapshot_download)
    assert base_folder(ModelSpec(path="some/model", revision="v2")) == testbed.MODEL
    assert hub.asked == asked


def test_a_base_that_the_hub_has_no_safetensors_of_is_refused(monkeypatch, tmp_path):
    hub = Hub(tmp_path, is_cached=True)
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub.snapshot_download)
    with pytest.raises(ModelError, match=r"weights of 'some/model' cannot be loaded.*safetensors"):
        base_folder(ModelSpec(path="some/model", revision="v2"))
    assert hub.asked == ["cache", "hub"]
