"""What is measured on a model and a trial: each score and count, declared once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from lorasweep.spec.trial import Frozen


@dataclass(frozen=True, slots=True)
class Measure:
    """Metadata of a measured field, from which gauges, tables, exports and docs are made.

    help: one line.
    higher_is_better: None for a count or a time, which is neither.
    """

    help: str
    unit: str
    higher_is_better: bool | None = None


def finite_or_none(value: Any) -> Any:
    """Replace NaN and infinity by None, since JSON has neither."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _finite_scores(value: Any) -> Any:
    """Leave out the tasks whose score is not finite, as if they had not been measured."""
    if not isinstance(value, dict):
        return value
    return {name: score for name, score in value.items() if finite_or_none(score) is not None}


Score = Annotated[float | None, BeforeValidator(finite_or_none)]
TaskScores = Annotated[dict[str, float], BeforeValidator(_finite_scores)]


class Distinct(Frozen):
    """Number of distinct completions of a problem among its samples, averaged over problems.

    all: among all samples; passed, failed: among those, over the problems that have any; None where
        no problem has.
    """

    all: float
    passed: float | None = None
    failed: float | None = None


class CodeScores(Frozen):
    """Scores of a model's programs on one task.

    problems, samples: how many, and completions of each.
    pass_at: unbiased estimate of pass@k (Chen et al. 2021, section 2.1), by k as text.
    failed_to_run: completions that the sandbox could not judge; they count as wrong.
    timed_out: completions that ran out of time.
    exact, whitespace, syntax: distinct completions as written, with runs of blanks as one, and as
        syntax trees with names kept (Biderman et al. 2024, v2, section 5.4, has the first).
    """

    problems: int
    samples: int
    pass_at: dict[str, float]
    failed_to_run: int = 0
    timed_out: int = 0
    exact: Distinct
    whitespace: Distinct
    syntax: Distinct


class Scores(Frozen):
    """Scores of one model, tuned or not.

    tasks: every task's own score; of code its pass@1.
    code: more on each task whose programs were run.
    """

    learning: Annotated[Score, Measure("Mean score over the learning suite.", "share", True)] = None
    source_accuracy: Annotated[
        Score, Measure("Mean accuracy over the source suite.", "share", True)
    ] = None
    response_loss: Annotated[
        Score,
        Measure("Cross-entropy per held-out response token.", "nats per token", False),
    ] = None
    tasks: TaskScores = {}
    code: dict[str, CodeScores] = {}


class TrialScores(Scores):
    """Scores of one trial's model, also against the base."""

    forgetting: Annotated[
        Score,
        Measure("Source accuracy of the base minus the trial's.", "share", False),
    ] = None
    train_loss: Annotated[Score, Measure("Last finite training loss.", "nats per token", False)] = (
        None
    )


class Measures(TrialScores):
    """Everything measured on one trial: its scores and what it took."""

    steps: Annotated[int, Measure("Optimizer steps.", "steps")] = 0
    tokens: Annotated[int, Measure("Trained tokens, padding left out.", "tokens")] = 0
    trainable: Annotated[int, Measure("Trained parameters.", "parameters")] = 0
    wall_s: Annotated[
        float, Measure("From the start of the trial's process to its last report.", "seconds")
    ] = 0.0
    train_s: Annotated[float, Measure("Of wall_s, in optimizer steps.", "seconds")] = 0.0
    evaluate_s: Annotated[float, Measure("Of wall_s, in evaluation.", "seconds")] = 0.0


def _declared() -> Iterator[tuple[str, FieldInfo, Measure]]:
    for name, field in Measures.model_fields.items():
        for measure in field.metadata:
            if isinstance(measure, Measure):
                yield name, field, measure


MEASURES = {name: measure for name, _, measure in _declared()}
# Shares before losses; within each, as declared.
SCORES = tuple(
    sorted(
        (name for name, measure in MEASURES.items() if measure.higher_is_better is not None),
        key=lambda name: MEASURES[name].unit != "share",
    )
)
COUNTS = tuple(name for name, field, _ in _declared() if field.annotation is int)
TIMES = tuple(name for name, measure in MEASURES.items() if measure.unit == "seconds")


def label_of(name: str) -> str:
    """Name of a measure as people read it."""
    return name.replace("_", " ")
