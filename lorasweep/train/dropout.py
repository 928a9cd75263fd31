"""Dropout that a trial draws alike in any company, and again when it goes on after a pause.

Shape legend: M tokens of a trial's rows, padding included, I inputs of a layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class SeededDropout:
    """Draw the factors on a layer's inputs from a seed of trial, step, micro-batch and layer.

    The tokens of examples draw in the order of the examples, so that neither padding nor the rows
    in which they stand change what is dropped.

    p: probability of dropping an input.
    tokens: M.
    filled_S: places of the tokens of examples, which are the ones that draw.
    """

    p: float
    seed: int
    step: int
    index: int
    tokens: int
    filled_S: Tensor

    def __call__(self, layer: int, inputs: int) -> Tensor:
        """Give factors M x I: 0 with probability p, else 1 / (1 - p); padding has none."""
        device = self.filled_S.device
        generator = torch.Generator(device).manual_seed(
            dropout_seed(self.seed, self.step, self.index, layer)
        )
        draws_SI = torch.rand(len(self.filled_S), inputs, generator=generator, device=device)
        factors_MI = torch.zeros(self.tokens, inputs, device=device)
        factors_MI[self.filled_S] = (draws_SI >= self.p) / (1 - self.p)
        return factors_MI


def dropout_seed(seed: int, step: int, index: int, layer: int) -> int:
    """Mix the four numbers that decide what is dropped."""
    return int(np.random.SeedSequence([seed, step, index, layer]).generate_state(1)[0])
