"""How often is a method or a level wrongly called behind another? Searches with known best scores.

LoRA is searched over learning rate, targets and rank, full finetuning over the learning rate alone.
The arms count verdicts on two claims that compare methods and on four that compare levels, and how
often the intervals of the best learning rate and of the best configuration's score contain the
truth. `coverage.py` runs them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from lorasweep.analysis.advice.recommend import expected_of
from lorasweep.analysis.claims import methods, modules
from lorasweep.analysis.claims.best_lr import find_peak, rate_of
from lorasweep.analysis.claims.verdict import Claim, Verdict, decide, verdict_of
from lorasweep.analysis.evidence import Evidence, collect
from lorasweep.store.best import find_best
from lorasweep.store.configurations import configurations
from lorasweep.store.results import SweepResults, TrialResult

TARGETS = ("attention", "mlp", "all")
RANKS = (4, 16, 64)
# Learning by decades off the best rate.
PEAKS: dict[str, Callable[[float], float]] = {
    "parabola": lambda x: -0.06 * x * x,
    "flat": lambda x: -0.015 * x * x,
    "steep": lambda x: -0.03 * x * x if x < 0 else -0.25 * x * x,
    "bell": lambda x: 0.3 * math.expm1(-4.5 * x * x),
}
GAPS = (0.0, 0.03, 0.06, 0.12)
JUDGED = {claim.id: claim for claim in (*methods.CLAIMS, *modules.CLAIMS)}
# Each of them holds for `lora_score`: the MLP is 0.03 ahead of attention and 0.01 behind all, and
# rank 64 is 0.007 ahead of rank 16 and 0.02 ahead of rank 4.
ON_LEVELS = (
    "all-over-mlp-over-attention",
    "mlp-alone-nearly-matches-all",
    "rank-16-costs-little",
    "learning-grows-with-rank",
)
Point = tuple[float, int, int]


def lora_score(peak: str, point: Point) -> float:
    """Score a point of LoRA's space; `moving` has a best rate that depends on the others."""
    x, j, k = point
    if peak == "moving":
        off = x - 1.2 + 0.3 * (k - 2) + 0.2 * (j - 2)
        worse = (-0.02, -0.007, 0.0)[k] * (1.0 if j == 2 else 0.3)
        return 0.6 + PEAKS["parabola"](off) + (-0.04, -0.01, 0.0)[j] + worse
    return 0.6 + PEAKS[peak](x - 1.2) + (-0.04, -0.01, 0.0)[j] + (-0.02, -0.007, 0.0)[k]


def search_points(
    score: Callable[[Point], float], n: int, noise: float, rng: np.random.Generator, *, learns: bool
) -> tuple[list[Point], list[float]]:
    """Search two decades of learning rate, three targets and three ranks.

    A search that learns draws a quarter at random, and then changes one of the best fifth so far,
    as tree-structured Parzen estimators mostly do.
    """
    points: list[Point] = []
    scores: list[float] = []
    for i in range(n):
        point = (float(rng.uniform(0, 2)), int(rng.integers(3)), int(rng.integers(3)))
        if learns and i >= max(4, n // 4):
            best = np.argsort(scores)[::-1][: 2 + len(scores) // 5]
            x, j, k = points[int(rng.choice(best))]
            near = float(np.clip(rng.normal(x, 0.35), 0, 2))
            keep = rng.uniform(size=3) < (1 - 1 / (len(best) + 1), 0.75, 0.75)
            point = (
                near if keep[0] else point[0],
                j if keep[1] else point[1],
                k if keep[2] else point[2],
            )
        points.append(point)
        scores.append(score(point) + noise * float(rng.standard_normal()))
    return points, scores


def search_trials(
    method: str,
    score: Callable[[Point], float],
    forgets: float | None,
    how: tuple[int, float, bool, int],
    rng: np.random.Generator,
) -> list[TrialResult]:
    """Make the trials of a search, the best of it repeated on a second seed.

    Args:
        how: trials, noise, whether the search learns, and how many of the best are repeated.
    """
    n, noise, learns, confirm = how
    points, scores = search_points(score, n, noise, rng, learns=learns)
    runs = [(i, 0, learning) for i, learning in enumerate(scores)]
    for i in np.argsort(scores)[::-1][:confirm].tolist():
        runs.append((i, 1, score(points[i]) + noise * float(rng.standard_normal())))
    trials = []
    for i, seed, learning in runs:
        x, j, k = points[i]
        levels: dict[str, Any] = {"lr": 10 ** (x - (5 if method == "lora" else 6))}
        if method == "lora":
            levels |= {"targets": TARGETS[j], "rank": RANKS[k]}
        lost = None
        if forgets is not None:
            best = 1.2 if method == "lora" else 0.9
            lost = forgets + 0.03 * (x - best) + noise * float(rng.standard_normal())
        trials.append(
            TrialResult(
                trial=f"{method}{i}-{seed}",
                method=method,
                status="COMPLETE",
                seed=seed,
                hyperparameters=levels,
                number=i,
                stage="confirm" if seed else "search",
                learning=learning,
                forgetting=lost,
                source_accuracy=None if lost is None else 0.6 - lost,
            )
        )
    return trials


def collect_made(trials: list[TrialResult]) -> Evidence:
    """Gather simulated trials as the analysis does."""
    axes = ("lr", "targets", "rank")
    results = SweepResults("made", "?", axes, tuple(trials), origin="made")
    return collect(results, configurations(results.trials), {})


def judge_methods(
    n: int,
    *,
    learns: bool,
    tables: int,
    noise: float = 0.01,
    peak: str = "parabola",
    confirm: int = 2,
    forgetting: bool = False,
) -> dict[str, Any]:
    """Count verdicts where full finetuning's best is ahead of LoRA's by each of some gaps.

    With a gap of 0 both are equal at their best, and `holds here` is false; with a larger one
    `does not hold here` is. `as found` does not allow for what the searches may still gain.
    """
    rng = np.random.default_rng(2026)
    how = (n, noise, learns, confirm)
    ids = ("lora-learns-less", *(("lora-forgets-less",) if forgetting else ()))
    found: dict[str, dict[str, dict[str, float]]] = {}
    for gap in GAPS:
        counts: dict[str, Counter[str]] = {}
        for _ in range(tables):
            lora = search_trials(
                "lora", lambda p: lora_score(peak, p), 0.1 if forgetting else None, how, rng
            )
            top = PEAKS["parabola" if peak == "moving" else peak]
            full = search_trials(
                "full",
                lambda p, top=top, gap=gap: 0.6 + gap + top(p[0] - 0.9),  # type: ignore[misc]
                0.1 + gap if forgetting else None,
                how,
                rng,
            )
            evidence = collect_made([*lora, *full])
            for claim in (decide(JUDGED[name], evidence) for name in ids):
                _count(counts, claim)
        for name, shares in _shares(counts, tables).items():
            found.setdefault(name, {})[f"gap {gap:g}"] = shares
    settings = {"trials": n, "learns": learns, "noise": noise, "peak": peak, "confirm": confirm}
    return {**settings, "verdicts": found}


def judge_levels(
    n: int, *, learns: bool, tables: int, noise: float = 0.01, confirm: int = 2
) -> dict[str, Any]:
    """Count verdicts on levels of LoRA's hyperparameters; `does not hold here` is always false."""
    rng = np.random.default_rng(2027)
    counts: dict[str, Counter[str]] = {}
    for _ in range(tables):
        trials = search_trials(
            "lora", lambda p: lora_score("parabola", p), None, (n, noise, learns, confirm), rng
        )
        evidence = collect_made(trials)
        for name in ON_LEVELS:
            _count(counts, decide(JUDGED[name], evidence))
    settings = {"trials": n, "learns": learns, "noise": noise, "confirm": confirm}
    return {**settings, "verdicts": _shares(counts, tables)}


def cover_peak(
    n: int, *, learns: bool, tables: int, peak: str, noise: float = 0.01, confirm: int = 2
) -> dict[str, Any]:
    """Count how often the interval of the best learning rate contains it, and how wide it is.

    Widths and biases are in decades; where an end is open there is no width.
    """
    rng = np.random.default_rng(2028)
    how = (n, noise, learns, confirm)
    known: dict[str, list[tuple[bool, float | None, float]]] = {"lora": [], "full": []}
    for _ in range(tables):
        lora = search_trials("lora", lambda p: lora_score(peak, p), None, how, rng)
        full = search_trials("full", lambda p: 0.6 + PEAKS[peak](p[0] - 0.9), None, how, rng)
        evidence = collect_made([*lora, *full])
        for method, truth in (("lora", 1.2 - 5), ("full", 0.9 - 6)):
            found = find_peak(evidence, evidence.table(method))
            if found is None:
                continue
            rate = rate_of(found)
            low, high = (None if end is None else math.log10(end) for end in (rate.low, rate.high))
            holds = (low is None or low <= truth) and (high is None or truth <= high)
            width = None if low is None or high is None else high - low
            known[method].append((holds, width, math.log10(rate.effect) - truth))
    settings = {"trials": n, "learns": learns, "noise": noise, "peak": peak, "confirm": confirm}
    return {**settings, "intervals": {name: _covered(own) for name, own in known.items() if own}}


def cover_best(
    n: int, *, learns: bool, tables: int, peak: str, noise: float = 0.01, confirm: int = 2
) -> dict[str, Any]:
    """Count how often the interval of the recommended configuration's score contains the true one.

    `bias` is that of the expected score, `as_measured` that of the measured mean.
    """
    rng = np.random.default_rng(2029)
    known: list[tuple[bool, float | None, float]] = []
    measured: list[float] = []
    for _ in range(tables):
        trials = search_trials(
            "lora", lambda p: lora_score(peak, p), None, (n, noise, learns, confirm), rng
        )
        evidence, (best,) = collect_made(trials), find_best(configurations(trials))
        own = best.winner.configuration
        point = (
            math.log10(float(own["lr"])) + 5,
            TARGETS.index(str(own["targets"])),
            RANKS.index(int(own["rank"])),
        )
        truth, found = lora_score(peak, point), expected_of(evidence, "lora", best.winner)
        if found.low is None or found.high is None:
            continue
        holds = found.low <= truth <= found.high
        known.append((holds, found.high - found.low, found.effect - truth))
        measured.append(best.winner.learning - truth)
    settings = {"trials": n, "learns": learns, "noise": noise, "peak": peak, "confirm": confirm}
    covered = _covered(known)
    return {**settings, "intervals": {**covered, "as_measured": round(float(np.mean(measured)), 4)}}


def _covered(found: list[tuple[bool, float | None, float]]) -> dict[str, float | None]:
    widths = [width for _, width, _ in found if width is not None]
    return {
        "tables": len(found),
        "coverage": round(float(np.mean([holds for holds, _, _ in found])), 4),
        "closed": round(len(widths) / len(found), 4),
        "median_width": round(float(np.median(widths)), 4) if widths else None,
        "bias": round(float(np.mean([off for _, _, off in found])), 4),
    }


def _count(counts: dict[str, Counter[str]], claim: Claim) -> None:
    counts.setdefault(claim.id, Counter())[claim.verdict] += 1
    counts.setdefault(f"{claim.id}, as found", Counter())[_as_found(claim)] += 1


def _shares(counts: dict[str, Counter[str]], tables: int) -> dict[str, dict[str, float]]:
    return {
        name: {verdict: round(count / tables, 4) for verdict, count in sorted(verdicts.items())}
        for name, verdicts in counts.items()
    }


def _as_found(claim: Claim) -> str:
    """Judge a claim as if searches had found their best: all of its parts must hold."""
    verdicts: list[Verdict] = []
    for part in claim.parts:
        found, as_found = part.estimate, part.estimate.as_found
        if as_found is not None:
            found = found.model_copy(update={"low": as_found.low, "high": as_found.high})
        verdicts.append(part.region.judge(found))
    return verdict_of(verdicts) if verdicts else claim.verdict


def methods_arms(tables: int) -> dict[str, Callable[[], dict[str, Any]]]:
    """List the arms that simulate two methods."""

    def judge(n: int, *, learns: bool, **how: Any) -> Callable[[], dict[str, Any]]:
        return lambda: judge_methods(n, learns=learns, tables=tables, **how)

    made = {}
    for learns in (False, True):
        way = "learning" if learns else "random"
        for n in (12, 20, 40):
            made[f"methods-{way}-{n}"] = judge(n, learns=learns)
            for peak in ("flat", "steep", "moving", "bell"):
                made[f"methods-{way}-{n}-{peak}"] = judge(n, learns=learns, peak=peak)
        for noise in (0.005, 0.02):
            made[f"methods-{way}-20-noise-{noise:g}"] = judge(20, learns=learns, noise=noise)
        made[f"methods-{way}-20-one-seed"] = judge(20, learns=learns, confirm=0)
        made[f"methods-{way}-20-forgetting"] = judge(20, learns=learns, forgetting=True)
    return made


def levels_arms(tables: int) -> dict[str, Callable[[], dict[str, Any]]]:
    """List the arms on levels, best learning rates and recommended configurations."""
    made: dict[str, Callable[[], dict[str, Any]]] = {}
    for learns in (False, True):
        way = "learning" if learns else "random"
        for n in (8, 12, 20, 40):
            made[f"levels-{way}-{n}"] = partial(judge_levels, n, learns=learns, tables=tables)
        for name, cover, last in (("peak", cover_peak, "flat"), ("expected", cover_best, "moving")):
            for peak in ("parabola", "steep", "bell", last):
                for n in (12, 20, 40):
                    made[f"{name}-{way}-{n}-{peak}"] = partial(
                        cover, n, learns=learns, tables=tables, peak=peak
                    )
    return made
