"""Dropout that a trial draws the same in any company, and again after it is resumed.

Shape legend: M tokens of a trial's rows, padding included, S tokens of its examples, I inputs of a
layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class SeededDropout:
    """Dropout factors drawn from a seed of trial, step, micro-batch and layer.

    torch's dropout draws from one global generator, so a trial's mask would depend on its
    neighbours. Tokens of examples draw in the order of the examples, and padding draws nothing, so
    neither row width nor packing changes what is dropped.

    p: probability of dropping an input.
    tokens: M.
    """

    p: float
    seed: int
    step: int
    index: int
    tokens: int
    token_indices_S: Tensor

    def __call__(self, layer: int, inputs: int) -> Tensor:
        """Draw the factors (M x I): 0 with probability p, else 1 / (1 - p); 0 for padding."""
        device = self.token_indices_S.device
        generator = torch.Generator(device).manual_seed(
            dropout_seed(self.seed, self.step, self.index, layer)
        )
        draws_SI = torch.rand(len(self.token_indices_S), inputs, generator=generator, device=device)
        factors_MI = torch.zeros(self.tokens, inputs, device=device)
        factors_MI[self.token_indices_S] = (draws_SI >= self.p) / (1 - self.p)
        return factors_MI


def dropout_seed(seed: int, step: int, index: int, layer: int) -> int:
    """Hash trial seed, step, micro-batch and layer into one seed, unlike for similar numbers."""
    return int(np.random.SeedSequence([seed, step, index, layer]).generate_state(1)[0])
