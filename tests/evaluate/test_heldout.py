from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lorasweep.data.shard import Shard
from lorasweep.data.tokens import Tokens
from lorasweep.evaluate.heldout import heldout_responses, measure_heldout
from lorasweep.model.served import Served
from tests.evaluate.taught import CPU, alone, load, serve
from tests.examples import examples, pack, prompted
from tests.workers import TwoWorkers


@pytest.fixture(scope="module")
def tokens(tiny_model: Path) -> Tokens:
    return examples(tiny_model)


def _of_copies(
    served: Served, tokens: Tokens, batch_size: int, pad: int, shard: Shard
) -> list[tuple[float, float]]:
    share = heldout_responses(tokens, batch_size=batch_size, pad=pad, shard=shard)
    return measure_heldout(served, share, shard=shard, device=CPU)


def _measure(
    folder: Path,
    tokens: Tokens,
    batch_size: int,
    shard: Shard = Shard(),  # noqa: B008
) -> tuple[float, float]:
    served, tokenizer = serve(folder)
    (measured,) = _of_copies(served, tokens, batch_size, tokenizer.pad_token_id, shard)
    return measured


def _by_hand(folder: Path, tokens: Tokens) -> tuple[float, float]:
    """Measure one example after another, token by token."""
    model, _ = load(folder)
    losses, right = [], []
    for row in range(len(tokens)):
        ids, prompt = prompted(tokens, row)
        logits = model(input_ids=torch.tensor(ids.tolist())[None]).logits[0]
        for i in range(max(prompt, 1), len(ids)):
            losses.append(-logits[i - 1].log_softmax(-1)[ids[i]].item())
            right.append(logits[i - 1].argmax().item() == ids[i])
    return sum(losses) / len(losses), sum(right) / len(right)


def test_held_out_loss_and_accuracy_equal_those_of_one_example_after_another(
    taught_model: Path, tokens: Tokens
):
    loss, accuracy = _by_hand(taught_model, tokens)
    assert _measure(taught_model, tokens, 7) == pytest.approx((loss, accuracy), rel=1e-6)


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_the_batch_size_changes_nothing(taught_model: Path, tokens: Tokens, batch_size: int):
    expected = _measure(taught_model, tokens, 16)
    assert _measure(taught_model, tokens, batch_size) == pytest.approx(expected, rel=1e-6)


def test_the_number_of_workers_changes_nothing(
    taught_model: Path, tokens: Tokens, two_workers: TwoWorkers
):
    alone = _measure(taught_model, tokens, 4)
    first, second = two_workers(_measure, taught_model, tokens, 4)
    assert first == second
    assert first == pytest.approx(alone, rel=1e-6)


def _rows_seen(folder: Path, tokens: Tokens, shard: Shard) -> int:
    served, tokenizer = serve(folder)
    rows: list[int] = []
    served._packed.base.register_forward_pre_hook(
        lambda _, __, inputs: rows.append(len(inputs["input_ids"])), with_kwargs=True
    )
    _of_copies(served, tokens, 4, tokenizer.pad_token_id, shard)
    return sum(rows)


def test_workers_share_the_examples(tiny_model: Path, tokens: Tokens, two_workers: TwoWorkers):
    assert two_workers(_rows_seen, tiny_model, tokens) == [len(tokens) // 2, len(tokens) // 2]


def test_a_worker_without_examples_adds_nothing(
    taught_model: Path, tokens: Tokens, two_workers: TwoWorkers
):
    ids, prompt = prompted(tokens, 0)
    single = pack([(ids.tolist(), prompt)])
    alone = _measure(taught_model, single, 4)
    for shared in two_workers(_measure, taught_model, single, 4):
        assert shared == pytest.approx(alone, rel=1e-6)


def test_a_model_that_knows_every_answer_predicts_every_response_token(
    taught_model: Path, taught_tokens: Tokens
):
    loss, accuracy = _measure(taught_model, taught_tokens, 4)
    assert accuracy == 1.0
    assert loss < 0.02


def test_a_response_of_other_tokens_than_the_likeliest_has_no_accuracy(
    taught_model: Path, taught_tokens: Tokens
):
    rows = [prompted(taught_tokens, row) for row in range(len(taught_tokens))]
    missed = [([*ids[:prompt].tolist(), int(ids[prompt]) - 1], prompt) for ids, prompt in rows]
    loss, accuracy = _measure(taught_model, pack(missed), 4)
    assert accuracy == 0.0
    assert loss > 1


def test_documents_carry_loss_from_their_second_token_on(taught_model: Path):
    document = pack([([5, 6, 7, 8], 0)])
    model, _ = load(taught_model)
    ids = torch.tensor([[5, 6, 7, 8]])
    expected = model(input_ids=ids, labels=ids).loss.item()
    assert _measure(taught_model, document, 4)[0] == pytest.approx(expected, rel=1e-6)
    assert document.loss_tokens_N.tolist() == [3]


@pytest.mark.parametrize("batch_size", [1, 16])
def test_a_copy_measures_the_same_in_any_company(
    taught_model: Path, tokens: Tokens, batch_size: int
):
    served, _ = serve(taught_model, copies=4)
    together = _of_copies(served, tokens, batch_size, 0, Shard())
    assert len(set(together)) == 4
    for measured, by_itself in zip(together, alone(served), strict=True):
        assert _of_copies(by_itself, tokens, batch_size, 0, Shard()) == [measured]


@pytest.mark.parametrize("training", [True, False])
def test_measuring_leaves_the_model_as_it_was(
    taught_model: Path, tokens: Tokens, *, training: bool
):
    served, tokenizer = serve(taught_model, copies=2)
    model = served._packed.base
    model.train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adapters = [adapter.weights_P.clone() for adapter in served._adapters]
    _of_copies(served, tokens, 8, tokenizer.pad_token_id, Shard())
    assert model.training is training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for adapter, weights in zip(served._adapters, adapters, strict=True):
        assert torch.equal(adapter.weights_P, weights)


def test_padding_is_never_seen(taught_model: Path, tokens: Tokens):
    served, _ = serve(taught_model, copies=2)
    losses = [_of_copies(served, tokens, 60, pad, Shard()) for pad in (0, 100)]
    assert len(set(np.diff(tokens.starts_N1))) > 1
    assert losses[0] == losses[1]


def test_only_the_tokens_with_loss_are_measured_of_a_conversation(taught_model: Path):
    ids, loss = [5, 6, 7, 8, 9, 10, 11, 12], [False, True, True, False, False, True, True, False]
    one = Tokens.pack([(ids, loss)])
    model, _ = load(taught_model)
    log = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    places = [place for place, has_loss in enumerate(loss) if has_loss]
    expected = -sum(float(log[place - 1, ids[place]]) for place in places) / len(places)
    right = sum(int(log[place - 1].argmax()) == ids[place] for place in places) / len(places)
    assert _measure(taught_model, one, 4) == pytest.approx((expected, right), rel=1e-6)
    # Beside examples of one response each, too.
    both = Tokens.pack([(ids, loss), (ids[:6], [False, False, True, True, True, True])])
    alone = Tokens.pack([(ids[:6], [False, False, True, True, True, True])])
    mean = (4 * expected + 4 * _measure(taught_model, alone, 4)[0]) / 8
    assert _measure(taught_model, both, 4)[0] == pytest.approx(mean, rel=1e-6)
