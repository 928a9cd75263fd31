"""Claims on what finetuning adds to the weights: its rank, and intruder dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import numpy as np

from lorasweep.analysis.claims.methods import LOW_RANK
from lorasweep.analysis.claims.verdict import (
    BIDERMAN,
    ILLUSION,
    Definition,
    Outcome,
    Region,
    cite,
    judge_comparison,
    not_tested,
)
from lorasweep.analysis.evidence import Evidence
from lorasweep.analysis.intervals import (
    FEWEST_VALUES,
    SEED,
    Estimate,
    correlation_interval,
    interval_from_draws,
    mean_interval,
    welch_interval,
    wilson_interval,
)
from lorasweep.analysis.tradeoff.spectral import is_rounded
from lorasweep.spec.alpha import FIXED, is_multiple, rule_of
from lorasweep.store.configurations import forgetting_of
from lorasweep.store.records import MatrixSpectrum
from lorasweep.store.results import TrialResult

_LEADING = 10  # singular vectors that are looked at for intruders (Shuttleworth et al. 2024)
_WEAK = 0.2


def _measured(evidence: Evidence, method: str) -> list[TrialResult]:
    return [trial for trial in evidence.trials(method) if trial.spectrum]


def _shares(matrices: Sequence[MatrixSpectrum]) -> list[float]:
    """Divide each update's rank by the rank that it could have."""
    return [m.update / min(m.outputs, m.inputs) for m in matrices]


def _intruders(trial: TrialResult) -> float:
    """Compute the share of intruders among the leading singular vectors."""
    return sum(m.intruders for m in trial.spectrum) / sum(
        min(_LEADING, m.outputs, m.inputs) for m in trial.spectrum
    )


def _high_rank(evidence: Evidence) -> Outcome:
    trials = _measured(evidence, "full")
    if not trials:
        return not_tested("no full finetuning with its spectrum measured")
    trials = [trial for trial in trials if not is_rounded(trial.spectrum)]
    if not trials:
        return Outcome(missing="the update is too small to tell from the rounding of the weights")
    what = "rank that explains 90% of full finetuning's update, over the possible rank"
    medians = [median(_shares(trial.spectrum)) for trial in trials]
    if len(medians) >= FEWEST_VALUES:
        found = mean_interval(medians, of="trials", basis="median over matrices of each trial")
        return judge_comparison(what, found, Region(above=0.25))
    shares = np.sort(_shares([matrix for trial in trials for matrix in trial.spectrum]))
    n = len(shares)
    if n < FEWEST_VALUES:
        found = Estimate(effect=median(medians), n=n, n_of="matrices", basis="")
        return judge_comparison(what, found, Region(above=0.25))
    rng = np.random.default_rng(SEED)
    draws = np.median(shares[rng.integers(0, n, (400, n))], axis=1)
    found = interval_from_draws(
        float(np.median(shares)), draws, n=n, of="matrices", basis="redrawn matrices"
    )
    return judge_comparison(what, found, Region(above=0.25))


def _with_forgetting(evidence: Evidence) -> Outcome:
    pairs = [
        (_intruders(trial), cost)
        for trial in _measured(evidence, "lora")
        if (cost := forgetting_of(trial, by_forgetting=evidence.by_forgetting)) is not None
    ]
    if not pairs:
        return not_tested("no LoRA trial has both its spectrum and its forgetting measured")
    found = correlation_interval([a for a, _ in pairs], [b for _, b in pairs], of="trials")
    return judge_comparison("correlation of intruders and forgetting", found, Region(above=_WEAK))


def _with_rate(evidence: Evidence) -> Outcome:
    pairs = [
        (float(rate), _intruders(trial))
        for trial in _measured(evidence, "lora")
        if not isinstance(rate := trial.hyperparameters.get("lr"), str | None)
    ]
    if len({rate for rate, _ in pairs}) < 2:
        return not_tested("spectra were not measured at several LoRA learning rates")
    found = correlation_interval([a for a, _ in pairs], [b for _, b in pairs], of="trials")
    return judge_comparison(
        "correlation of learning rate and intruders", found, Region(above=_WEAK)
    )


def _none_in_full(evidence: Evidence) -> Outcome:
    trials = _measured(evidence, "full")
    if not trials:
        return not_tested("no full finetuning with its spectrum measured")
    looked = sum(min(_LEADING, m.outputs, m.inputs) for t in trials for m in t.spectrum)
    count = sum(m.intruders for t in trials for m in t.spectrum)
    found = wilson_interval(count, looked, of="singular vectors")
    what = "intruders among full finetuning's leading singular vectors"
    return judge_comparison(what, found, Region(below=0.02))


def _effective(evidence: Evidence) -> Outcome:
    """Compare effective ranks at high rank under alpha = 2r and a fixed alpha."""
    sides: tuple[list[float], list[float]] = ([], [])
    for trial in _measured(evidence, "lora"):
        rank, alpha = (trial.hyperparameters.get(name) for name in ("rank", "alpha"))
        if isinstance(rank, str | None) or rank < LOW_RANK or alpha is None:
            continue
        value = median(m.effective / min(float(rank), m.outputs, m.inputs) for m in trial.spectrum)
        if is_multiple(alpha, rank, 2):
            sides[0].append(value)
        elif rule_of(alpha) == FIXED:
            sides[1].append(value)
    if not sides[0] or not sides[1]:
        return not_tested(
            f"no spectra at rank {LOW_RANK} or more both at alpha = 2r and at a fixed one"
        )
    what = "effective rank over rank, alpha 2r minus a fixed alpha"
    return judge_comparison(what, welch_interval(*sides, of="trials"), Region(above=0.0))


_SPECTRUM = "Run {} with --set evaluate.spectrum=true"

CLAIMS = (
    Definition(
        "full-update-has-high-rank",
        "What full finetuning adds to the weights has a high rank.",
        (
            cite(BIDERMAN, "v1", "section on spectra", "10 to 100 times the ranks of LoRA"),
            cite(BIDERMAN, "v2", "section 5.5, figures 6 and S7", "about half of all for 90%"),
        ),
        "rank for 90% of the squared singular values, over the possible rank",
        "holds if more than a quarter of the possible rank is needed",
        _SPECTRUM.format("full finetuning"),
        _high_rank,
    ),
    Definition(
        "intruders-go-with-forgetting",
        "LoRA trials with more intruder dimensions forget more.",
        (cite(ILLUSION, "", "section on forgetting", "Spearman 0.97 (RoBERTa), 0.59 (LLaMA2)"),),
        "Spearman's correlation",
        "holds if the correlation is above 0.2",
        _SPECTRUM.format("ten LoRA trials or more"),
        _with_forgetting,
    ),
    Definition(
        "full-has-no-intruders",
        "Full finetuning makes no intruder dimensions.",
        (cite(ILLUSION, "", "section on intruders", "essentially none, LoRA up to rank 256 has"),),
        "share of the ten leading singular vectors of each matrix",
        "holds if fewer than 2% of them are intruders",
        _SPECTRUM.format("full finetuning"),
        _none_in_full,
    ),
    Definition(
        "larger-lr-more-intruders",
        "A larger learning rate makes more intruder dimensions.",
        (cite(ILLUSION, "", "section on learning rates", "more at higher rates"),),
        "Spearman's correlation",
        "holds if the correlation is above 0.2",
        _SPECTRUM.format("LoRA at ten learning rates or more"),
        _with_rate,
    ),
    Definition(
        "alpha-2r-raises-effective-rank",
        "At high ranks alpha = 2r gives updates of a higher effective rank than a fixed alpha.",
        (
            cite(
                ILLUSION,
                "",
                "section on alpha",
                "r=768 below 50 to 100 at alpha 8, far above at 2r",
            ),
        ),
        "effective rank over rank, alpha 2r minus fixed",
        "holds if it is higher",
        _SPECTRUM.format("LoRA at rank 256 and alpha=2r|32, three trials each,"),
        _effective,
    ),
)
