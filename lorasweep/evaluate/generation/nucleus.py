"""Draw tokens from a model's predictions, each by a number that is drawn already.

Shape legend: R rows, V vocabulary, K likeliest tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

SHORTLIST = 64  # tokens that are looked at before the whole vocabulary is sorted


def draw(logits_RV: Tensor, uniforms_R: Tensor, *, temperature: float, top_p: float) -> Tensor:
    """Draw a token for each row from its nucleus (Holtzman et al. 2020, section 3.1).

    The nucleus is the smallest set of likeliest tokens that together have the probability `top_p`;
    of two equally likely ones the lower id comes first. A row's token depends on that row alone.

    Args:
        uniforms_R: in [0, 1), where to cut the nucleus's cumulative distribution.
        temperature: divides the logits; 0 takes the likeliest token.

    Returns:
        Token ids: R. A row of NaN gives some token.
    """
    if temperature == 0:
        return logits_RV.argmax(-1)
    likely_RV = (logits_RV.float() / temperature).softmax(-1)
    likely_RK, ids_RK = likely_RV.topk(min(SHORTLIST, likely_RV.shape[-1]))
    # Whatever order topk gives to equals: by id first, then stably by probability.
    ids_RK, order_RK = ids_RK.sort(-1)
    likely_RK, order_RK = likely_RK.gather(-1, order_RK).sort(dim=-1, descending=True, stable=True)
    drawn_R = _pick(likely_RK, ids_RK.gather(-1, order_RK), uniforms_R, top_p)
    # Of tokens as likely as the last one on the list, some may not stand on it.
    sure_RK = likely_RK * (likely_RK > likely_RK[:, -1:])
    wide_R = ~(sure_RK.double().sum(-1) >= top_p)
    if wide_R.any():
        likely_RV, ids_RV = likely_RV[wide_R].sort(dim=-1, descending=True, stable=True)
        drawn_R[wide_R] = _pick(likely_RV, ids_RV, uniforms_R[wide_R], top_p)
    return drawn_R


def _pick(likely_RK: Tensor, ids_RK: Tensor, uniforms_R: Tensor, top_p: float) -> Tensor:
    """Invert the cumulative distribution of each row's nucleus; the likeliest token stands first.

    All sums are double, since those of fp32 miss by more than rare tokens have.
    """
    likely_RK = likely_RK.double()
    below_RK = likely_RK.cumsum(-1)
    last_R1 = (((below_RK - likely_RK) < top_p).sum(-1, keepdim=True) - 1).clamp(min=0)
    mass_R1 = below_RK.gather(-1, last_R1)
    place_R1 = (below_RK <= uniforms_R[:, None] * mass_R1).sum(-1, keepdim=True)
    return ids_RK.gather(-1, torch.minimum(place_R1, last_R1)).squeeze(-1)
