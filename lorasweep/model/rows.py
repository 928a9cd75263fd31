"""Facts about a loaded model that decide how batches are laid out: sizes, costs, shared rows.

Shape legend: B rows, T tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lorasweep.model.shape import positions_of


def shares_rows(base: Any, device: torch.device) -> bool:
    """Check whether attention keeps apart several examples in one row, each at positions from 0.

    Tried out on the model: the logits of the second of two examples must be those it has in a row
    of its own, whatever the first example is. An attention kernel or model class that ignores
    position resets fails this.
    """
    ids_BT = torch.arange(36, device=device).remainder_(vocabulary_of(base)).view(3, 12)
    first, second, other = ids_BT
    rows_BT = torch.stack([torch.cat([first, second]), torch.cat([other, second])])
    one = torch.arange(12, device=device)
    training = base.training
    base.eval()
    try:
        with torch.no_grad():
            alone = _logits(base, second[None], one[None])[0]
            shared = _logits(base, rows_BT, one.repeat(2, 2))[:, 12:]
    except TypeError:  # the model takes no positions
        return False
    finally:
        base.train(training)
    scale = float(alone.std())
    # Two rows of one width can differ only if the second example sees the first. A row of another
    # width may take another kernel, which in bf16 rounds visibly differently; wrong positions
    # would move the logits by far more.
    apart = float((shared[0] - shared[1]).abs().max())
    moved = float((shared[0] - alone).abs().max())
    return apart < 1e-5 * scale and moved < 0.05 * scale


def _logits(base: Any, ids_BT: Tensor, positions_BT: Tensor) -> Tensor:
    logits: Tensor = base(input_ids=ids_BT, position_ids=positions_BT, use_cache=False).logits
    return logits.float()


def attention_cost(base: Any) -> float:
    """Estimate the cost of attending to one more token, relative to all other work for a token.

    Both in multiply-adds of a forward pass: two products of the hidden size in each layer, over
    one for each weight.
    """
    text = base.config.get_text_config()
    weights = sum(numel(parameter) for parameter in base.parameters())
    return 2 * float(text.num_hidden_layers * text.hidden_size) / weights


def cache_bytes(base: Any) -> int:
    """Bound the bytes that one row takes in the key-value cache, at its longest."""
    text = base.config.get_text_config()
    # Keys and values of every head; grouped-query attention caches fewer.
    numbers = 2 * text.num_hidden_layers * text.hidden_size * positions_of(text)
    return int(numbers * next(base.parameters()).element_size())


def numel(parameter: Tensor) -> int:
    """Count the numbers of a parameter, also if DeepSpeed keeps only a shard on this worker."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def vocabulary_of(base: Any) -> int:
    """Count the tokens that a model embeds."""
    return int(base.config.get_text_config().vocab_size)


def forward_inputs(
    ids_BT: Tensor, positions_BT: Tensor, device: torch.device, *, shared: bool
) -> dict[str, Tensor | bool]:
    """Collect the arguments of a training forward pass.

    Args:
        positions_BT: of each token in its example; passed on only where examples share rows, since
            some models take none.
        shared: whether examples share rows.
    """
    inputs: dict[str, Tensor | bool] = {"input_ids": ids_BT.to(device), "use_cache": False}
    if shared:
        inputs["position_ids"] = positions_BT.to(device)
    return inputs
