"""What rows of examples cost a model, and whether several examples may share one.

Shape legend: B rows, T tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def shares_rows(base: Any, device: torch.device) -> bool:
    """Tell whether attention keeps apart examples in one row, each with positions from 0.

    Found out by asking: whether the second of two examples in a row is what it is in a row of its
    own, whatever the first one says.
    """
    vocabulary = int(base.config.get_text_config().vocab_size)
    ids_BT = torch.arange(36, device=device).remainder_(vocabulary).view(3, 12)
    first, second, other = ids_BT
    rows_BT = torch.stack([torch.cat([first, second]), torch.cat([other, second])])
    one = torch.arange(12, device=device)
    training = base.training
    base.eval()
    try:
        with torch.no_grad():
            alone = _logits(base, second[None], one[None])[0]
            shared = _logits(base, rows_BT, one.repeat(2, 2))[:, 12:]
    except TypeError:  # a model that takes no positions
        return False
    finally:
        base.train(training)
    scale = float(alone.std())
    apart = float((shared[0] - shared[1]).abs().max())
    moved = float((shared[0] - alone).abs().max())
    return apart < 1e-5 * scale and moved < 0.05 * scale


def _logits(base: Any, ids_BT: Tensor, positions_BT: Tensor) -> Tensor:
    logits: Tensor = base(input_ids=ids_BT, position_ids=positions_BT, use_cache=False).logits
    return logits.float()


def attention_cost(base: Any) -> float:
    """Give the cost of attending to one more token over that of all else done for a token.

    Both in multiply-adds of a forward pass: two products of the hidden size in each layer, and
    the weights.
    """
    text = base.config.get_text_config()
    # Where DeepSpeed shards a weight, this worker's share of it does not tell the size.
    weights = sum(int(getattr(p, "ds_numel", p.numel())) for p in base.parameters())
    return 2 * float(text.num_hidden_layers * text.hidden_size) / weights


def cache_bytes(base: Any) -> int:
    """Bound what keys and values of one row take, however long it grows."""
    text = base.config.get_text_config()
    positions = getattr(text, "max_position_embeddings", None) or 1024
    numbers = 2 * text.num_hidden_layers * text.hidden_size * positions
    return int(numbers * next(base.parameters()).element_size())
