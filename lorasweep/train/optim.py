"""Optimizers, learning-rate schedules and gradient clipping, the same for every engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from lorasweep.spec.sweep import TrainSpec
from lorasweep.spec.trial import FullHyperparameters, LoraHyperparameters

COSINE_FLOOR = 0.01  # alpha_f of Biderman et al. (2024, v2, appendix A)
COOLDOWN = 0.2  # share of the steps that decay to zero (Biderman et al. 2024, v2, section 3)


def learning_rate(
    hyperparameters: LoraHyperparameters | FullHyperparameters,
    train: TrainSpec,
    steps: int,
    step: int,
) -> float:
    """Compute the learning rate of a step, counted from 0, in a trial of `steps` steps."""
    factor = schedule_factor(
        train.schedule, hyperparameters.warmup, steps, step, warmup_steps=train.warmup_steps
    )
    return hyperparameters.lr * factor


def schedule_factor(
    schedule: str, warmup: float, steps: int, step: int, *, warmup_steps: int | None = None
) -> float:
    """Compute the factor on the peak learning rate at a step, counted from 0.

    Warm-up is linear and reaches the peak at its last step, so the first step already trains.

    Args:
        warmup: share of the steps that warm up.
        warmup_steps: steps that warm up; overrides the share.
    """
    rising = warmup_steps
    if rising is None:
        rising = math.ceil(warmup * steps - 1e-9)  # in floating point 0.07 * 100 exceeds 7
    if schedule == "trapezoidal":
        # A run too short for its warm-up decays from the factor it has reached.
        begin = decay_start(steps)
        reached = min(1.0, (min(step, begin) + 1) / max(1, rising))
        return reached * min(1.0, (steps - step) / (steps - begin))
    if step < rising:
        return (step + 1) / rising
    if schedule == "cosine":
        done = (step - rising) / max(1, steps - rising)
        return COSINE_FLOOR + (1 - COSINE_FLOOR) * 0.5 * (1 + math.cos(math.pi * done))
    return 1.0


def decay_start(steps: int) -> int:
    """Find the step at which a trapezoidal schedule starts to decay.

    Up to it, runs of different durations are identical if their warm-up is.
    """
    return steps - max(1, round(COOLDOWN * steps))


class DecoupledLion(torch.optim.Optimizer):
    """Lion, which steps by the sign of an interpolated momentum (Chen et al. 2023, algorithm 2).

    Weight decay is decoupled from the learning rate as in llm-foundry's DecoupledLionW, which
    Biderman et al. used: each step multiplies a weight by 1 - (lr / peak lr) x weight_decay.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float, betas: tuple[float, float], weight_decay: float
    ) -> None:
        """Store the peak learning rate, to which the decay is relative."""
        super().__init__(
            params,
            {"lr": lr, "peak_lr": lr, "betas": betas, "weight_decay": weight_decay},
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        assert closure is None, "closures are not supported, since gradients are off in this step"
        for group in self.param_groups:
            interpolate, decay = group["betas"]
            shrink = 1 - group["lr"] / group["peak_lr"] * group["weight_decay"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"]
                direction = momentum.lerp(parameter.grad, 1 - interpolate).sign_()
                parameter.mul_(shrink).add_(direction, alpha=-group["lr"])
                momentum.lerp_(parameter.grad, 1 - decay)


def build_optimizer(
    spec: TrainSpec, parameters: list[Tensor], lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Build the optimizer of one trial, at its peak learning rate."""
    if spec.optimizer == "lion":
        return DecoupledLion(parameters, lr, spec.betas or (0.9, 0.95), weight_decay)
    return torch.optim.AdamW(
        parameters, lr=lr, betas=spec.betas or (0.9, 0.999), weight_decay=weight_decay
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def clip_factor(norm: Tensor, clip: float) -> Tensor:
    """Compute the factor that limits a gradient's norm to `clip`, as torch's clip_grad_norm_."""
    return (clip / (norm + 1e-6)).clamp(max=1.0)
