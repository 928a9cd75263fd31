"""Do 90% intervals contain the truth in 90% of tables? Simulated tables with known answers.

Every table is made from a function whose variance shares, costs or threshold are known, with normal
noise; what is counted is how often a 90% interval contains the truth. Noise is part of the total
that shares refer to.
The arms named `methods-` count verdicts on two methods that were searched, those named `levels-` on
levels of one method's hyperparameters; those named `peak-` cover its best learning rate, and those
named `expected-` the score of its best configuration (`searches.py`).

    python benchmarks/coverage.py --out benchmarks/results/coverage.json
    python benchmarks/coverage.py --out /tmp/try.json --tables 20 --arms factorial-additive
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lorasweep.analysis.scale import Scale
from lorasweep.analysis.sensitivity.alternatives import compare_levels
from lorasweep.analysis.sensitivity.divergence import stable_rate
from lorasweep.analysis.sensitivity.importance import rank_hyperparameters
from lorasweep.store.configurations import configurations
from lorasweep.store.environment import environment
from lorasweep.store.results import TrialResult

NAMES = ("lr", "targets", "rank")
TARGETS = ("attention", "mlp", "all")
RANKS = (4, 16, 64)
SAMPLED = (
    Scale(name="lr", kind="log", edges=(1e-5, 10 ** (-13 / 3), 10 ** (-11 / 3), 1e-3)),
    Scale(name="targets", kind="text", levels=TARGETS),
    Scale(name="rank", kind="numbers", levels=RANKS),
)
GRID = (Scale(name="lr", kind="numbers", levels=(1e-5, 1e-4, 1e-3)), *SAMPLED[1:])
Truth = Callable[[float, int, int], float]
Shares = dict[tuple[str, ...], float]

# Functions of the learning rate's place in [0, 2] and of the indices of targets and rank.
TRUTHS: dict[str, Truth] = {
    "additive": lambda x, j, k: 0.3 + 0.1 * x + 0.05 * j + 0.02 * k,
    "interacting": lambda x, j, k: 0.3 + 0.1 * x + 0.08 * x * (j - 1) + 0.02 * k,
    "conditional": lambda x, j, k: 0.3 + 0.1 * x + 0.1 * k * (j == 2),
    "dominant": lambda x, j, _: 0.3 + 0.2 * x + 0.02 * j,
    "noise": lambda _x, _j, _k: 0.3,
}


def true_shares(truth: Truth, noise: float, *, sampled: bool) -> Shares:
    """Compute the shares of main effects and pairs, with even weight on all levels."""
    places = [(i + 0.5) / 50 for i in range(100)] if sampled else [0.0, 1.0, 2.0]
    table = np.array([[[truth(x, j, k) for k in range(3)] for j in range(3)] for x in places])
    table = table - table.mean()
    total = float(table.var()) + noise**2
    mains = [table.mean(axis=tuple({0, 1, 2} - {i}), keepdims=True) for i in range(3)]
    shares: Shares = {(NAMES[i],): float(main.var()) / total for i, main in enumerate(mains)}
    for i, j in itertools.combinations(range(3), 2):
        both = table.mean(axis=3 - i - j, keepdims=True)
        shares[NAMES[i], NAMES[j]] = float((both - mains[i] - mains[j]).var()) / total
    return shares


def make_trials(
    truth: Truth, noise: float, *, n: int | None, seeds: int, rng: np.random.Generator
) -> list[TrialResult]:
    """Make a full factorial, or n random configurations over a continuous learning rate."""
    if n is None:
        points = [(float(i), j, k) for i, j, k in itertools.product(range(3), repeat=3)]
    else:
        points = [
            (float(x), int(j), int(k))
            for x, j, k in zip(
                rng.uniform(0, 2, n), rng.integers(0, 3, n), rng.integers(0, 3, n), strict=True
            )
        ]
    trials = []
    for number, (x, j, k) in enumerate(points):
        lr = GRID[0].levels[int(x)] if n is None else math.pow(10, x - 5)
        for seed in range(seeds):
            trials.append(
                TrialResult(
                    trial=f"t{number}-{seed}",
                    method="lora",
                    status="COMPLETE",
                    seed=seed,
                    hyperparameters={"lr": lr, "targets": TARGETS[j], "rank": RANKS[k]},
                    number=number,
                    learning=truth(x, j, k) + noise * float(rng.standard_normal()),
                )
            )
    return trials


class Tally:
    """Counts of how often the intervals of each quantity contain its truth, and their widths."""

    def __init__(self) -> None:
        self._held: dict[str, list[bool]] = {}
        self._width: dict[str, list[float]] = {}

    def add(self, name: str, truth: float, low: float, high: float) -> None:
        self._held.setdefault(name, []).append(low - 1e-9 <= truth <= high + 1e-9)
        self._width.setdefault(name, []).append(high - low)

    def result(self) -> dict[str, dict[str, float]]:
        return {
            name: {
                "coverage": round(float(np.mean(held)), 4),
                "width": round(float(np.mean(self._width[name])), 4),
                "tables": len(held),
            }
            for name, held in self._held.items()
        }


def cover_ranking(
    truth: Truth, noise: float, *, n: int | None = None, seeds: int = 1, tables: int, best: bool
) -> dict[str, Any]:
    """Count coverage of shares and costs, and how often each hyperparameter is shown to matter."""
    rng = np.random.default_rng(7)
    laid_out = {scale.name: scale for scale in (GRID if n is None else SAMPLED)}
    shares = true_shares(truth, noise / math.sqrt(seeds), sampled=n is not None)
    tally = Tally()
    shown: dict[str, int] = {}
    for _ in range(tables):
        trials = make_trials(truth, noise, n=n, seeds=seeds, rng=rng)
        grouped = configurations(trials)
        ranking = rank_hyperparameters("lora", grouped, laid_out)
        for row in ranking.rows:
            name = row.hyperparameter
            tally.add(f"share of {name}", shares[name,], row.low, row.high)
            shown[name] = shown.get(name, 0) + row.above_chance
            if n is None:
                cost = mean_cost(truth, NAMES.index(name))
                tally.add(f"mean cost of {name}", cost, row.effect_low, row.effect_high)
        for pair in ranking.interactions:
            if pair.is_testable:
                both = pair.hyperparameters
                of = f"share of {' x '.join(both)}"
                tally.add(of, shares[both], pair.low, pair.high)
        if best and n is None:
            for reach in compare_levels(grouped, laid_out):
                if reach.low is not None and reach.high is not None:
                    spread = best_spread(truth, NAMES.index(reach.hyperparameter))
                    of = f"best-over-others spread of {reach.hyperparameter}"
                    tally.add(of, spread, reach.low, reach.high)
    return {
        "noise": noise,
        "configurations": 27 if n is None else n,
        "seeds": seeds,
        "true_shares": {" x ".join(names): round(share, 4) for names, share in shares.items()},
        "intervals": tally.result(),
        "shown": {name: count / tables for name, count in shown.items()},
    }


def _by_level(truth: Truth, axis: int) -> list[list[float]]:
    cells = list(itertools.product(range(3), repeat=3))
    return [[truth(float(c[0]), c[1], c[2]) for c in cells if c[axis] == v] for v in range(3)]


def mean_cost(truth: Truth, axis: int) -> float:
    """Compute the range of the means over the levels of an axis."""
    return float(np.ptp([np.mean(level) for level in _by_level(truth, axis)]))


def best_spread(truth: Truth, axis: int) -> float:
    """Compute the range of the best over the levels of an axis."""
    return float(np.ptp([max(level) for level in _by_level(truth, axis)]))


def cover_rate(
    middle: float, slope: float, logs: np.ndarray[Any, np.dtype[np.float64]] | int, tables: int
) -> dict[str, Any]:
    """Count coverage of the highest stable learning rate; an open side contains everything.

    Args:
        middle: decimal logarithm of the learning rate at which half diverge; slope: of the log
            odds, a decade; logs: learning rates of a grid, or how many are drawn at random.
    """
    rng = np.random.default_rng(7)
    tally, told = Tally(), 0
    for _ in range(tables):
        tried = rng.uniform(-5, -2, logs) if isinstance(logs, int) else logs
        lost = rng.uniform(size=len(tried)) < 1 / (1 + np.exp(-slope * (tried - middle)))
        rate = stable_rate(tried, lost.astype(np.float64))
        told += rate.basis == "curve"
        if rate.basis != "cannot tell":
            low = math.log10(rate.low) if rate.low else -7.0
            high = math.log10(rate.high) if rate.high else 0.0
            tally.add("highest stable lr", middle, low, high)
    return {"trials": len(tried), "intervals": tally.result(), "told": told / tables}


def arms(tables: int) -> dict[str, Callable[[], dict[str, Any]]]:
    """List the arms on rankings and stable learning rates."""
    grid = np.repeat(np.linspace(-5, -2, 7), 5)

    def ranking(name: str, noise: float, **how: Any) -> Callable[[], dict[str, Any]]:
        return lambda: cover_ranking(TRUTHS[name], noise, tables=tables, best=True, **how)

    return {
        **{f"factorial-{name}": ranking(name, 0.05) for name in TRUTHS},
        "factorial-additive-3-seeds": ranking("additive", 0.05, seeds=3),
        "sampled-additive": ranking("additive", 0.05, n=60),
        "sampled-interacting": ranking("interacting", 0.05, n=60),
        "sampled-noise": ranking("noise", 0.05, n=40),
        "stable-lr-grid": lambda: cover_rate(-3.0, 6.0, grid, tables),
        "stable-lr-random": lambda: cover_rate(-2.8, 10.0, 40, tables),
        "stable-lr-sharp-and-few": lambda: cover_rate(-3.0, 60.0, 12, tables),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tables", type=int, default=200)
    parser.add_argument("--arms", help="names separated by commas; all by default")
    options = parser.parse_args()
    # By its own name, as this file is run; tests import this module as part of a package.
    searches = importlib.import_module("searches")
    known = {
        **arms(options.tables),
        **searches.methods_arms(options.tables),
        **searches.levels_arms(options.tables),
    }
    results = []
    for name in options.arms.split(",") if options.arms else known:
        began = time.process_time()
        found = known[name]()
        spent = round(time.process_time() - began, 2)
        results.append({"arm": name, "cpu_s": spent, "tables": options.tables, **found})
        print(name, json.dumps(found.get("intervals", found.get("verdicts"))), flush=True)
        document = {"environment": environment(), "level": 0.9, "arms": results}
        options.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
