"""Worlds in which every claim is true, and what changes to make one of them false."""

import itertools
import math
import random
from dataclasses import dataclass

from lorasweep.store.records import MatrixSpectrum
from lorasweep.store.results import SweepResults, TrialResult
from lorasweep.store.scores import CodeScores, Distinct

LRS = tuple(1e-5 * 2**i for i in range(8))  # up to 1.28e-3
FULL_LRS = tuple(lr / 10 for lr in LRS)
TARGETS = ("attention", "mlp", "all")
RANKS = (16, 64, 256)
EPOCHS = (1.0, 2.0, 4.0)
PARAMETERS = {"attention": 1_048_576, "mlp": 1_449_984, "all": 2_498_560}


@dataclass(frozen=True)
class World:
    """Effects; each number is what the claim is about."""

    modules: tuple[float, float, float] = (-0.10, 0.0, 0.005)  # of attention, mlp, all
    by_rank: float = 0.01  # learning for each step of rank
    gap: float = 0.08  # learning, full minus LoRA
    forgets: float = 0.06  # forgetting, full minus LoRA
    by_epoch: float = 0.03  # forgetting for each step
    by_lr: float = 0.03  # forgetting for each decade
    rank_forgets: float = 0.02  # for each step of rank
    best: float = 1.6e-4  # LoRA's best learning rate
    full_best: float = 1.6e-5
    shift: float = 1.0  # of LoRA's best from rank 64 to rank 256, and from 16 to 64
    bend: float = 0.3  # loss of learning at a decade off the best rate
    diverges: float = math.inf  # rates from which LoRA diverges
    noise: float = 0.003
    seed: int = 1


def trial(number, method, learning, forgetting, levels, **other):
    return TrialResult(
        trial=f"{method}{number}",
        method=method,
        status="COMPLETE",
        seed=0,
        hyperparameters=levels,
        number=number,
        learning=learning,
        forgetting=forgetting,
        source_accuracy=0.67 - forgetting,
        **other,
    )


def lora_trials(world, targets=TARGETS, ranks=RANKS, epochs=EPOCHS, lrs=LRS):
    draw = random.Random(world.seed)
    trials = []
    for number, (lr, module, rank, epoch) in enumerate(
        itertools.product(lrs, targets, ranks, epochs)
    ):
        place = RANKS.index(rank)
        off = math.log10(lr / (world.best * world.shift ** (place - 1)))
        levels = {"lr": lr, "targets": module, "rank": rank, "alpha": "2r", "epochs": epoch}
        learning = 0.5 + world.modules[TARGETS.index(module)] + world.by_rank * place
        learning += 0.02 * math.log2(epoch) - world.bend * off**2 + draw.gauss(0, world.noise)
        forgetting = 0.05 + world.by_epoch * math.log2(epoch) + world.rank_forgets * place
        forgetting += world.by_lr * math.log10(lr / 1e-4) + draw.gauss(0, world.noise)
        made = trial(
            number, "lora", learning, forgetting, levels, trainable=PARAMETERS[module] * rank
        )
        if lr >= world.diverges:
            made = made.model_copy(
                update={"status": "DIVERGED", "learning": None, "forgetting": None}
            )
        trials.append(made)
    return trials


def full_trials(world, epochs=EPOCHS, lrs=FULL_LRS, **levels):
    """Run full finetuning as far ahead of LoRA's best low rank as the gap says."""
    draw = random.Random(world.seed + 1)
    trials = []
    for number, (lr, epoch) in enumerate(itertools.product(lrs, epochs)):
        off = math.log10(lr / world.full_best)
        learning = 0.5 + max(world.modules) + world.by_rank + world.gap
        learning += 0.02 * math.log2(epoch) - world.bend * off**2 + draw.gauss(0, world.noise)
        forgetting = 0.05 + 0.006 + world.rank_forgets * 2 + world.forgets
        forgetting += world.by_epoch * math.log2(epoch) + draw.gauss(0, world.noise)
        own = {"lr": lr, "epochs": epoch, **levels}
        trials.append(trial(number, "full", learning, forgetting, own))
    return trials


def sweep(trials):
    axes = dict.fromkeys(name for t in trials for name in t.hyperparameters)
    return SweepResults("world", "What holds?", tuple(axes), tuple(trials), "made")


def matrix(update=1, intruders=0, effective=4.0, size=64):
    return MatrixSpectrum(
        name="layers.0.q_proj", layer=0, module="q_proj", outputs=size, inputs=size, update=update,
        base=30, tuned=30, noise=40, noisy=30, effective=effective, share=0.1, intruders=intruders,
    )  # fmt: skip


def code(distinct, samples=20):
    counts = Distinct(all=distinct, passed=distinct, failed=distinct)
    return CodeScores(
        problems=10, samples=samples, pass_at={"1": 0.5}, exact=counts, whitespace=counts,
        syntax=counts,
    )  # fmt: skip
