"""The loss of a trial: mean cross-entropy per response token.

Shape legend: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lorasweep.data.batches import IGNORED, MicroBatch


def token_loss_sum(model: Any, batch: MicroBatch, device: torch.device) -> Tensor:
    """Sum the cross-entropy, in nats, over the tokens of a micro-batch that carry loss.

    A sum, not a mean: dividing by the token count of the whole step makes the gradient independent
    of how the step was cut into micro-batches and dealt to workers.
    """
    ids_BT, labels_BT = batch.ids_BT.to(device), batch.labels_BT.to(device)
    logits_BTV = model(input_ids=ids_BT, use_cache=False).logits
    return functional.cross_entropy(
        logits_BTV[:, :-1].flatten(0, 1).float(),
        labels_BT[:, 1:].flatten(),
        ignore_index=IGNORED,
        reduction="sum",
    )
