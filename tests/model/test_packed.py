from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional

from lorasweep.data.batches import MicroBatch, collate
from lorasweep.data.tokens import Tokens
from lorasweep.errors import ModelError
from lorasweep.model.adapter import SMALLEST_BUCKET, Adapter, layer_tensors, rank_bucket
from lorasweep.model.base import load_base
from lorasweep.model.lora import initial_adapter, save_adapter
from lorasweep.model.packed import PackedCopies, PackedModel
from lorasweep.model.routing import TrialRows
from lorasweep.model.served import logits_at
from lorasweep.spec.sweep import ModelSpec
from lorasweep.spec.trial import LoraHyperparameters
from tests.examples import pack
from tests.workers import one_thread

__all__ = ["one_thread"]

CPU = torch.device("cpu")
FAMILIES = ["llama", "qwen2", "gpt2", "gpt_neox"]
IDS_BT = torch.tensor([[5, 9, 200, 17, 33, 250, 8, 1], [1, 2, 3, 5, 8, 13, 21, 34]])
# Two pairs of one shape, and one by itself, in no order that a stack would have.
SEVERAL = [
    LoraHyperparameters(rank=3, alpha="2r", targets="all"),
    LoraHyperparameters(rank=9, alpha=7.5, targets="mlp"),
    LoraHyperparameters(rank=2, alpha="rslora:4", targets="attention"),
    LoraHyperparameters(rank=8, alpha="1r", targets="all"),
    LoraHyperparameters(rank=16, alpha="rslora:8", targets="mlp"),
]


@pytest.fixture
def load(family: Callable[[str], Path]) -> Callable[..., Any]:
    def load_family(name: str, dtype: Any = "fp32", attention: Any = "sdpa") -> Any:
        spec = ModelSpec(path=str(family(name)), dtype=dtype, attention=attention)
        return load_base(spec, CPU)

    return load_family


def stir(adapter: Adapter, seed: int = 0) -> Adapter:
    """Fill B, which starts at zero, so that the adapter has an effect."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in adapter.named().items():
        if "lora_B" in name:
            value.copy_(0.1 * torch.randn(value.shape, generator=generator))
    return adapter


def several(packed: PackedModel, *which: LoraHyperparameters) -> list[Adapter]:
    """Make adapters with an effect, in the order in which a batch has them."""
    made = [stir(packed.adapter(h, seed), seed) for seed, h in enumerate(which or SEVERAL)]
    return packed.stack(made)


def repeated(adapters: list[Adapter]) -> Tensor:
    """Make rows for every adapter, no two the same."""
    return torch.cat([(IDS_BT + 7 * i) % 261 for i in range(len(adapters))])


def in_peft(load: Callable[..., Any], name: str, adapter: Adapter, folder: Path) -> Any:
    """Load an adapter into a plain base by PEFT's own means."""
    save_adapter(folder, adapter.named(), adapter.layers, adapter.hyperparameters, name)
    return PeftModel.from_pretrained(load(name), str(folder), is_trainable=True)


def losses_of(logits_BTV: Tensor, ids_BT: Tensor) -> Tensor:
    return functional.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), ids_BT[:, 1:].flatten())


def padded(adapter: Adapter) -> Tensor:
    """Collect the padding between the real rank and the bucket."""
    parts = []
    rank = adapter.hyperparameters.rank
    for _, (a_RI, b_OR) in layer_tensors(adapter.weights_P, adapter.layers, adapter.padded):
        parts += [a_RI[rank:].flatten(), b_OR[:, rank:].flatten()]
    return torch.cat(parts)


@pytest.mark.parametrize(
    ("rank", "bucket"), [(1, 8), (8, 8), (9, 16), (16, 16), (17, 32), (100, 128), (256, 256)]
)
def test_ranks_are_padded_to_powers_of_two_from_eight(rank, bucket):
    assert rank_bucket(rank) == bucket


@given(st.integers(1, 65536))
def test_a_bucket_is_the_smallest_that_fits_the_rank(rank):
    bucket = rank_bucket(rank)
    assert rank <= bucket
    assert bucket == SMALLEST_BUCKET or bucket < 2 * rank
    assert math.log2(bucket).is_integer()


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("rank", [1, 8, 11])
def test_an_adapter_is_pefts_with_zeros_up_to_its_bucket(load, name, rank):
    packed = PackedModel(load(name), CPU)
    adapter = packed.adapter(LoraHyperparameters(rank=rank), seed=5)
    expected = initial_adapter(adapter.layers, adapter.hyperparameters, 5)
    assert adapter.named().keys() == expected.keys()
    assert all(value.equal(expected[key]) for key, value in adapter.named().items())
    assert adapter.trainable == sum(value.numel() for value in expected.values())
    assert not padded(adapter).any()
    assert len(padded(adapter)) + adapter.trainable == len(adapter.weights_P)


def test_named_matrices_are_views_of_one_vector_and_its_gradient(load):
    packed = PackedModel(load("llama"), CPU)
    adapter = packed.adapter(LoraHyperparameters(rank=3), seed=0)
    assert adapter.named().keys() == adapter.views(adapter.gradients_P).keys()
    adapter.fill({name: torch.ones_like(value) for name, value in adapter.named().items()})
    for value in adapter.views(adapter.gradients_P).values():
        value.fill_(2)
    assert adapter.weights_P.sum() == adapter.trainable
    assert adapter.gradients_P.sum() == 2 * adapter.trainable
    assert not padded(adapter).any()


def test_targets_that_the_model_lacks_are_refused_only_when_a_trial_has_them():
    packed = PackedModel(nn.ModuleDict({"q_proj": nn.Linear(2, 2), "mix": nn.Linear(2, 2)}), CPU)
    assert packed.adapter(LoraHyperparameters(targets="attention"), 0).trainable == 16 * 4
    for targets in ("mlp", "all"):
        with pytest.raises(ModelError, match=f"{targets!r} finds no mlp layer in this model"):
            packed.adapter(LoraHyperparameters(targets=targets), 0)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_packed_base_alone_is_the_base_bit_for_bit(load, name):
    base = load(name)
    before = base(IDS_BT).logits
    packed = PackedModel(base, CPU)
    assert base(IDS_BT).logits.equal(before)
    packed.stack([packed.adapter(LoraHyperparameters(), 0)])
    with packed.route([]) as model:
        assert model(IDS_BT).logits.equal(before)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_fresh_adapter_does_not_change_the_base(load, name):
    before = load(name)(IDS_BT).logits
    packed = PackedModel(load(name), CPU)
    (adapter,) = packed.stack([packed.adapter(LoraHyperparameters(rank=4), 0)])
    with packed.route([TrialRows(adapter)]) as model:
        assert model(IDS_BT).logits.equal(before)
    with packed.route([TrialRows(stir(adapter))]) as model:
        assert not torch.allclose(model(IDS_BT).logits, before)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_row_goes_through_its_own_adapter_as_in_peft(load, name, tmp_path):
    packed = PackedModel(load(name), CPU)
    adapters = several(packed)
    ids_BT = repeated(adapters)
    with packed.route([TrialRows(adapter) for adapter in adapters]) as model, torch.no_grad():
        together = model(ids_BT).logits
    for i, adapter in enumerate(adapters):
        rows = slice(2 * i, 2 * i + 2)
        theirs = in_peft(load, name, adapter, tmp_path / str(i)).eval()
        with torch.no_grad():
            expected = theirs(ids_BT[rows]).logits
        torch.testing.assert_close(together[rows], expected, atol=1e-5, rtol=1e-5)
        with packed.route([]) as model, torch.no_grad():
            assert not torch.allclose(model(ids_BT[rows]).logits, expected, atol=1e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_adapter_gets_the_gradient_that_autograd_computes_in_peft(load, name, tmp_path):
    packed = PackedModel(load(name), CPU)
    adapters = several(packed)
    ids_BT = repeated(adapters)
    with packed.route([TrialRows(adapter) for adapter in adapters]) as model:
        parts = model(ids_BT).logits.split(2)
        losses = [losses_of(p, ids) for p, ids in zip(parts, ids_BT.split(2), strict=True)]
        torch.autograd.backward(losses)
    assert all(p.grad is None for p in packed.base.parameters())
    for i, adapter in enumerate(adapters):
        theirs = in_peft(load, name, adapter, tmp_path / str(i)).eval()
        own_BT = ids_BT[2 * i : 2 * i + 2]
        torch.autograd.backward(losses_of(theirs(own_BT).logits, own_BT))
        expected = {
            key.replace(".default", ""): parameter.grad
            for key, parameter in theirs.named_parameters()
            if parameter.requires_grad
        }
        found = adapter.views(adapter.gradients_P)
        assert found.keys() == expected.keys()
        for key, gradient in expected.items():
            assert gradient.abs().max() > 0
            torch.testing.assert_close(found[key], gradient, atol=1e-6, rtol=1e-4)
        total = sum(float(gradient.square().sum()) for gradient in expected.values())
        # So nothing has flowed into what is padded.
        assert float(adapter.gradients_P.square().sum()) == pytest.approx(total, rel=1e-5)


def test_gradients_of_several_passes_add_up(load):
    packed = PackedModel(load("llama"), CPU)
    adapters = several(packed)

    def passed(times: int) -> list[Tensor]:
        for adapter in adapters:
            adapter.gradients_P.zero_()
        for _ in range(times):
            with packed.route([TrialRows(adapter) for adapter in adapters]) as model:
                ids_BT = repeated(adapters)
                torch.autograd.backward(losses_of(model(ids_BT).logits, ids_BT))
        return [adapter.gradients_P.clone() for adapter in adapters]

    for once, twice in zip(passed(1), passed(2), strict=True):
        torch.testing.assert_close(twice, 2 * once)


def test_trials_may_have_any_number_of_rows(load):
    packed = PackedModel(load("qwen2"), CPU)
    adapters = several(packed, *SEVERAL[:3])
    rows = [3, 1, 2]
    ids_BT = torch.arange(6 * 8).view(6, 8)
    parts = [TrialRows(a, 8 * count) for a, count in zip(adapters, rows, strict=True)]
    with packed.route(parts) as model, torch.no_grad():
        together = model(ids_BT).logits.split(rows)
    for part, ids, found in zip(parts, ids_BT.split(rows), together, strict=True):
        with packed.route([TrialRows(part.adapter)]) as model, torch.no_grad():
            torch.testing.assert_close(found, model(ids).logits, atol=1e-6, rtol=1e-5)


def test_a_batch_is_refused_if_the_trials_rows_do_not_add_up_to_it(load):
    packed = PackedModel(load("llama"), CPU)
    adapters = several(packed)
    for parts in ([TrialRows(adapters[0], 8)], [TrialRows(adapter) for adapter in adapters]):
        with (
            packed.route(parts) as model,
            pytest.raises(ValueError, match="must add up to the batch"),
        ):
            model(IDS_BT)


def test_stacked_adapters_are_grouped_by_shape_and_keep_their_values(load):
    packed = PackedModel(load("llama"), CPU)
    made = [stir(packed.adapter(h, seed), seed) for seed, h in enumerate(SEVERAL)]
    before = [adapter.weights_P.clone() for adapter in made]
    vectors = [adapter.weights_P for adapter in made]
    order = packed.stack(made)
    shapes = [adapter.shape for adapter in order]
    assert shapes == sorted(shapes)
    assert {id(adapter) for adapter in order} == {id(adapter) for adapter in made}
    packed.stack(made[::2])
    packed.stack(made)
    for adapter, values, vector in zip(made, before, vectors, strict=True):
        assert adapter.weights_P is vector  # which the optimizer holds
        assert adapter.weights_P.equal(values)


def test_an_adapter_that_is_not_finite_affects_no_other(load):
    packed = PackedModel(load("gpt_neox"), CPU)
    adapters = several(packed)
    ids_BT = repeated(adapters)

    def passed() -> tuple[list[Tensor], list[Tensor]]:
        for adapter in adapters:
            adapter.gradients_P.zero_()
        with packed.route([TrialRows(adapter) for adapter in adapters]) as model:
            logits = model(ids_BT).logits.split(2)
            losses = [losses_of(p, ids) for p, ids in zip(logits, ids_BT.split(2), strict=True)]
            torch.autograd.backward(losses)
        return [p.detach() for p in logits], [a.gradients_P.clone() for a in adapters]

    logits, gradients = passed()
    for value in (math.nan, math.inf):
        adapters[2].weights_P.fill_(value)
        spoilt_logits, spoilt_gradients = passed()
        for i in range(len(adapters)):
            assert spoilt_logits[i].equal(logits[i]) == (i != 2)
            assert spoilt_gradients[i].equal(gradients[i]) == (i != 2)
        assert spoilt_logits[2].isnan().any()


@pytest.mark.parametrize("name", FAMILIES)
def test_dropout_applies_to_the_input_of_the_adapter_alone(load, name):
    packed = PackedModel(load(name), CPU)
    plain, dropped = several(packed, SEVERAL[0], SEVERAL[3])
    with packed.route(
        [TrialRows(plain), TrialRows(dropped, dropout=lambda _, i: torch.zeros(16, i))]
    ) as m:
        ids_BT = torch.cat([IDS_BT, IDS_BT])
        logits = m(ids_BT).logits
        torch.autograd.backward([losses_of(p, IDS_BT) for p in logits.split(2)])
    with packed.route([]) as model, torch.no_grad():
        assert logits[2:].equal(model(IDS_BT).logits)  # the base's own input is whole
    for key, gradient in dropped.views(dropped.gradients_P).items():
        assert not gradient.any(), key  # neither factor sees anything but zeros
    assert all(gradient.any() for gradient in plain.views(plain.gradients_P).values())


def test_dropout_is_drawn_by_layer_and_width(load):
    packed = PackedModel(load("llama"), CPU)
    (adapter,) = several(packed, LoraHyperparameters(rank=2, targets="mlp"))
    asked = []

    def factors(layer: int, inputs: int) -> Tensor:
        asked.append((layer, inputs))
        return torch.ones(16, inputs)

    with packed.route([TrialRows(adapter, dropout=factors)]) as model, torch.no_grad():
        model(IDS_BT)
    # Numbered by name among all that may be adapted: mlp.{down,gate,up}, then self_attn.{k,o,q,v}.
    assert sorted(asked) == [(0, 40), (1, 16), (2, 16), (7, 40), (8, 16), (9, 16)]


def examples(seed: int = 0, count: int = 6) -> Tokens:
    rng = np.random.default_rng(seed)
    lengths = [*rng.integers(3, 15, count - 1).tolist(), 16]
    return pack([(rng.integers(2, 261, n).tolist(), n // 3) for n in lengths])


def measured(packed: PackedModel, adapter: Adapter, batch: MicroBatch) -> tuple[float, Tensor]:
    """Compute loss and gradient of a micro-batch."""
    adapter.gradients_P.zero_()
    with packed.route([TrialRows(adapter)]) as model, logits_at(model, batch.logit_indices_K):
        logits_KV = model(
            input_ids=batch.ids_BT, position_ids=batch.positions_BT, use_cache=False
        ).logits[0]
        loss = functional.cross_entropy(logits_KV, batch.labels_K, reduction="sum")
        torch.autograd.backward(loss)
    return float(loss.detach()), adapter.gradients_P.clone()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", FAMILIES)
def test_examples_in_one_row_have_the_logits_they_have_in_rows_of_their_own(load, name, attention):
    packed = PackedModel(load(name, "fp32", attention), CPU)
    assert packed.shares_rows
    (adapter,) = several(packed, LoraHyperparameters(rank=4))
    tokens, rows = examples(), np.arange(6)
    apart = collate(tokens, rows, 0, 0, 16, shared=False)
    loss, gradient = measured(packed, adapter, apart)
    for width in (16, 24, 64):
        shared = collate(tokens, rows, 0, 0, width, shared=True)
        assert len(shared.ids_BT) < len(apart.ids_BT)
        other_loss, other_gradient = measured(packed, adapter, shared)
        assert other_loss == pytest.approx(loss, rel=1e-6)
        assert (other_gradient - gradient).norm() < 1e-5 * gradient.norm()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_half_precision_base_shares_rows_too(load, name):
    packed = PackedModel(load(name, "bf16"), CPU)
    packed.base.train()
    assert packed.shares_rows
    assert packed.base.training


def _without_positions(base: Any) -> Any:
    """Make a model attend across the examples of a row, since it does not look at positions."""
    forward = base.forward
    base.forward = lambda **inputs: forward(**{**inputs, "position_ids": None})
    return base


def _refusing_positions(base: Any) -> Any:
    forward = base.forward
    base.forward = lambda input_ids, use_cache=None: forward(input_ids, use_cache=use_cache)
    return base


@pytest.mark.parametrize("change", [_without_positions, _refusing_positions])
def test_a_model_that_attends_across_examples_shares_no_rows(load, change):
    packed = PackedModel(change(load("llama")), CPU)
    several(packed)
    assert not packed.shares_rows
    assert not packed.shares_rows


def test_a_bloom_shares_no_rows():
    from transformers import BloomConfig, BloomForCausalLM

    torch.manual_seed(0)
    config = BloomConfig(vocab_size=61, hidden_size=16, n_layer=1, n_head=2)
    assert not PackedModel(BloomForCausalLM(config).requires_grad_(False), CPU).shares_rows


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_at_some_tokens_are_those_of_the_whole_row(load, name):
    packed = PackedModel(load(name), CPU)
    with torch.no_grad(), packed.route([]) as model:
        whole = model(IDS_BT).logits.flatten(0, 1)
        logit_indices_K = torch.tensor([3, 0, 14, 14, 9])
        with logits_at(model, logit_indices_K):
            some = model(IDS_BT).logits
        assert some.shape == (1, 5, 261)
        torch.testing.assert_close(some[0], whole[logit_indices_K], atol=1e-6, rtol=1e-6)
        assert model(IDS_BT).logits.flatten(0, 1).equal(whole)  # and the head is as it was


@pytest.mark.parametrize("name", FAMILIES)
def test_copies_served_together_have_the_logits_of_each_alone_and_of_peft(load, name, tmp_path):
    packed = PackedModel(load(name), CPU)
    adapters = several(packed)
    served = PackedCopies(packed, adapters)
    assert served.copies == len(adapters)
    packed.base.train()
    with served.all_copies() as model:
        assert not model.training
        together = model(IDS_BT.repeat(len(adapters), 1)).logits
        assert not together.requires_grad
    assert packed.base.training
    for i, adapter in enumerate(adapters):
        with served.one_copy(i) as model:
            alone = model(IDS_BT).logits
        torch.testing.assert_close(together[2 * i : 2 * i + 2], alone, atol=1e-6, rtol=1e-5)
        theirs = in_peft(load, name, adapter, tmp_path / str(i)).eval()
        with torch.no_grad():
            torch.testing.assert_close(alone, theirs(IDS_BT).logits, atol=1e-5, rtol=1e-5)


def test_a_base_served_without_adapters_is_one_copy_of_itself(load):
    expected = load("llama")(IDS_BT).logits
    packed = PackedModel(load("llama"), CPU)
    several(packed)
    served = PackedCopies(packed)
    assert served.copies == 1
    for given_model in (served.all_copies(), served.one_copy(0)):
        with given_model as model:
            assert model(IDS_BT).logits.equal(expected)


def test_an_evaluation_that_fails_leaves_the_base_in_training(load):
    packed = PackedModel(load("llama"), CPU)
    adapters = several(packed)
    packed.base.train()
    with pytest.raises(RuntimeError, match="too long"), PackedCopies(packed, adapters).all_copies():
        raise RuntimeError("too long")
    assert packed.base.training
    with packed.route([]) as model:
        model(IDS_BT)


def test_serving_between_two_halves_of_a_step_changes_no_gradient(load):
    packed = PackedModel(load("llama"), CPU)
    adapters = several(packed)
    before = [adapter.gradients_P.clone() for adapter in adapters]
    with PackedCopies(packed, adapters[1:3]).all_copies() as model:
        model(IDS_BT)
    assert all(a.gradients_P.equal(b) for a, b in zip(adapters, before, strict=True))


def test_the_facts_that_choose_a_width_are_those_of_the_model(load):
    packed = PackedModel(load("llama"), CPU)
    weights = sum(p.numel() for p in load("llama").parameters())
    assert packed.vocabulary == 261
    assert packed.attention_cost == pytest.approx(2 * 2 * 16 / weights)
