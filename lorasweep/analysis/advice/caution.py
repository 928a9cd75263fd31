"""Warnings that a reader needs before relying on a sweep, one sentence each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from lorasweep.analysis.scale import Scale
from lorasweep.analysis.sensitivity.importance import Ranking
from lorasweep.analysis.tradeoff.spectral import ROUNDED, is_rounded
from lorasweep.spec.space import Level
from lorasweep.spec.studies import study_name
from lorasweep.store.best import Best
from lorasweep.store.configurations import is_scored
from lorasweep.store.kept import describe
from lorasweep.store.results import SweepResults, TrialResult

# A value in this outer share of an interval, on its own scale, is at its edge.
_EDGE = 0.1


def edge(scale: Scale, level: Level) -> str | None:
    """Locate a level at an end of what was tried, `lower` or `upper`; None inside.

    Text has no ends, and two levels have nothing between them. 0 is no lower end, since no
    hyperparameter goes below it.
    """
    if isinstance(level, str) or scale.kind == "text":
        return None
    if scale.is_interval:
        ends = [scale.coordinate(end) for end in (scale.edges[0], scale.edges[-1])]
        place = (scale.coordinate(level) - ends[0]) / (ends[1] - ends[0])
        side = "lower" if place < _EDGE else "upper" if place > 1 - _EDGE else None
    elif len(scale.levels) < 3:
        return None
    else:
        ends_at = {scale.levels[0]: "lower", scale.levels[-1]: "upper"}
        side = ends_at.get(level)
    return None if side == "lower" and level == 0 else side


def warn_of_sweep(results: SweepResults) -> tuple[str, ...]:
    """Collect the warnings that concern all trials of a sweep."""
    trials = results.trials
    sentences = [] if trials else ["No trial has started yet."]
    running = sum(trial.status in {"RUNNING", "PENDING"} for trial in trials)
    if running:
        plural = "s are" if running > 1 else " is"
        sentences.append(f"{running} trial{plural} not finished; the results may still change.")
    planned = results.trials_planned
    if planned is not None and results.state == "interrupted":
        done = len(trials) - running
        sentences.append(f"The sweep was interrupted after {done} of {planned} planned trials.")
    if results.state == "failed":
        sentences.append("The sweep ended with an error; see its log.")
    sentences += [note if note.endswith(".") else f"{note}." for note in results.notes]
    return tuple(sentences)


def warn_of_domain(
    results: SweepResults,
    by_method: Mapping[str, Sequence[TrialResult]],
    scales: Mapping[str, Mapping[str, Scale]],
    rankings: Mapping[str, Ranking],
    best: Mapping[str, Best],
) -> tuple[str, ...]:
    """Collect the warnings of one domain: about its scores, then method by method."""
    prefix = f"{results.domain}: " if results.domain else ""
    sentences = [f"{prefix}{sentence}" for sentence in _about_scores(results)]
    for method, trials in by_method.items():
        found = [
            *_about_trials(trials),
            *_about_pairs(trials, scales[method]),
            *_about_ranking(rankings[method]),
        ]
        if method in best:
            found += _about_best(best[method], scales[method])
            found += _about_kept(results, best[method])
        study = study_name(method, results.domain)
        sentences += [f"{study}: {sentence}" for sentence in found]
    return tuple(dict.fromkeys(sentences))


def _about_scores(results: SweepResults) -> Iterator[str]:
    scored = [trial for trial in results.trials if is_scored(trial)]
    if results.trials and not scored:
        yield "No trial has completed with a learning score, so nothing can be compared yet."
    if results.spec is not None and results.base is None:
        yield "The base model was not measured, so forgetting is unknown."
    unmeasured = sum(t.source_accuracy is None and t.forgetting is None for t in scored)
    if scored and unmeasured == len(scored):
        yield "The source domain was not measured, so forgetting is unknown."
    elif unmeasured:
        yield (
            f"{unmeasured} of {len(scored)} completed trials have no source score and are left out "
            "of the learning-forgetting front."
        )
    elif scored and all(trial.forgetting is None for trial in scored):
        yield "Forgetting is unknown; the front compares source accuracy instead."


def _about_ranking(ranking: Ranking) -> Iterator[str]:
    if ranking.design == "none":
        yield f"no ranking: {ranking.reason}."
    elif ranking.reason:
        yield f"the ranking is limited: {ranking.reason}."


def _about_trials(trials: Sequence[TrialResult]) -> Iterator[str]:
    finished = [trial for trial in trials if trial.status not in {"RUNNING", "PENDING"}]
    diverged = sum(trial.status == "DIVERGED" for trial in finished)
    if finished and diverged == len(finished):
        yield (
            f"all {diverged} finished trials diverged; lower the learning rates that are searched."
        )
    elif diverged * 3 >= len(finished) > 0:
        yield f"{diverged} of {len(finished)} finished trials diverged."
    failed = sum(trial.status == "FAILED" for trial in finished)
    if failed:
        yield f"{failed} of {len(finished)} finished trials failed with an error."
    rounded = sum(is_rounded(trial.spectrum) for trial in finished)
    if rounded:
        yield (
            f"in {rounded} of {sum(bool(t.spectrum) for t in finished)} trials with "
            f"spectra, more than {ROUNDED:.0%} of what was added is rounding of the saved weights, "
            "which has full rank, so the ranks of these updates are meaningless."
        )
    unscored = sum(t.status == "COMPLETE" and t.learning is None for t in finished)
    if unscored:
        yield f"{unscored} completed trials have no learning score and are left out."


def _about_pairs(trials: Sequence[TrialResult], scales: Mapping[str, Scale]) -> Iterator[str]:
    """Find pairs of hyperparameters that always changed together."""
    for name, scale in scales.items():
        for other, beside in scales.items():
            if other == name or scale.is_interval or beside.is_interval:
                continue
            pairs = {
                (trial.hyperparameters[other], trial.hyperparameters[name])
                for trial in trials
                if is_scored(trial) and {name, other} <= set(trial.hyperparameters)
            }
            own = len({value for _, value in pairs})
            if own > 1 and len({at for at, _ in pairs}) == len(pairs):
                yield (
                    f"at each {other} only one {name} was tried, so their effects cannot be "
                    "separated."
                )


def _about_best(best: Best, scales: Mapping[str, Scale]) -> Iterator[str]:
    winner = best.winner
    for name, scale in scales.items():
        level = winner.configuration.get(name)
        side = None if level is None else edge(scale, level)
        if side and not isinstance(level, str):
            yield (
                f"the best {name}, {level:.4g}, is at the {side} end of what was "
                f"tried ({scale.labels[0].split('..')[0]} to {scale.labels[-1].split('..')[-1]}); "
                "a value beyond may be better."
            )
    if winner.lost:
        yield (
            f"the best configuration diverged or failed in {winner.lost} of "
            f"{winner.lost + len(winner.seeds)} runs."
        )
    higher = best.higher_on_fewer_seeds
    if higher is not None:
        yield (
            f"trial {higher.trial} scored higher, {higher.learning:.4g}, but on "
            f"{len(higher.seeds)} seed(s) only, and a single high score is often a lucky one."
        )
    elif len(winner.seeds) == 1:
        yield "the best configuration rests on one seed."


def _about_kept(results: SweepResults, best: Best) -> Iterator[str]:
    check = results.kept.get(best.winner.trial)
    if check is not None and check.status != "agrees":
        yield f"{describe(check)}."
