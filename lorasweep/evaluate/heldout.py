"""Response loss and response accuracy on held-out examples, without generating a token.

Shape legend: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from lorasweep.data.batches import IGNORED, collate
from lorasweep.data.shard import Shard
from lorasweep.data.tokens import Tokens


@torch.no_grad()
def measure_heldout(
    model: Any, tokens: Tokens, *, batch_size: int, pad: int, shard: Shard, device: torch.device
) -> tuple[float, float]:
    """Measure a model on examples it was not trained on.

    Returns:
        Mean cross-entropy per response token in nats, and the share of response tokens that are the
        model's most likely one, given all true tokens before them.
    """
    was_training = model.training
    model.eval()
    lengths = np.diff(tokens.starts_N1)
    order = np.argsort(-lengths, kind="stable")[shard.worker :: shard.workers]
    sums = torch.zeros(3, dtype=torch.float64, device=device)
    for first in range(0, len(order), batch_size):
        batch = collate(tokens, order[first : first + batch_size], 0, pad)
        labels = batch.labels_BT[:, 1:].flatten().to(device)
        logits_BTV = model(input_ids=batch.ids_BT.to(device), use_cache=False).logits
        logits = logits_BTV[:, :-1].flatten(0, 1).float()
        kept = labels != IGNORED
        sums[0] += functional.cross_entropy(logits[kept], labels[kept], reduction="sum")
        sums[1] += (logits[kept].argmax(-1) == labels[kept]).sum()
        sums[2] += kept.sum()
    model.train(was_training)
    loss, right, count = shard.total(sums).tolist()
    return loss / count, right / count
