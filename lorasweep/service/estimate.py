"""Estimate what one study takes, from its configurations, its model and its data."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from lorasweep.data.batches import steps_of
from lorasweep.model.base import dtype_name
from lorasweep.model.coverage import Coverage, coverage
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
from lorasweep.service.data_size import DataSize
from lorasweep.service.study_plan import Span, StudyPlan, TrainingCosts
from lorasweep.service.throughput import START_S, Throughput, assumed_throughput, on_gpus
from lorasweep.spec.grid import grid_points, planned_trials
from lorasweep.spec.space import Level
from lorasweep.spec.sweep import SweepSpec
from lorasweep.spec.trial import (
    DURATIONS,
    HYPERPARAMETERS,
    Hyperparameters,
    LoraHyperparameters,
)
from lorasweep.train.optim import COOLDOWN

GPUS = (1, 8, 16, 32, 64)  # the columns of the paper's appendix H


@dataclass(frozen=True)
class TrialCost:
    """What one configuration takes to train on one seed.

    trained: trainable parameters.
    steps, tokens: None where the size of the data is not known.
    """

    trained: int
    steps: int | None
    tokens: float | None
    flops_per_token: float

    @property
    def flops(self) -> float:
        """FLOPs of a trial that shares no trunk; 0 where its tokens are not known."""
        return (self.tokens or 0.0) * self.flops_per_token


def _levels(study: SweepSpec) -> dict[str, tuple[Level, ...]]:
    """List the levels of each axis; a range is represented by its two ends."""
    return study.space.levels(2)


def configurations(study: SweepSpec) -> list[Hyperparameters]:
    """List the configurations of a grid; of a search, all combinations of what changes the cost.

    Before a search runs, nothing better is known than that it draws from these evenly.
    """
    fixed = study.hyperparameters
    if study.search.is_grid:
        points = grid_points(study)
    else:
        costly = {name for name, declared in HYPERPARAMETERS.items() if declared.changes_cost}
        levels = {name: values for name, values in _levels(study).items() if name in costly}
        crossed = itertools.product(*levels.values())
        points = [dict(zip(levels, values, strict=True)) for values in crossed]
    return [type(fixed).model_validate({**fixed.model_dump(), **point}) for point in points]


def trial_cost(
    study: SweepSpec, chosen: Hyperparameters, shape: Architecture, size: DataSize, seq_len: int
) -> TrialCost:
    """Estimate what one configuration takes."""
    trained = shape.parameters
    if isinstance(chosen, LoraHyperparameters):
        trained = shape.trainable(chosen, study.targets)
    steps, tokens = _duration(study, chosen, size, seq_len)
    return TrialCost(trained, steps, tokens, flops_per_token(shape, study.method, trained))


def _duration(
    study: SweepSpec, chosen: Hyperparameters, size: DataSize, seq_len: int
) -> tuple[int | None, float | None]:
    """Count a trial's steps and tokens.

    Where the data are unknown, every sequence is assumed full, the most that a step can hold.
    """
    if study.train.steps is None and chosen.tokens is None and size.tokens is None:
        return None, None
    examples = size.examples or max(1, (size.tokens or 0) // seq_len)
    steps = steps_of(chosen, study.train, seq_len=seq_len, examples=examples)
    if study.train.steps is None:
        return steps, float(chosen.tokens or (size.tokens or 0) * chosen.epochs)
    each = float(seq_len)
    if size.tokens is not None and size.examples:
        each = size.tokens / size.examples
    return steps, steps * chosen.batch_size * each


def tokens_without_trunks(
    study: SweepSpec, chosen: Sequence[Hyperparameters], costs: Sequence[TrialCost]
) -> list[float]:
    """Count the tokens that each configuration trains on, leaving out what it takes from a trunk.

    In a grid, runs that differ only in their duration share the trunk of the longest: it is trained
    once, and each run continues from it for its own decay (Biderman et al. 2024, v2, section 3).
    """
    tokens = [cost.tokens or 0.0 for cost in costs]
    if not study.has_trunk or not study.search.is_grid:
        return tokens
    longest: dict[str, int] = {}  # by everything but the duration
    for index, hyperparameters in enumerate(chosen):
        key = hyperparameters.model_dump_json(exclude={*DURATIONS})
        if key not in longest or tokens[index] > tokens[longest[key]]:
            longest[key] = index
    own = [COOLDOWN * each for each in tokens]
    for index in longest.values():
        own[index] = tokens[index]
    return own


def memory_of(study: SweepSpec, shape: Architecture, trained: int) -> StateMemory:
    """Estimate the state of a trial, or of a lane with as many slots as the sweep names."""
    if study.method == "full":
        return full_memory(shape.parameters, study.train.optimizer)
    is_alone = study.sharding is not None
    return lora_memory(
        shape.parameters,
        trained,
        study.train.optimizer,
        frozen_bytes=_weight_bytes(study),
        slots=1 if is_alone or study.slots == "auto" else study.slots,
    )


def _weight_bytes(study: SweepSpec) -> int:
    """Bytes of a weight in the dtype of the forward pass: bf16 on GPUs unless the sweep differs."""
    return FP32 if dtype_name(study.model, on_gpu=on_gpus(study)) == "fp32" else 2


def estimate(
    study: SweepSpec, shape: Architecture, size: DataSize, seq_len: int, throughput: float | None
) -> StudyPlan:
    """Estimate what a study takes; notes are left to the caller."""
    chosen = configurations(study)
    costs = [trial_cost(study, one, shape, size, seq_len) for one in chosen]
    trials = planned_trials(study)
    confirmations = study.search.repetitions(trials)
    trained = [cost.trained for cost in costs]
    speed = assumed_throughput(study, shape, _mean(trained), throughput)
    memory = memory_of(study, shape, max(trained))
    stage = 0 if study.sharding is None else study.sharding.stage
    is_offloaded = study.sharding is not None and study.sharding.offload
    on_gpu = memory.on_device(stage) if is_offloaded else memory
    # An adapter is saved in fp32, a fully finetuned model in the dtype it computes in.
    if study.method == "lora":
        saved = FP32 * _mean(trained)
    else:
        saved = float(_weight_bytes(study) * shape.parameters)
    checkpoint = FP32 * (1 + STATES[study.train.optimizer]) * _mean(trained)
    return StudyPlan(
        study=study.study_name,
        method=study.method,
        domain=study.domain,
        trials=trials,
        confirmations=confirmations,
        duration=duration_text(study),
        data=_tokens_source(study, size),
        parameters=shape.parameters,
        trainable_parameters=_span(trained),
        targets=_coverage(study, shape),
        gpus=study.resources.workers,
        tokens_per_s_assumed=round(speed.tokens_per_s, 1),
        speed=speed.basis,
        zero_stage=None if study.sharding is None else stage,
        state_memory_gb_per_gpu=on_gpu.per_gpu(study.resources.workers, stage) / GIGABYTE,
        state_memory_gb_by_gpus={n: memory.per_gpu(n, 3) / GIGABYTE for n in GPUS},
        # One more than there are trials: the best one's weights are copied to `best/`.
        disk_gb=(trials + confirmations + 1) * saved / GIGABYTE,
        disk_gb_per_trial=saved / GIGABYTE,
        disk_gb_under_way=checkpoint / GIGABYTE,
        **_training_costs(study, chosen, costs, trials, speed).model_dump(),
    )


def _coverage(study: SweepSpec, shape: Architecture) -> Coverage | None:
    """Measure what a study's sets of targets adapt."""
    if study.method != "lora":
        return None
    return coverage(shape.linear, study.targets, map(str, study.levels_of("targets")))


def _tokens_source(study: SweepSpec, size: DataSize) -> str:
    """Describe where the number of a trial's tokens comes from."""
    is_given = "tokens" in study.space.axes or study.hyperparameters.tokens is not None
    return "as the sweep says" if is_given and study.train.steps is None else size.source


def _training_costs(
    study: SweepSpec,
    chosen: Sequence[Hyperparameters],
    costs: Sequence[TrialCost],
    trials: int,
    speed: Throughput,
) -> TrainingCosts:
    """Sum up what depends on the number of tokens; nothing is known if one trial's is not."""
    if any(cost.tokens is None for cost in costs):
        return TrainingCosts()
    whole = [cost.tokens or 0.0 for cost in costs]
    own = tokens_without_trunks(study, chosen, costs)
    flops = [tokens * cost.flops_per_token for tokens, cost in zip(own, costs, strict=True)]
    # A grid runs each configuration once. A search runs `trials` of them, as if drawn evenly.
    # Confirming all repeats everything on each further seed, trunks included; confirming a few
    # repeats each of those in its whole length.
    times = trials / len(costs)
    confirmations = study.search.repetitions(trials)
    if study.search.confirm == "all":
        times *= study.search.seeds
    repeated = 0 if study.search.confirm == "all" else confirmations
    tokens = times * sum(own) + repeated * _mean(whole)
    start_s = START_S if study.sharding is not None or study.slots == 1 else 0.0
    rate = speed.tokens_per_s * study.resources.workers
    concurrent = 1 if study.resources.max_concurrent == "auto" else study.resources.max_concurrent
    return TrainingCosts(
        steps_per_trial=_span([cost.steps or 0 for cost in costs]),
        tokens_per_trial=_span([round(each) for each in whole]),
        tokens=round(tokens),
        tokens_shared=round(times * (sum(whole) - sum(own))),
        flops=times * sum(flops) + repeated * _mean([cost.flops for cost in costs]),
        hours=(tokens / rate + (trials + confirmations) * start_s) / 3600 / concurrent,
        hours_per_trial=_span([(each / rate + start_s) / 3600 for each in whole]),
    )


def duration_text(study: SweepSpec) -> str:
    """Write how long trials are, in the unit that the sweep uses."""
    if study.train.steps is not None:
        return f"{study.train.steps} steps"
    levels = _levels(study)
    if "tokens" in levels:
        return f"{', '.join(f'{float(n) / 1e9:g}' for n in levels['tokens'])} billion tokens"
    if study.hyperparameters.tokens is not None:
        return f"{study.hyperparameters.tokens / 1e9:g} billion tokens"
    epochs = [f"{float(n):g}" for n in levels.get("epochs", (study.hyperparameters.epochs,))]
    return f"{', '.join(epochs)} epoch{'' if epochs == ['1'] else 's'}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _span(values: Sequence[int] | Sequence[float]) -> Span:
    return Span(min=min(values), max=max(values))
