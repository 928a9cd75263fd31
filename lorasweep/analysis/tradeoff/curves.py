"""Learning and forgetting over duration: one curve for each configuration without its duration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lorasweep.analysis.scale import DURATIONS
from lorasweep.analysis.types import Number, Result
from lorasweep.spec.space import Level
from lorasweep.store.configurations import is_scored
from lorasweep.store.results import TrialResult

TRAINED = "trained tokens"
# Equal trials differ a bit in the tokens that they were trained on.
_SAME = 1.5


class CurvePoint(Result):
    """Trials of one configuration at one duration.

    n: seeds that completed; low and high are the range over them.
    forgetting: None where the base was not measured; source_accuracy likewise where that was not.
    """

    at: float
    n: int
    learning: float
    learning_low: float
    learning_high: float
    forgetting: Number
    forgetting_low: Number
    forgetting_high: Number
    source_accuracy: Number


class Curve(Result):
    """One configuration over several durations.

    duration: the hyperparameter that says how long, or `trained tokens`; its unit is its own.
    configuration: what differs between the method's trials, duration left out.
    """

    domain: str = ""
    method: str
    configuration: Mapping[str, Level]
    duration: str
    points: tuple[CurvePoint, ...]


def trace_curves(trials: Sequence[TrialResult]) -> tuple[Curve, ...]:
    """Trace each configuration over its durations, two or more, in the order of the trials."""
    by_method: dict[str, list[TrialResult]] = {}
    for trial in trials:
        if is_scored(trial):
            by_method.setdefault(trial.method, []).append(trial)
    return tuple(curve for own in by_method.values() for curve in _of_method(own))


def _duration(trials: Sequence[TrialResult]) -> str | None:
    """Find what the durations of a method's trials are measured in; None where they are equal."""
    for name in DURATIONS:
        values = {t.hyperparameters.get(name) for t in trials}
        if len(values) > 1 and all(isinstance(value, int | float) for value in values):
            return name
    tokens = [trial.tokens for trial in trials]
    return TRAINED if min(tokens) > 0 and max(tokens) > _SAME * min(tokens) else None


def _place(trial: TrialResult, duration: str) -> float:
    if duration == TRAINED:
        return float(f"{trial.tokens:.2g}")
    return float(trial.hyperparameters[duration])


def _of_method(trials: Sequence[TrialResult]) -> list[Curve]:
    duration = _duration(trials)
    if duration is None:
        return []
    names = dict.fromkeys(name for trial in trials for name in trial.hyperparameters)
    varied = [
        name
        for name in names
        if name != duration and len({t.hyperparameters.get(name) for t in trials}) > 1
    ]
    groups: dict[object, dict[float, list[TrialResult]]] = {}
    for trial in trials:
        key = tuple(trial.hyperparameters.get(name) for name in varied)
        groups.setdefault(key, {}).setdefault(_place(trial, duration), []).append(trial)
    curves = []
    for by_place in groups.values():
        if len(by_place) < 2:
            continue
        first = next(iter(by_place.values()))[0]
        own = {n: first.hyperparameters[n] for n in varied if n in first.hyperparameters}
        points = tuple(_point(at, by_place[at]) for at in sorted(by_place))
        curves.append(
            Curve(
                domain=first.domain,
                method=first.method,
                configuration=own,
                duration=duration,
                points=points,
            )
        )
    return curves


def _point(at: float, trials: Sequence[TrialResult]) -> CurvePoint:
    learned = [t.learning for t in trials if t.learning is not None]
    forgotten = [t.forgetting for t in trials if t.forgetting is not None]
    kept = [t.source_accuracy for t in trials if t.source_accuracy is not None]
    return CurvePoint(
        at=at,
        n=len(learned),
        learning=sum(learned) / len(learned),
        learning_low=min(learned),
        learning_high=max(learned),
        forgetting=sum(forgotten) / len(forgotten) if forgotten else None,
        forgetting_low=min(forgotten, default=None),
        forgetting_high=max(forgotten, default=None),
        source_accuracy=sum(kept) / len(kept) if kept else None,
    )
