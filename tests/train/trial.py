"""One small trial, from its base to its last step, in this process or in a worker."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lorasweep.data.batches import Batches
from lorasweep.data.shard import Shard
from lorasweep.data.tokens import Tokens
from lorasweep.model.base import load_base, load_tokenizer
from lorasweep.model.lora import adapter_parameters, attach_lora
from lorasweep.spec.sweep import ModelSpec, TrainSpec
from lorasweep.spec.trial import LoraHyperparameters
from lorasweep.train.checkpoint import Position
from lorasweep.train.optim import build_optimizer
from lorasweep.train.solo import Progress, train_lora
from tests.conftest import sentences

CPU = torch.device("cpu")
SPEC = TrainSpec(micro_batch=2)
LORA = LoraHyperparameters(lr=1e-2, rank=4, batch_size=8, weight_decay=0.1)
LION = LoraHyperparameters(lr=1e-3, rank=4, batch_size=8, weight_decay=0.01)


@dataclass(frozen=True)
class Trial:
    folder: Path
    tokens: Tokens
    spec: TrainSpec = SPEC
    hyperparameters: LoraHyperparameters = LORA
    steps: int = 12
    seed: int = 0
    dtype: Literal["fp32", "bf16"] = "fp32"

    @property
    def batches(self) -> Batches:
        size = self.hyperparameters.batch_size
        pad = load_tokenizer(ModelSpec(path=str(self.folder))).pad_token_id
        return Batches(self.tokens, size, self.spec.micro_batch or size, self.seed, pad)


@dataclass(frozen=True)
class Outcome:
    steps: list[Progress]
    adapter: dict[str, Tensor]

    @property
    def losses(self) -> list[float]:
        return [progress.position.losses[-1] for progress in self.steps]


def examples(folder: Path) -> Tokens:
    """Make 60 examples of various lengths; a response repeats the last words of its prompt."""
    tokenizer = load_tokenizer(ModelSpec(path=str(folder)))
    rows = []
    for i, sentence in enumerate(sentences(60, seed=2)):
        words = sentence.split()
        prompt = tokenizer(f"Repeat: {' '.join(words)}\n")["input_ids"]
        response = tokenizer(" ".join(words[-1 - i % 4 :]))["input_ids"]
        rows.append(([*prompt, *response, tokenizer.eos_token_id], len(prompt)))
    return Tokens.pack(rows)


def start(trial: Trial) -> tuple[Any, dict[str, Tensor], torch.optim.Optimizer]:
    """Give the model, its adapter's parameters and the optimizer, as a worker makes them."""
    base = load_base(ModelSpec(path=str(trial.folder), dtype=trial.dtype), CPU)
    if trial.spec.recompute:
        base.gradient_checkpointing_enable({"use_reentrant": False})
    model = attach_lora(base, trial.hyperparameters, trial.seed)
    parameters = adapter_parameters(model)
    optimizer = build_optimizer(
        trial.spec,
        list(parameters.values()),
        trial.hyperparameters.lr,
        trial.hyperparameters.weight_decay,
    )
    return model, parameters, optimizer


def go_on(
    trial: Trial,
    model: Any,
    parameters: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    position: Position,
    shard: Shard,
) -> Iterator[Progress]:
    """Train from a position on."""
    return train_lora(
        model,
        parameters,
        optimizer,
        trial.batches,
        spec=trial.spec,
        hyperparameters=trial.hyperparameters,
        steps=trial.steps,
        start=position,
        shard=shard,
        device=CPU,
    )


def copied(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in parameters.items()}


def train(trial: Trial, shard: Shard = Shard()) -> Outcome:  # noqa: B008 - frozen
    """Train a trial from its beginning to its end."""
    model, parameters, optimizer = start(trial)
    steps = list(go_on(trial, model, parameters, optimizer, Position(), shard))
    return Outcome(steps, copied(parameters))


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Give the norm of the difference between two adapters, over that of the first."""
    assert one.keys() == other.keys()
    apart = torch.cat([(one[name] - other[name]).flatten() for name in one])
    return float(apart.norm() / torch.cat([value.flatten() for value in one.values()]).norm())


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Tell whether two adapters are the same, bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
