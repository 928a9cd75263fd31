"""A plain script for full finetuning on one device, to which the tests hold the DeepSpeed engine.

It shares nothing with `lorasweep` or DeepSpeed: it pads rows itself, an example in each, computes
each step's whole batch at once, clips by torch, and steps on the mean loss of the step's response
tokens with torch's AdamW, or Lion as its paper writes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM

from tests.reference import Lion, Row, cosine_with_warmup


@dataclass(frozen=True)
class Finetuned:
    losses: list[float]
    norms: list[float]
    weights: dict[str, Tensor]


def finetune(
    base: Path,
    batches: list[list[Row]],
    *,
    lr: float,
    optimizer: str,
    weight_decay: float,
    warmup_steps: int,
    clip: float,
) -> Finetuned:
    """Train on a list of rows for each step; the base must have no dropout."""
    model = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32)
    model.train()
    weights = list(model.parameters())
    stepper: torch.optim.Optimizer
    if optimizer == "adamw":
        stepper = torch.optim.AdamW(weights, lr=lr, weight_decay=weight_decay)
    else:
        stepper = Lion(weights, lr=lr, betas=(0.9, 0.95), weight_decay=weight_decay)
    factor = cosine_with_warmup(len(batches), warmup_steps, floor=0.01)
    scheduler = torch.optim.lr_scheduler.LambdaLR(stepper, factor)

    losses, norms = [], []
    for rows in batches:
        width = max(len(ids) for ids, _ in rows)
        input_ids = torch.zeros(len(rows), width, dtype=torch.long)
        labels = torch.full_like(input_ids, -100)
        for i, (ids, prompt) in enumerate(rows):
            input_ids[i, : len(ids)] = torch.tensor(ids)
            labels[i, prompt : len(ids)] = torch.tensor(ids[prompt:])
        stepper.zero_grad()
        logits = model(input_ids=input_ids).logits
        loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(weights, clip)))
        stepper.step()
        scheduler.step()
        losses.append(loss.item())
    named = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    return Finetuned(losses, norms, named)
