"""One trial as a plain script: PEFT, torch's AdamW, rows padded by hand, lm-eval.

Both plain arms of `sweep.py` share it. It takes the tokens and the rows of each step from
`lorasweep.data`, so that all arms train on the same examples; everything else is code of its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from numpy.typing import NDArray
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

from lorasweep.data.batches import Batches
from lorasweep.data.prepare import prepare_data
from lorasweep.data.tokens import Tokens, TrainingData
from lorasweep.evaluate.tasks import task_files
from lorasweep.model.base import base_path, read_facts
from lorasweep.spec.file import read_yaml
from lorasweep.spec.sweep import EvaluateSpec, SweepSpec, parse_sweep
from lorasweep.spec.trial import LoraHyperparameters

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
TARGETS = {"attention": ATTENTION, "all": [*ATTENTION, "gate_proj", "up_proj", "down_proj"]}
IGNORED = -100


@dataclass(frozen=True)
class Trained:
    """How training ended.

    loss: mean over the last ten steps, as in the journal, in nats per response token; None if
        the first one diverged.
    first_step: when the first step was done, in seconds since 1970.
    """

    loss: float | None
    diverged: bool
    first_step: float


def read_sweep(file: Path) -> SweepSpec:
    """Read the sweep file that all arms share."""
    return parse_sweep(read_yaml(file))


def choose_device() -> torch.device:
    """Choose the GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_tokenizer(spec: SweepSpec) -> Any:
    """Load the tokenizer of the base."""
    return AutoTokenizer.from_pretrained(base_path(spec.model))


def load_base(spec: SweepSpec, device: torch.device) -> Any:
    """Load the base: bf16 on a GPU, else fp32, as in the other arms."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    return AutoModelForCausalLM.from_pretrained(base_path(spec.model), dtype=dtype).to(device)


def load_data(spec: SweepSpec, tokenizer: Any) -> TrainingData:
    """Read and tokenise the data."""
    facts = read_facts(spec.model)
    return prepare_data(spec.data, tokenizer, facts.positions, facts.vocabulary)


def load_tasks(spec: EvaluateSpec) -> Any:
    """Load lm-eval's task objects; without its own thousands of tasks, which take ten seconds."""
    files = task_files(spec)  # lm-eval would look for their data relative to the working directory
    names = [*spec.learning, *spec.source]
    return TaskManager(include_defaults=False).load([files[name] for name in names])


def attach_adapter(base: Any, hyperparameters: LoraHyperparameters, seed: int) -> Any:
    """Wrap a base in a fresh adapter."""
    config = LoraConfig(
        r=hyperparameters.rank,
        lora_alpha=2 * hyperparameters.rank,
        target_modules=TARGETS[hyperparameters.targets],
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(seed)
    return get_peft_model(base, config)


def pad_rows(tokens: Tokens, rows: NDArray[np.int64], pad: int) -> tuple[Tensor, Tensor]:
    """Pad examples on the right to the longest of them.

    No attention mask is needed, since causal attention never looks to the right.

    Returns:
        Token ids, and labels, which leave out prompts and padding.
    """
    examples = [tokens.example(int(row)) for row in rows]
    longest = max(len(ids) for ids, _ in examples)
    input_ids = torch.full((len(examples), longest), pad)
    labels = torch.full_like(input_ids, IGNORED)
    for i, (ids, loss) in enumerate(examples):
        input_ids[i, : len(ids)] = torch.from_numpy(ids)
        labels[i, : len(ids)][torch.from_numpy(loss)] = torch.from_numpy(ids[loss]).long()
    return input_ids, labels


def next_token_loss(model: Any, input_ids: Tensor, labels: Tensor, reduction: str) -> Tensor:
    """Compute the cross-entropy of the response tokens; the first token of a row has no label."""
    logits = model(input_ids=input_ids, use_cache=False).logits
    return functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(),
        labels[:, 1:].flatten(),
        ignore_index=IGNORED,
        reduction=reduction,
    )


def cosine_with_warmup(steps: int, warmup: float) -> Callable[[int], float]:
    """Rise linearly over a share of the steps, then fall to 1% of the peak."""
    rising = math.ceil(warmup * steps - 1e-9)  # 0.07 * 100 is a little more than 7

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        done = (step - rising) / max(1, steps - rising)
        return 0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2

    return factor


def has_diverged(losses: list[float], norm: float, vocabulary: int) -> bool:
    """Check whether a trial has diverged, by the rule of `lorasweep`, so that all arms work alike.

    The loss or the gradient is not finite, or the last ten losses are twice that of guessing.
    """
    if not (math.isfinite(losses[-1]) and math.isfinite(norm)):
        return True
    return len(losses) >= 10 and sum(losses[-10:]) / 10 > 2 * math.log(vocabulary)


def smoothed(losses: list[float]) -> float | None:
    """Average the last ten losses, None if there is none."""
    last = losses[-10:]
    return sum(last) / len(last) if last else None


def train_plain(
    model: Any,
    tokens: Tokens,
    spec: SweepSpec,
    hyperparameters: LoraHyperparameters,
    *,
    seed: int,
    pad: int,
    device: torch.device,
) -> Trained:
    """Train the adapter, a forward pass for each step."""
    size, steps = hyperparameters.batch_size, spec.train.steps
    assert steps is not None, "the sweep file fixes the steps"
    batches = Batches(tokens, size, size, seed, pad)
    model.train()
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=hyperparameters.lr, weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, cosine_with_warmup(steps, hyperparameters.warmup)
    )
    losses: list[float] = []
    first_step = 0.0
    for step in range(steps):
        input_ids, labels = pad_rows(tokens, batches.examples(step), pad)
        optimizer.zero_grad()
        loss = next_token_loss(model, input_ids.to(device), labels.to(device), "mean")
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(weights, 1.0)
        losses.append(loss.item())
        if has_diverged(losses, norm.item(), model.config.vocab_size):
            return Trained(smoothed(losses[:-1]), True, first_step or time.time())
        optimizer.step()
        scheduler.step()
        first_step = first_step or time.time()
    return Trained(smoothed(losses), False, first_step)


@torch.no_grad()
def heldout_loss(
    model: Any, tokens: Tokens, *, batch_size: int, pad: int, device: torch.device
) -> float:
    """Measure the loss per response token on held-out examples, those of like length together."""
    order = np.argsort(-np.diff(tokens.starts_N1), kind="stable")
    total = 0.0
    for first in range(0, len(order), batch_size):
        input_ids, labels = pad_rows(tokens, order[first : first + batch_size], pad)
        total += next_token_loss(model, input_ids.to(device), labels.to(device), "sum").item()
    return total / int(tokens.loss_tokens_N.sum())


def evaluate_plain(
    model: Any, tokenizer: Any, heldout: Tokens, tasks: Any, spec: EvaluateSpec, device: Any
) -> dict[str, float]:
    """Measure the held-out loss and, in one call of lm-eval, all tasks."""
    model.eval()
    loss = heldout_loss(
        model, heldout, batch_size=spec.batch_size, pad=tokenizer.pad_token_id, device=device
    )
    language_model = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=spec.batch_size)
    results = evaluate(language_model, tasks, bootstrap_iters=0, log_samples=False)["results"]
    learning = [float(results[name]["exact_match,strict-match"]) for name in spec.learning]
    source = [float(results[name]["acc,none"]) for name in spec.source]
    return {
        "response_loss": loss,
        "learning": sum(learning) / len(learning),
        "source_accuracy": sum(source) / len(source),
    }


def run_trial(
    model: Any,
    tokenizer: Any,
    data: TrainingData,
    tasks: Any,
    spec: SweepSpec,
    hyperparameters: LoraHyperparameters,
    *,
    seed: int,
    device: torch.device,
) -> dict[str, float | None]:
    """Train and measure a model with its adapter; a trial that diverged has no scores."""
    began = time.perf_counter()
    trained = train_plain(
        model,
        data.train,
        spec,
        hyperparameters,
        seed=seed,
        pad=tokenizer.pad_token_id,
        device=device,
    )
    ended = time.perf_counter()
    scores: dict[str, float | None] = dict.fromkeys(("response_loss", "learning"))
    scores["source_accuracy"] = None
    if not trained.diverged:
        scores |= evaluate_plain(model, tokenizer, data.heldout, tasks, spec.evaluate, device)
    return {
        "train_loss": trained.loss,
        **scores,
        "train_s": ended - began,
        "evaluate_s": time.perf_counter() - ended,
        "first_step": trained.first_step,
    }
