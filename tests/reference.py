"""A plain LoRA finetuning script with PEFT, to which the tests hold the packed engine.

Read this first: `finetune` is what `lorasweep/train/packed.py` computes for each trial, in one
loop. It shares nothing with `lorasweep`: it pads rows itself, an example in each, uses torch's
AdamW (or Lion as its paper has it) with a LambdaLR, and steps on the mean loss of a step's response
tokens. Dropout is seeded as in the engine, written out a second time.

Shape legend: B rows, T tokens, I inputs of a layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

Row = tuple[list[int], int]  # token ids, and how many of them are prompt


@dataclass(frozen=True)
class Finetuned:
    losses: list[float]
    adapter: dict[str, Tensor]


@dataclass
class Current:
    """The micro-batch in training, which seeds dropout."""

    step: int = 0
    index: int = 0
    lengths: list[int] = field(default_factory=list)


class SeededDropout(torch.nn.Module):
    """Dropout seeded by trial, step, micro-batch and layer.

    Tokens draw in the order of the examples; padding draws nothing.
    """

    def __init__(self, p: float, seed: int, layer: int, current: Current) -> None:
        super().__init__()
        self.p, self.seed, self.layer, self.current = p, seed, layer, current

    def forward(self, x_BTI: Tensor) -> Tensor:
        numbers = [self.seed, self.current.step, self.current.index, self.layer]
        mixed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
        generator = torch.Generator().manual_seed(mixed)
        draws = torch.rand(sum(self.current.lengths), x_BTI.shape[-1], generator=generator)
        factors_BTI = torch.zeros(x_BTI.shape)
        for row, drawn in enumerate(torch.split(draws, self.current.lengths)):
            factors_BTI[row, : len(drawn)] = torch.where(drawn < self.p, 0.0, 1 / (1 - self.p))
        return x_BTI * factors_BTI


class Lion(torch.optim.Optimizer):
    """Lion (Chen et al. 2023, algorithm 2) with the decay of llm-foundry's DecoupledLionW."""

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
    rslora: bool = False,
    dropout: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> Finetuned:
    """Train on a list of rows for each step; the base must have no dropout of its own."""
    model = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32)
    # Layers are numbered among all linear layers but the head, so that dropout does not depend on
    # which of them are adapted.
    numbers = {
        name: number
        for number, name in enumerate(
            sorted(
                name
                for name, module in model.named_modules()
                if isinstance(module, torch.nn.Linear | Conv1D)
                and module is not model.get_output_embeddings()
            )
        )
    }
    torch.manual_seed(seed)
    model = get_peft_model(
        model,
        LoraConfig(
            r=rank,
            lora_alpha=alpha,
            use_rslora=rslora,
            target_modules=target_modules,
            task_type="CAUSAL_LM",
        ),
    )
    for parameter in model.parameters():
        if not parameter.requires_grad:  # only here: PEFT creates adapters in the dtype of the base
            parameter.data = parameter.data.to(dtype)
    current = Current()
    if dropout:
        for name, module in model.get_base_model().named_modules():
            if hasattr(module, "lora_dropout"):
                module.lora_dropout["default"] = SeededDropout(
                    dropout, seed, numbers[name], current
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
    for step, rows in enumerate(batches):
        response_tokens = sum(len(ids) - max(prompt, 1) for ids, prompt in rows)
        stepper.zero_grad()
        step_loss = 0.0
        for index, first in enumerate(range(0, len(rows), micro_batch)):
            part = rows[first : first + micro_batch]
            current.step, current.index, current.lengths = (
                step,
                index,
                [len(ids) for ids, _ in part],
            )
            width = max(len(ids) for ids, _ in part)
            input_ids = torch.zeros(len(part), width, dtype=torch.long)
            labels = torch.full_like(input_ids, -100)
            for i, (ids, prompt) in enumerate(part):
                input_ids[i, : len(ids)] = torch.tensor(ids)
                labels[i, prompt : len(ids)] = torch.tensor(ids[prompt:])
            logits = model(input_ids=input_ids).logits
            loss = (
                functional.cross_entropy(
                    logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), reduction="sum"
                )
                / response_tokens
            )
            loss.backward()
            step_loss += loss.item()
        torch.nn.utils.clip_grad_norm_(weights, clip)
        stepper.step()
        scheduler.step()
        losses.append(step_loss)
    adapter = {
        name.replace(".default", ""): parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    return Finetuned(losses, adapter)
