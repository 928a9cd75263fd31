"""Forgetting without a task: does the tuned model still predict what the base predicts?

The base writes samples of its own distribution; a tuned model is asked, at every position of them,
for its most likely next token. The base agrees with itself everywhere, so its score is 1. This
needs no data and no hub, and is what `source: auto` falls back to.

Shape legend: C copies, B samples, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lorasweep.data.shard import Shard
from lorasweep.model.served import Served

SAMPLES = 64
SAMPLE_TOKENS = 64


@dataclass(frozen=True)
class BaseSamples:
    """Hold the base's own samples and its predictions on them.

    ids_BT: sampled token ids; predictions_BT: the base's most likely token after each of them.
    """

    ids_BT: NDArray[np.int64]
    predictions_BT: NDArray[np.int64]


def _batches(count: int, batch_size: int) -> list[slice]:
    return [slice(first, first + batch_size) for first in range(0, count, batch_size)]


@torch.no_grad()
def sample_base(
    model: Any, first_token: int, *, positions: int, batch_size: int, device: torch.device
) -> BaseSamples:
    """Sample from the base at temperature 1 from its first token on, with a fixed seed."""
    model.eval()
    torch.manual_seed(0)
    length = min(SAMPLE_TOKENS, positions)
    ids_BT = torch.full((SAMPLES, 1), first_token, dtype=torch.long, device=device)
    while ids_BT.shape[1] < length:
        step = [
            model(input_ids=ids_BT[part], use_cache=False).logits[:, -1].float().softmax(-1)
            for part in _batches(SAMPLES, batch_size)
        ]
        ids_BT = torch.cat([ids_BT, torch.multinomial(torch.cat(step), 1)], dim=1)
    predictions_BT = _predict(model, ids_BT, batch_size)[0]
    return BaseSamples(ids_BT.cpu().numpy(), predictions_BT.cpu().numpy())


def _predict(model: Any, ids_BT: torch.Tensor, batch_size: int, copies: int = 1) -> torch.Tensor:
    """Give the most likely token after each token of the samples, for every copy: C x B x T."""
    predicted = [
        model(input_ids=ids_BT[part].repeat(copies, 1), use_cache=False)
        .logits.argmax(-1)
        .unflatten(0, (copies, -1))
        for part in _batches(len(ids_BT), batch_size)
    ]
    return torch.cat(predicted, dim=1)


def base_agreement(
    served: Served, samples: BaseSamples, *, batch_size: int, shard: Shard, device: torch.device
) -> list[float]:
    """Give for each copy the share of positions at which it predicts the base's likeliest token."""
    mine = slice(shard.worker, None, shard.workers)
    ids_BT = torch.from_numpy(samples.ids_BT[mine].copy()).to(device)
    expected_BT = torch.from_numpy(samples.predictions_BT[mine].copy()).to(device)
    sums = torch.zeros(served.copies, 2, dtype=torch.float64, device=device)
    if len(ids_BT):
        with served.together() as model:
            predicted_CBT = _predict(model, ids_BT, batch_size, served.copies)
        sums[:, 0] = (predicted_CBT == expected_BT).sum((1, 2))
        sums[:, 1] = expected_BT.numel()
    return [agreed / count for agreed, count in shard.total(sums).tolist()]
