"""Generated programs, method by method: how many pass, and how many are distinct."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lorasweep.analysis.types import Result
from lorasweep.store.best import Best
from lorasweep.store.configurations import mean
from lorasweep.store.results import SweepResults, TrialResult
from lorasweep.store.scores import CodeScores, Distinct

BASE = "base"


class Programs(Result):
    """Generated programs of one model, or of several averaged, on one task.

    model: `base`, a method's best trial, or all of a method's completed trials.
    n: models that were averaged.
    pass_at: by k as text; exact, whitespace, syntax: distinct completions of a problem.
    failed_to_run, timed_out: completions, summed over the models.
    """

    domain: str = ""
    task: str
    model: str
    trial: str | None
    n: int
    samples: int
    pass_at: Mapping[str, float]
    exact: Distinct
    whitespace: Distinct
    syntax: Distinct
    failed_to_run: int
    timed_out: int


def compare_programs(results: SweepResults, best: Mapping[str, Best]) -> tuple[Programs, ...]:
    """Compare the base, each method's best trial and the mean of its trials, task by task."""
    measured = [trial for trial in results.trials if trial.status == "COMPLETE" and trial.code]
    tasks = dict.fromkeys(task for trial in measured for task in trial.code)
    rows = []
    for task in tasks:
        if results.base is not None and task in results.base.code:
            rows.append(_average(task, BASE, None, [results.base.code[task]]))
        for method in dict.fromkeys(trial.method for trial in measured):
            own = [t for t in measured if t.method == method and task in t.code]
            winner = best[method].winner.trial if method in best else None
            chosen = [t for t in own if t.trial == winner]
            rows += [_average(task, f"{method}, best", t.trial, [t.code[task]]) for t in chosen]
            rows.append(_average(task, f"{method}, all", None, _scores(own, task)))
    return tuple(rows)


def _scores(trials: Sequence[TrialResult], task: str) -> list[CodeScores]:
    return [trial.code[task] for trial in trials]


def _average(task: str, model: str, trial: str | None, scores: Sequence[CodeScores]) -> Programs:
    ks = scores[0].pass_at
    return Programs(
        task=task,
        model=model,
        trial=trial,
        n=len(scores),
        samples=scores[0].samples,
        pass_at={k: mean(score.pass_at.get(k) for score in scores) or 0.0 for k in ks},
        exact=_distinct([score.exact for score in scores]),
        whitespace=_distinct([score.whitespace for score in scores]),
        syntax=_distinct([score.syntax for score in scores]),
        failed_to_run=sum(score.failed_to_run for score in scores),
        timed_out=sum(score.timed_out for score in scores),
    )


def _distinct(counts: Sequence[Distinct]) -> Distinct:
    return Distinct(
        all=mean(count.all for count in counts) or 0.0,
        passed=mean(count.passed for count in counts),
        failed=mean(count.failed for count in counts),
    )
