"""Train one LoRA trial: the loop, from batch to optimizer step; knows no Ray.

The outcome does not depend on how many workers share a step: every worker sums the loss of its own
micro-batches, divided by the token count of the whole step, and the adapters' gradients are added
up.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lorasweep.data.batches import Batches
from lorasweep.data.shard import Shard
from lorasweep.spec.sweep import TrainSpec
from lorasweep.spec.trial import LoraHyperparameters
from lorasweep.train.checkpoint import Position
from lorasweep.train.loss import token_loss_sum
from lorasweep.train.optim import schedule_factor

SMOOTHED_STEPS = 10
# A model that guesses every token at even odds has loss ln(vocabulary). Twice that over ten steps
# is an update that has wrecked the model, far from any loss a useful trial passes through.
EXPLODED = 2.0


@dataclass(frozen=True)
class Progress:
    """Hold what one optimizer step did.

    position: where the trial stands after the step.
    lr: learning rate of the step.
    grad_norm: norm of the gradient before clipping.
    diverged: why the trial ends here, or None.
    """

    position: Position
    lr: float
    grad_norm: float
    diverged: str | None = None


def train_lora(
    model: Any,
    parameters: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    *,
    spec: TrainSpec,
    hyperparameters: LoraHyperparameters,
    steps: int,
    start: Position,
    shard: Shard,
    device: torch.device,
) -> Iterator[Progress]:
    """Train from a position to the last step, and give the progress after each step.

    A loss or gradient that is not finite, or a loss beyond twice that of guessing, ends the loop
    with `diverged` set; the adapter keeps its last finite values.
    """
    model.train()
    guessing = math.log(model.config.get_text_config().vocab_size)
    position = start
    for step in range(start.step, steps):
        began = time.perf_counter()
        targets = batches.targets(step)
        factor = schedule_factor(spec.schedule, hyperparameters.warmup, steps, step)
        lr = hyperparameters.lr * factor
        for group in optimizer.param_groups:
            group["lr"] = lr

        optimizer.zero_grad(set_to_none=True)
        loss_sum = torch.zeros((), device=device)
        tokens = 0
        for batch in batches.micro_batches(step, shard):
            # Dropout draws from a seed of the trial, step and micro-batch, so that neither resuming
            # nor another number of workers changes it.
            torch.manual_seed(_dropout_seed(batches.seed, step, batch.index))
            loss = token_loss_sum(model, batch, device)
            torch.autograd.backward(loss / targets)
            loss_sum += loss.detach()
            tokens += batch.tokens
        mean_loss, all_tokens = _combine(parameters, loss_sum / targets, tokens, shard)
        norm = float(torch.nn.utils.clip_grad_norm_(parameters.values(), spec.clip or math.inf))

        losses = (*position.losses, mean_loss)[-SMOOTHED_STEPS:]
        diverged = _divergence(losses, norm, guessing)
        if diverged is None:
            optimizer.step()
            position = replace(
                position,
                step=step + 1,
                tokens=position.tokens + all_tokens,
                losses=losses,
                train_s=position.train_s + time.perf_counter() - began,
            )
        yield Progress(position, lr, norm, diverged)
        if diverged is not None:
            return


def _dropout_seed(seed: int, step: int, index: int) -> int:
    return int(np.random.SeedSequence([seed, step, index]).generate_state(1)[0])


def _combine(
    parameters: dict[str, Tensor], loss: Tensor, tokens: int, shard: Shard
) -> tuple[float, int]:
    """Add up gradients, loss and token count over the workers in one exchange."""
    if shard.workers == 1:
        return float(loss), tokens
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters.values()]
    ends = torch.stack([loss.float(), torch.tensor(float(tokens), device=loss.device)])
    flat = shard.total(torch.cat([*(g.flatten() for g in gradients), ends]))
    offset = 0
    for parameter, gradient in zip(parameters.values(), gradients, strict=True):
        size = gradient.numel()
        parameter.grad = flat[offset : offset + size].view_as(gradient)
        offset += size
    return float(flat[-2]), int(flat[-1])


def _divergence(losses: tuple[float, ...], norm: float, guessing: float) -> str | None:
    """Say why a trial has diverged, or None."""
    if not math.isfinite(losses[-1]):
        return "the training loss is not finite"
    if not math.isfinite(norm):
        return "the gradient is not finite"
    smooth = sum(losses) / len(losses)
    if len(losses) == SMOOTHED_STEPS and smooth > EXPLODED * guessing:
        return f"the training loss of {smooth:.3g} is beyond twice that of guessing, {guessing:.3g}"
    return None
