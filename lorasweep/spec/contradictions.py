"""Contradictions between the sections of a study, each in one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lorasweep.spec.studies import has_no
from lorasweep.spec.targets import check_name
from lorasweep.spec.trial import DURATIONS, axes_of

if TYPE_CHECKING:  # which imports this module
    from lorasweep.spec.sweep import SweepSpec


def contradictions(study: SweepSpec) -> list[str]:
    """Find what the sections of a study cannot have together, each with its YAML path."""
    return [
        *_axes_of_the_method(study),
        *_durations(study),
        *_batches(study),
        *_points(study),
        *_unknown_targets(study),
    ]


def _axes_of_the_method(study: SweepSpec) -> list[str]:
    method = study.hyperparameters.method
    return [
        f"space.{axis}: {has_no(method, axis)}"
        for axis in study.space.axes
        if axis not in axes_of(method)
    ]


def _durations(study: SweepSpec) -> list[str]:
    """Find contradictions between the fields that set the length of a trial and its warm-up."""
    if study.train.warmup_steps is not None and "warmup" in study.space.axes:
        return ["space.warmup: must not be searched where train.warmup_steps sets the warm-up"]
    given = [name for name in DURATIONS if name in study.space.axes]
    if study.train.steps is not None and given:
        return [
            f"train.steps: must be null where space.{given[0]} sets the duration, got "
            f"{study.train.steps}"
        ]
    if len(given) == 2:
        return ["space.tokens: must not be searched with space.epochs, as both set the duration"]
    if study.hyperparameters.tokens is not None and given == ["epochs"]:
        return ["space.epochs: must not be searched where hyperparameters.tokens is given"]
    return []


def _batches(study: SweepSpec) -> list[str]:
    problems = []
    parts = study.resources.workers * (study.train.micro_batch or 1)
    owner = "hyperparameters" if "batch_size" not in study.space.axes else "space"
    for size in study.levels_of("batch_size"):
        if int(size) % parts:
            problems.append(
                f"{owner}.batch_size: must divide by resources.workers x train.micro_batch = "
                f"{parts}, got {size}"
            )
    if (
        any(study.levels_of(study.hyperparameters.dropout_name))
        and study.resources.workers > 1
        and study.train.micro_batch is None
    ):
        problems.append(
            "train.micro_batch: must be given with dropout and several workers, since dropout "
            "is drawn per micro-batch and null lets its size depend on the workers, got null"
        )
    return problems


def _points(study: SweepSpec) -> list[str]:
    levels = study.space.levels(study.search.grid_points)
    return [
        f"search.points: {axis} must be a level of space.{axis}, got {level!r}"
        for point in study.search.points
        for axis, level in point.items()
        if level not in levels.get(axis, ())
    ]


def _unknown_targets(study: SweepSpec) -> list[str]:
    problems = []
    owner = "hyperparameters" if "targets" not in study.space.axes else "space"
    for name in study.levels_of("targets") if study.method == "lora" else ():
        try:
            check_name(str(name), study.targets)
        except ValueError as error:
            problems.append(f"{owner}.targets: {error}")
    return problems
