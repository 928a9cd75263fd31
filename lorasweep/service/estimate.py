"""What one study of a sweep takes, reckoned from its configurations, its model and its data."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lorasweep.data.batches import steps_for
from lorasweep.model.shape import Architecture
from lorasweep.model.size import (
    FP32,
    GIGABYTE,
    STATES,
    StateMemory,
    flops_per_token,
    full_memory,
    lora_memory,
)
from lorasweep.service.extent import Extent
from lorasweep.service.speed import START_S, Speed, assumed_speed, on_gpus
from lorasweep.spec.sweep import SweepSpec
from lorasweep.spec.trial import DURATIONS, Hyperparameters, LoraHyperparameters
from lorasweep.train.optim import COOLDOWN

GPUS = (1, 8, 16, 32, 64)  # the columns of appendix H
# Axes that change what a trial takes; each of them is a list of levels.
_COSTLY = ("targets", "rank", "batch_size", "epochs", "tokens")


@dataclass(frozen=True)
class Work:
    """Hold what one configuration takes to train on one seed.

    trained: parameters that are trained.
    steps, tokens: None where the data's extent is not known.
    """

    trained: int
    steps: int | None
    tokens: float | None
    flops_per_token: float


def configurations(study: SweepSpec) -> list[Hyperparameters]:
    """List what a grid runs; of a search, every combination of what changes a trial's cost.

    A search draws from these evenly, as far as anybody can say before it runs.
    """
    from lorasweep.tune.search import grid_points

    fixed = study.hyperparameters
    if study.search.algorithm == "grid":
        points = grid_points(study)
    else:
        levels = {name: study.space.levels(2)[name] for name in study.space.axes if name in _COSTLY}
        crossed = itertools.product(*levels.values())
        points = [dict(zip(levels, values, strict=True)) for values in crossed]
    return [type(fixed).model_validate({**fixed.model_dump(), **point}) for point in points]


def work_of(
    study: SweepSpec, chosen: Hyperparameters, shape: Architecture, extent: Extent, seq_len: int
) -> Work:
    """Reckon what one configuration takes."""
    trained = shape.parameters
    if isinstance(chosen, LoraHyperparameters):
        trained = shape.trainable(chosen.targets, chosen.rank)
    steps, tokens = _duration(study, chosen, extent, seq_len)
    return Work(trained, steps, tokens, flops_per_token(shape, study.method, trained))


def _duration(
    study: SweepSpec, chosen: Hyperparameters, extent: Extent, seq_len: int
) -> tuple[int | None, float | None]:
    """Give steps and tokens; full sequences are the most that a step of unknown data holds."""
    full = chosen.batch_size * seq_len
    if study.train.steps is not None:
        if extent.tokens is None or not extent.examples:
            return study.train.steps, float(study.train.steps * full)
        each = extent.tokens / extent.examples
        return study.train.steps, study.train.steps * chosen.batch_size * each
    if chosen.tokens is None and extent.tokens is None:
        return None, None
    steps = steps_for(
        chosen.tokens,
        chosen.epochs,
        batch_size=chosen.batch_size,
        seq_len=seq_len,
        examples=extent.examples or max(1, (extent.tokens or 0) // seq_len),
    )
    return steps, float(chosen.tokens or (extent.tokens or 0) * chosen.epochs)


def shared_tokens(
    study: SweepSpec, chosen: Sequence[Hyperparameters], works: Sequence[Work]
) -> list[float]:
    """Give the tokens that each configuration trains on, what it takes from a trunk left out.

    In a grid, runs that differ in nothing but their duration share the trunk of the longest: it is
    trained once, and each goes on from it for its own decay (Biderman et al. 2024, v2, section 3).
    """
    tokens = [work.tokens or 0.0 for work in works]
    if not study.has_trunk or study.search.algorithm != "grid":
        return tokens
    trunks: dict[str, int] = {}
    for index, hyperparameters in enumerate(chosen):
        key = hyperparameters.model_dump_json(exclude={*DURATIONS})
        if key not in trunks or tokens[index] > tokens[trunks[key]]:
            trunks[key] = index
    own = [COOLDOWN * each for each in tokens]
    for index in trunks.values():
        own[index] = tokens[index]
    return own


def memory_of(study: SweepSpec, shape: Architecture, trained: int) -> StateMemory:
    """Give what a trial's state takes, or a lane's with as many slots as the sweep names."""
    if study.method == "full":
        return full_memory(shape.parameters, study.train.optimizer)
    alone = study.spread is not None
    return lora_memory(
        shape.parameters,
        trained,
        study.train.optimizer,
        frozen_bytes=_weight_bytes(study),
        slots=1 if alone or study.slots == "auto" else study.slots,
    )


def _weight_bytes(study: SweepSpec) -> int:
    """Give the bytes of a weight that is computed with: bf16 on GPUs, unless the sweep says so."""
    in_fp32 = study.model.dtype == "fp32" or (study.model.dtype == "auto" and not on_gpus(study))
    return FP32 if in_fp32 else 2


def estimate(
    study: SweepSpec, shape: Architecture, extent: Extent, seq_len: int, throughput: float | None
) -> dict[str, Any]:
    """Reckon a study; the names are those of `lorasweep plan --json` (see `plan.py`)."""
    from lorasweep.tune.search import planned_trials

    chosen = configurations(study)
    works = [work_of(study, one, shape, extent, seq_len) for one in chosen]
    trials = planned_trials(study)
    confirmations = study.search.repetitions(trials)
    trained = [work.trained for work in works]
    speed = assumed_speed(study, shape, _mean(trained), throughput)
    facts: dict[str, Any] = {
        "study": study.study_name,
        "method": study.method,
        "domain": study.domain,
        "trials": trials,
        "confirmations": confirmations,
        "duration": duration_text(study),
        "data": _source(study, extent),
        "parameters": shape.parameters,
        "trainable_parameters": _span(trained),
        "gpus": study.resources.workers,
        "tokens_per_s_assumed": round(speed.tokens_per_s, 1),
        "speed": speed.basis,
        **_memory(study, shape, max(trained)),
        **_disk(study, shape, _mean(trained), trials + confirmations),
    }
    known = all(work.tokens is not None for work in works)
    return facts | (_costs(study, chosen, works, trials, speed) if known else _UNKNOWN)


def _source(study: SweepSpec, extent: Extent) -> str:
    """Say where the number of a trial's tokens comes from."""
    counted = "tokens" in study.space.axes or study.hyperparameters.tokens is not None
    return "as the sweep says" if counted and study.train.steps is None else extent.source


_UNKNOWN: dict[str, Any] = {
    "steps_per_trial": None,
    "tokens_per_trial": None,
    "tokens": None,
    "tokens_shared": None,
    "flops": None,
    "hours": None,
    "hours_per_trial": None,
}


def _costs(
    study: SweepSpec,
    chosen: Sequence[Hyperparameters],
    works: Sequence[Work],
    trials: int,
    speed: Speed,
) -> dict[str, Any]:
    """Sum up what depends on how many tokens there are."""
    whole = [work.tokens or 0.0 for work in works]
    own = shared_tokens(study, chosen, works)
    flops = [tokens * work.flops_per_token for tokens, work in zip(own, works, strict=True)]
    # A grid runs each configuration once, and a search so many of them, even draws as it were; on
    # further seeds either all of them run again, trunks and all, or a few in their whole length.
    times = trials / len(works)
    if study.search.confirm == "all":
        times *= study.search.seeds
    repeated = 0 if study.search.confirm == "all" else study.search.repetitions(trials)
    plain = [tokens * work.flops_per_token for tokens, work in zip(whole, works, strict=True)]
    tokens = times * sum(own) + repeated * _mean(whole)
    jobs = trials + study.search.repetitions(trials)
    start_s = START_S if study.spread is not None or study.slots == 1 else 0.0
    rate = speed.tokens_per_s * study.resources.workers
    abreast = 1 if study.resources.max_concurrent == "auto" else study.resources.max_concurrent
    return {
        "steps_per_trial": _span([work.steps or 0 for work in works]),
        "tokens_per_trial": _span([round(each) for each in whole]),
        "tokens": round(tokens),
        "tokens_shared": round(times * (sum(whole) - sum(own))),
        "flops": times * sum(flops) + repeated * _mean(plain),
        "hours": (tokens / rate + jobs * start_s) / 3600 / abreast,
        "hours_per_trial": _span([(each / rate + start_s) / 3600 for each in whole]),
    }


def _memory(study: SweepSpec, shape: Architecture, trained: int) -> dict[str, Any]:
    """Give the state of the largest trial on each GPU, as the sweep has it and all sharded."""
    memory = memory_of(study, shape, trained)
    stage = 0 if study.spread is None else study.spread.stage
    offload = study.spread is not None and study.spread.offload
    here = memory.on_device(stage) if offload else memory
    return {
        "zero_stage": None if study.spread is None else stage,
        "state_memory_gb_per_gpu": here.per_gpu(study.resources.workers, stage) / GIGABYTE,
        "state_memory_gb_by_gpus": {str(n): memory.per_gpu(n, 3) / GIGABYTE for n in GPUS},
    }


def _disk(study: SweepSpec, shape: Architecture, trained: float, trials: int) -> dict[str, Any]:
    """Give what trials leave behind, and what each of those under way saves to go on from.

    The best of them is there twice, since it is copied to where a user looks for it. An adapter is
    saved in fp32, and a model that was tuned whole as it was computed with.
    """
    each = FP32 * trained if study.method == "lora" else _weight_bytes(study) * shape.parameters
    state = FP32 * (1 + STATES[study.train.optimizer]) * trained
    return {
        "disk_gb": (trials + 1) * each / GIGABYTE,
        "disk_gb_per_trial": each / GIGABYTE,
        "disk_gb_under_way": state / GIGABYTE,
    }


def duration_text(study: SweepSpec) -> str:
    """Say how long trials are."""
    if study.train.steps is not None:
        return f"{study.train.steps} steps"
    levels = study.space.levels(2)
    if "tokens" in levels:
        return f"{', '.join(f'{float(n) / 1e9:g}' for n in levels['tokens'])} billion tokens"
    if study.hyperparameters.tokens is not None:
        return f"{study.hyperparameters.tokens / 1e9:g} billion tokens"
    epochs = [f"{float(n):g}" for n in levels.get("epochs", (study.hyperparameters.epochs,))]
    return f"{', '.join(epochs)} epoch{'' if epochs == ['1'] else 's'}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _span(values: Sequence[float]) -> dict[str, float]:
    return {"min": min(values), "max": max(values)}
