"""Claims on the learning rate: where it is best, where it diverges, what it makes forget."""

from __future__ import annotations

import math

import numpy as np

from lorasweep.analysis.claims.best_lr import FEWEST_LRS, are_rates, find_peak, rate_of, ratio_of
from lorasweep.analysis.claims.compare import best_of, slope
from lorasweep.analysis.claims.verdict import (
    BIDERMAN,
    ILLUSION,
    TML,
    Definition,
    Outcome,
    Region,
    cite,
    judge_comparison,
    not_tested,
)
from lorasweep.analysis.evidence import Evidence
from lorasweep.analysis.intervals import FEWEST_VALUES, SEED, Estimate, mean_interval, middle
from lorasweep.analysis.table import Row

_TOO_FEW = (
    f"{{}} completed at too few learning rates to find the best one: {FEWEST_LRS} are needed, and "
    "more where other hyperparameters vary too"
)


def _within(what: str, found: Estimate, region: Region) -> Outcome:
    """Judge a best rate, unless it may lie beyond what was tried on either side."""
    if found.low is None and found.high is None:
        return Outcome(missing="the best learning rate is the lowest or the highest that was tried")
    return judge_comparison(what, found, region)


def _ten_times(evidence: Evidence) -> Outcome:
    lora, full = (find_peak(evidence, evidence.table(m)) for m in ("lora", "full"))
    if lora is None or full is None:
        missing = "full finetuning" if lora else "LoRA"
        return not_tested(_TOO_FEW.format(missing))
    return _within(
        "best learning rate, LoRA over full", ratio_of(lora, full), Region(above=5, below=20)
    )


def _recommended(evidence: Evidence) -> Outcome:
    peak = find_peak(evidence, evidence.table("lora"))
    if peak is None:
        return not_tested(_TOO_FEW.format("LoRA"))
    return _within("best learning rate of LoRA", rate_of(peak), Region(above=1e-5, below=5e-4))


def _same_for_ranks(evidence: Evidence) -> Outcome:
    table = evidence.table("lora")
    ranks = [r for r in table.scored.levels_of("rank") if not isinstance(r, str) and r >= 4]
    if len(ranks) < 2:
        return not_tested("LoRA was not tried at two ranks of 4 or more")
    low, high = min(ranks), max(ranks)
    peaks = [find_peak(evidence, table.at("rank", rank)) for rank in (high, low)]
    if peaks[0] is None or peaks[1] is None:
        return not_tested(f"ranks {low:g} and {high:g} were not tried at {FEWEST_LRS} rates each")
    what = f"best learning rate at rank {high:g} over that at rank {low:g}"
    return _within(what, ratio_of(peaks[0], peaks[1]), Region(above=0.5, below=2))


def _below_divergence(evidence: Evidence) -> Outcome:
    table = evidence.table("lora")
    if "lr" not in table.columns or not are_rates(table):
        return not_tested("LoRA's learning rate was not varied, or not always given")
    lost = [row for row in table.rows if row.diverged]
    if not lost:
        return not_tested("no LoRA trial diverged, so all learning rates lie below divergence")
    others = [name for name in table.columns if name != "lr"]
    groups: dict[object, list[Row]] = {}
    for row in table.rows:
        groups.setdefault(tuple(row.levels.get(name) for name in others), []).append(row)
    gaps = [gap for rows in groups.values() if (gap := _short_of(rows)) is not None]
    what = "highest stable learning rate over the best one, in decades"
    if len(gaps) >= FEWEST_VALUES:
        found = mean_interval(
            gaps, of="matched settings", basis="settings in which a higher rate diverged"
        )
        return judge_comparison(what, found, Region(below=0.5))
    whole = _short_of(table.rows)
    if whole is None or len(lost) < FEWEST_VALUES:
        return Outcome(missing=f"only {len(lost)} LoRA trials diverged")
    rng = np.random.default_rng(SEED)
    # By content, so that the order of trials plays no part in what is redrawn.
    rows = sorted(table.rows, key=lambda c: (float(c.levels["lr"]), c.learning or -math.inf))
    n = len(rows)
    redrawn = ([rows[i] for i in rng.integers(0, n, n)] for _ in range(200))
    draws = [gap for own in redrawn if (gap := _short_of(own)) is not None]
    if len(draws) < 160:
        return Outcome(missing="too few trials completed below a learning rate that diverged")
    low, high = middle(np.array(draws))
    found = Estimate(
        effect=whole,
        low=float(low),
        high=float(high),
        n=n,
        n_of="configurations",
        basis="redrawn configurations",
    )
    return judge_comparison(what, found, Region(below=0.5))


def _short_of(rows: list[Row] | tuple[Row, ...]) -> float | None:
    """Count the decades from the best rate up to the highest stable one, below a diverged one."""
    stable = [row for row in rows if row.learning is not None]
    lost = [float(row.levels["lr"]) for row in rows if row.diverged and not row.seeds]
    if len(stable) < 2 or not lost:
        return None
    highest = max(float(row.levels["lr"]) for row in stable)
    if max(lost) <= highest or best_of(stable, "learning") is None:
        return None
    best = max(stable, key=lambda row: row.learning or 0.0)
    return math.log10(highest / float(best.levels["lr"]))


def _more_forgetting(evidence: Evidence) -> Outcome:
    table = evidence.table("lora")
    if "lr" not in table.measured.columns:
        return not_tested("forgetting was not measured at several LoRA learning rates")
    what = "LoRA's forgetting for each decade of learning rate"
    found = slope(table, "lr", "forgetting", per="decade")
    return judge_comparison(what, found, Region(above=evidence.margin))


_GRID_OF_LRS = "Sweep lr of {} over two decades in at least five steps, with two seeds"

CLAIMS = (
    Definition(
        "best-lora-lr-ten-times-full",
        "The best learning rate of LoRA is about ten times that of full finetuning.",
        (
            cite(BIDERMAN, "v1", "section on sensitivity", "an order of magnitude above full"),
            cite(BIDERMAN, "v2", "appendix B, figure S1", "10 times (code) and 20 times (math)"),
            cite(TML, "", "learning rate", "9.8 times over 14 models"),
        ),
        "ratio of learning rates, LoRA over full",
        "holds if the ratio lies between 5 and 20",
        _GRID_OF_LRS.format("both methods"),
        _ten_times,
    ),
    Definition(
        "best-lora-lr-in-recommended-interval",
        "LoRA's best learning rate lies within 1e-5 to 5e-4, the interval to sweep.",
        (cite(BIDERMAN, "v2", "section 6", "sweep 1e-5 to 5e-4; usually best at 5e-5 to 5e-4"),),
        "learning rate",
        "holds if the best learning rate lies within the interval",
        _GRID_OF_LRS.format("LoRA"),
        _recommended,
    ),
    Definition(
        "optimal-lr-independent-of-rank",
        "The best learning rate hardly depends on the rank.",
        (cite(TML, "", "learning rate and rank", "below a factor of 2 from rank 4 to 512"),),
        "ratio of learning rates, highest rank over lowest",
        "holds if the ratio lies between 1/2 and 2",
        "Sweep lr in steps of two at a low and at a high rank, with two seeds",
        _same_for_ranks,
    ),
    Definition(
        "lr-best-just-below-divergence",
        "LoRA improves with the learning rate until it diverges.",
        (cite(BIDERMAN, "v2", "appendix B, figure S1", "monotone up to divergence"),),
        "decades of learning rate, highest stable minus best",
        "holds if the best rate lies less than half a decade below the highest stable one",
        "Extend lr upwards until trials diverge",
        _below_divergence,
    ),
    Definition(
        "larger-lr-more-forgetting",
        "A larger learning rate makes LoRA forget more.",
        (cite(ILLUSION, "", "section on learning rates", "more forgetting at higher rates"),),
        "forgetting for each decade of learning rate",
        "holds if forgetting rises by more than half a point for each decade",
        "Measure the source suite at several learning rates",
        _more_forgetting,
    ),
)
