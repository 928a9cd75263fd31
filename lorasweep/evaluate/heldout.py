"""Response loss and response accuracy on held-out examples, by one forward pass."""

from __future__ import annotations

import numpy as np
import torch

from lorasweep.data.shard import Shard
from lorasweep.data.tokens import Tokens
from lorasweep.evaluate.continuations import Continuations
from lorasweep.model.served import Served


def heldout_responses(tokens: Tokens, *, batch_size: int, pad: int, shard: Shard) -> Continuations:
    """Select a worker's share of held-out examples, with all that follows a prompt a continuation.

    Of a document, everything after the first token counts as response. Of a conversation, what the
    user says between two answers is in the continuation and not scored.
    """
    lengths_N = np.diff(tokens.starts_N1)
    # Sorted before they are dealt, so that workers get equal amounts of work.
    order = np.argsort(-lengths_N, kind="stable")[shard.worker :: shard.workers]
    pairs, scored = [], []
    for row in order:
        ids, loss = tokens.example(int(row))
        first, last = (1 + np.flatnonzero(loss[1:]))[[0, -1]]
        pairs.append((ids[:first].tolist(), ids[first : last + 1].tolist()))
        scored.append(loss[first : last + 1])
    # Examples were cut to the model's length when they were tokenised.
    return Continuations(
        pairs, batch_size=batch_size, pad=pad, positions=int(lengths_N.max()), scored=scored
    )


def measure_heldout(
    served: Served, share: Continuations, *, shard: Shard, device: torch.device
) -> list[tuple[float, float]]:
    """Measure a model on examples it was not trained on.

    Args:
        share: this worker's examples.

    Returns:
        For each copy the mean cross-entropy per response token in nats, and the share of response
        tokens that are its most likely one, given all true tokens before them.
    """
    likelihoods = share.score(served, device)
    sums = torch.zeros(served.copies, 3, dtype=torch.float64)
    for copy in range(served.copies):
        sums[copy, 0] = -likelihoods.log_CN[copy].sum()
        sums[copy, 1] = int(likelihoods.correct_CN[copy].sum())
        sums[copy, 2] = int(share.lengths_N.sum())
    totals = shard.total(sums.to(device)).tolist()
    return [(loss / count, right / count) for loss, right, count in totals]
