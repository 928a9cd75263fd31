"""A plain finetuning script with PEFT, one trial on one device: what the engine is held against.

It shares nothing with `lorasweep.train`: it pads rows itself, takes torch's AdamW (or Lion as its
paper writes it) with a LambdaLR, and steps on the mean loss of a step's response tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM

Row = tuple[list[int], int]  # token ids, and how many of them are prompt


@dataclass(frozen=True)
class Finetuned:
    losses: list[float]
    adapter: dict[str, Tensor]


class Lion(torch.optim.Optimizer):
    """Chen et al. 2023, algorithm 2, with the decay of llm-foundry's DecoupledLionW."""

    def __init__(self, params, lr, betas, weight_decay):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        assert closure is None
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                m = self.state[p].get("m", torch.zeros_like(p))
                update = torch.sign(beta1 * m + (1 - beta1) * p.grad)
                p.mul_(1 - group["lr"] / group["initial_lr"] * group["weight_decay"])
                p.sub_(group["lr"] * update)
                self.state[p]["m"] = beta2 * m + (1 - beta2) * p.grad


def cosine_with_warmup(steps: int, warmup_steps: int, floor: float) -> Callable[[int], float]:
    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = (step - warmup_steps) / max(1, steps - warmup_steps)
        return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2

    return factor


def finetune(
    base: Path,
    batches: list[list[Row]],
    *,
    target_modules: list[str],
    rank: int,
    alpha: float,
    lr: float,
    optimizer: str,
    weight_decay: float,
    warmup_steps: int,
    micro_batch: int,
    clip: float,
    seed: int,
) -> Finetuned:
    """Train on the given rows, a list for each step, and give the losses and the adapter."""
    model = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32)
    torch.manual_seed(seed)
    model = get_peft_model(
        model,
        LoraConfig(r=rank, lora_alpha=alpha, target_modules=target_modules, task_type="CAUSAL_LM"),
    )
    model.train()
    weights = [p for p in model.parameters() if p.requires_grad]
    if optimizer == "adamw":
        stepper: torch.optim.Optimizer = torch.optim.AdamW(
            weights, lr=lr, weight_decay=weight_decay
        )
    else:
        stepper = Lion(weights, lr=lr, betas=(0.9, 0.95), weight_decay=weight_decay)
    factor = cosine_with_warmup(len(batches), warmup_steps, floor=0.01)
    scheduler = torch.optim.lr_scheduler.LambdaLR(stepper, factor)

    losses = []
    for rows in batches:
        response_tokens = sum(len(ids) - max(prompt, 1) for ids, prompt in rows)
        stepper.zero_grad()
        step_loss = 0.0
        for first in range(0, len(rows), micro_batch):
            part = rows[first : first + micro_batch]
            width = max(len(ids) for ids, _ in part)
            input_ids = torch.zeros(len(part), width, dtype=torch.long)
            labels = torch.full_like(input_ids, -100)
            for i, (ids, prompt) in enumerate(part):
                input_ids[i, : len(ids)] = torch.tensor(ids)
                labels[i, prompt : len(ids)] = torch.tensor(ids[prompt:])
            logits = model(input_ids=input_ids).logits
            loss = (
                functional.cross_entropy(
                    logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum"
                )
                / response_tokens
            )
            loss.backward()
            step_loss += loss.item()
        torch.nn.utils.clip_grad_norm_(weights, clip)
        stepper.step()
        scheduler.step()
        losses.append(step_loss)
    adapter = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    return Finetuned(losses, adapter)
