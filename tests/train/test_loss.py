from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.qwen2.modeling_qwen2 import Qwen2MLP

from lorasweep.data.batches import IGNORED, MicroBatch, collate
from lorasweep.data.tokens import Tokens
from lorasweep.spec.sweep import TrainSpec
from lorasweep.train.loss import token_loss_sum
from tests.train.trial import CPU, Trial, start


@pytest.fixture(scope="module")
def trial(tiny_model: Path, tokens: Tokens) -> Trial:
    return Trial(tiny_model, tokens)


@pytest.fixture
def model(trial: Trial) -> Any:
    """Give a model whose adapter is not zero, so that every part of it takes a gradient."""
    model, parameters, _ = start(trial)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def _batch(tokens: Tokens, *rows: int) -> MicroBatch:
    return collate(tokens, np.asarray(rows), 0, pad=0)


def test_the_mean_equals_the_loss_of_transformers(model: Any, tokens: Tokens):
    batch = _batch(tokens, 0, 1, 2, 3, 4)
    lengths = [len(tokens.example(row)[0]) for row in range(5)]
    assert len(set(lengths)) > 1  # some rows are padded
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    theirs = model(input_ids=batch.ids_BT, attention_mask=mask.long(), labels=batch.labels_BT).loss
    ours = token_loss_sum(model, batch, CPU) / int(tokens.targets_N[:5].sum())
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)


def test_the_sum_does_not_depend_on_how_rows_are_batched(model: Any, tokens: Tokens):
    together = token_loss_sum(model, _batch(tokens, *range(8)), CPU).item()
    alone = [token_loss_sum(model, _batch(tokens, row), CPU).item() for row in range(8)]
    assert together == pytest.approx(sum(alone), rel=1e-6)


def test_only_the_response_carries_loss(model: Any, tokens: Tokens):
    ids, prompt = tokens.example(3)
    logits = model(input_ids=torch.tensor(ids[None].astype(np.int64))).logits[0].log_softmax(-1)
    by_hand = -sum(logits[i - 1, ids[i]].item() for i in range(prompt, len(ids)))
    loss = token_loss_sum(model, _batch(tokens, 3), CPU)
    assert loss.item() == pytest.approx(by_hand, rel=1e-6)


def test_rows_without_a_response_token_have_no_loss(model: Any, tokens: Tokens):
    batch = _batch(tokens, 0)
    silent = replace(batch, labels_BT=torch.full_like(batch.labels_BT, IGNORED))
    assert token_loss_sum(model, silent, CPU).item() == 0


def _gradients(trial: Trial, batch: MicroBatch) -> dict[str, torch.Tensor]:
    model, parameters, _ = start(trial)
    with torch.no_grad():
        for name, parameter in parameters.items():
            if "lora_B" in name:
                parameter.add_(0.05)
    model.train()
    torch.manual_seed(5)
    torch.autograd.backward(token_loss_sum(model, batch, CPU))
    gradients = {name: p.grad for name, p in parameters.items() if p.grad is not None}
    assert gradients.keys() == parameters.keys()
    return gradients


# transformers 5.23 has a new name for it, which its first releases lack.
@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated:FutureWarning")
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_recomputing_activations_gives_the_same_gradients(
    trial: Trial, tokens: Tokens, dropout: float, monkeypatch: pytest.MonkeyPatch
):
    hyperparameters = trial.hyperparameters.model_copy(update={"dropout": dropout})
    trial = replace(trial, hyperparameters=hyperparameters)
    kept = _gradients(trial, _batch(tokens, 0, 1, 2))

    runs = []
    forward = Qwen2MLP.forward

    def counted(layer: Any, x: Any) -> Any:
        runs.append(layer)
        return forward(layer, x)

    monkeypatch.setattr(Qwen2MLP, "forward", counted)
    recomputed = _gradients(replace(trial, spec=TrainSpec(recompute=True)), _batch(tokens, 0, 1, 2))
    assert len(runs) == 2 * 2  # each of the two layers ran again in the backward pass
    for name, gradient in kept.items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(recomputed[name], gradient, rtol=0, atol=0)


def test_the_loss_of_a_bf16_base_is_summed_in_fp32(trial: Trial, tokens: Tokens):
    model, _, _ = start(replace(trial, dtype="bf16"))
    exact, _, _ = start(trial)
    batch = _batch(tokens, *range(8))
    loss = token_loss_sum(model, batch, CPU)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(token_loss_sum(exact, batch, CPU).item(), rel=1e-2)
