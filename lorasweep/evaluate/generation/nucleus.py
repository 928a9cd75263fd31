"""Sample tokens from a model's predictions, given the random numbers.

Shape legend: R rows, V vocabulary, K likeliest tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

SHORTLIST = 64  # likeliest tokens that are tried before the whole vocabulary is sorted


def draw(logits_RV: Tensor, uniforms_R: Tensor, *, temperature: float, top_p: float) -> Tensor:
    """Sample a token for each row from its nucleus (Holtzman et al. 2020, section 3.1).

    The nucleus is the smallest set of likeliest tokens whose probabilities sum to `top_p`; of two
    equally likely tokens the lower id comes first. A row's token depends on that row alone.

    Args:
        uniforms_R: in [0, 1); the token at this quantile of the nucleus is taken.
        temperature: divides the logits; 0 takes the likeliest token.

    Returns:
        Token ids: R. A row of NaN yields an arbitrary token.
    """
    if temperature == 0:
        return logits_RV.argmax(-1)
    likely_RV = (logits_RV.float() / temperature).softmax(-1)
    likely_RK, ids_RK = likely_RV.topk(min(SHORTLIST, likely_RV.shape[-1]))
    # topk orders ties arbitrarily, so sort by id, then stably by probability.
    ids_RK, order_RK = ids_RK.sort(-1)
    likely_RK, order_RK = likely_RK.gather(-1, order_RK).sort(dim=-1, descending=True, stable=True)
    drawn_R = _pick(likely_RK, ids_RK.gather(-1, order_RK), uniforms_R, top_p)
    # Tokens that tie with the last of the shortlist may be missing from it, so only those above it
    # are certain. Rows whose certain tokens do not fill the nucleus sort the whole vocabulary.
    sure_RK = likely_RK * (likely_RK > likely_RK[:, -1:])
    wide_R = ~(sure_RK.double().sum(-1) >= top_p)
    if wide_R.any():
        likely_RV, ids_RV = likely_RV[wide_R].sort(dim=-1, descending=True, stable=True)
        drawn_R[wide_R] = _pick(likely_RV, ids_RV, uniforms_R[wide_R], top_p)
    return drawn_R


def _pick(likely_RK: Tensor, ids_RK: Tensor, uniforms_R: Tensor, top_p: float) -> Tensor:
    """Invert the cumulative distribution of each row's nucleus, likeliest token first.

    Sums are in float64: in fp32 their error exceeds the probability of rare tokens.
    """
    likely_RK = likely_RK.double()
    below_RK = likely_RK.cumsum(-1)
    last_R1 = (((below_RK - likely_RK) < top_p).sum(-1, keepdim=True) - 1).clamp(min=0)
    mass_R1 = below_RK.gather(-1, last_R1)
    index_R1 = (below_RK <= uniforms_R[:, None] * mass_R1).sum(-1, keepdim=True)
    return ids_RK.gather(-1, torch.minimum(index_R1, last_R1)).squeeze(-1)
