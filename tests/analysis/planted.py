"""Trials whose answer is known by construction."""

import itertools
import math
import random

from lorasweep.store.results import SweepResults, TrialResult

LRS = (1e-5, 1e-4, 1e-3)
TARGETS = ("attention", "mlp", "all")
RANKS = (4, 16, 64)


def trial(name, learning=0.5, *, status="COMPLETE", method="lora", forgetting=None, **levels):
    score = learning if status == "COMPLETE" else None
    fields = {key: levels.pop(key) for key in ("seed", "number", "stage") if key in levels}
    return TrialResult(
        trial=name,
        method=method,
        status=status,
        seed=fields.pop("seed", 0),
        hyperparameters=levels,
        learning=score,
        forgetting=forgetting,
        source_accuracy=None if forgetting is None else 0.6 - forgetting,
        **fields,
    )


def sweep(trials, axes=("lr", "targets", "rank")):
    return SweepResults(
        name="planted", question="What matters?", axes=axes, trials=tuple(trials), origin="made"
    )


def planted_grid(lr=0.1, targets=0.05, rank=0.02, noise=0.0, seed=0):
    """Make a full factorial; each number is the step between the levels of one axis."""
    draw = random.Random(seed)
    points = itertools.product(range(3), range(3), range(3))
    return sweep(
        trial(
            f"t{number}",
            0.2 + lr * i + targets * j + rank * k + draw.gauss(0, noise),
            number=number,
            lr=LRS[i],
            targets=TARGETS[j],
            rank=RANKS[k],
            forgetting=0.03 * i + draw.gauss(0, 0.005),
        )
        for number, (i, j, k) in enumerate(points)
    )


def planted_sample(n, lr=0.1, targets=0.05, rank=0.02, noise=0.01, seed=0):
    """Make a random sample over a continuous learning rate."""
    draw = random.Random(seed)
    trials = []
    for number in range(n):
        place, j, k = draw.uniform(0, 2), draw.randrange(3), draw.randrange(3)
        score = 0.2 + lr * place + targets * j + rank * k + draw.gauss(0, noise)
        trials.append(
            trial(
                f"t{number}",
                score,
                number=number,
                lr=math.pow(10, place - 5),
                targets=TARGETS[j],
                rank=RANKS[k],
                forgetting=score / 4,
            )
        )
    return sweep(trials)
