"""What `lorasweep plan --json` prints: the plan of a sweep, study by study."""

from __future__ import annotations

from lorasweep.model.coverage import Coverage
from lorasweep.spec.trial import Frozen


class Span(Frozen):
    """The smallest and the largest value over a study's configurations."""

    min: int | float
    max: int | float


class TrainingCosts(Frozen):
    """What depends on the number of tokens; None where that is unknown.

    steps_per_trial, tokens_per_trial, hours_per_trial: of a trial that shares no trunk.
    tokens: trained on in all; tokens_shared: saved by trunks.
    flops: in all, attention scores left out (`model/size.py`).
    hours: in all, with one trial at a time or `resources.max_concurrent` of them.
    """

    steps_per_trial: Span | None = None
    tokens_per_trial: Span | None = None
    tokens: int | None = None
    tokens_shared: int | None = None
    flops: float | None = None
    hours: float | None = None
    hours_per_trial: Span | None = None


class StudyPlan(TrainingCosts):
    """What one study takes.

    trials, confirmations: trials of the search, and repetitions of configurations on more seeds.
    duration: of a trial, in words; data: where the number of tokens comes from.
    parameters: of the model; trainable_parameters: over the space.
    targets: what the sets of targets of a LoRA study adapt of the model.
    gpus: workers of a trial, whether GPUs or CPUs.
    tokens_per_s_assumed: on each worker; speed: where that comes from.
    zero_stage: of DeepSpeed, None in lanes.
    state_memory_gb_per_gpu: of the largest trial: weights, gradients and optimizer states, without
        activations.
    state_memory_gb_by_gpus: the same, sharded over each number of GPUs in appendix H of the paper.
    disk_gb, disk_gb_per_trial: what trials leave; disk_gb_under_way: the checkpoint of a running
        trial.
    notes: what a reader of these numbers must know, in sentences.
    """

    study: str
    method: str
    domain: str
    trials: int
    confirmations: int
    duration: str
    data: str
    parameters: int
    trainable_parameters: Span
    targets: Coverage | None
    gpus: int
    tokens_per_s_assumed: float
    speed: str
    zero_stage: int | None
    state_memory_gb_per_gpu: float
    state_memory_gb_by_gpus: dict[int, float]
    disk_gb: float
    disk_gb_per_trial: float
    disk_gb_under_way: float
    notes: tuple[str, ...] = ()


class SlotMeasurement(Frozen):
    """How many slots pay for one study on this machine, as `plan --measure` found out.

    lanes, in_flight: how many lanes the study gets, and how many trials are under way.
    slots: trials that share a base in each lane; reason: why that many.
    tokens_per_s: measured training throughput, by the number of slots.
    trainable: parameters of the largest adapter that was tried.
    """

    study: str
    trials: int
    confirmations: int
    notes: tuple[str, ...]
    trainable: int
    lanes: int
    slots: int
    in_flight: int
    reason: str
    tokens_per_s: dict[int, int]


class SweepPlan(Frozen):
    """What a sweep takes.

    hours, flops: of all studies, None where the tokens of one are unknown.
    measured: slots that pay, by study; None unless they were measured.
    """

    name: str
    question: str
    hours: float | None
    flops: float | None
    studies: tuple[StudyPlan, ...]
    measured: tuple[SlotMeasurement, ...] | None = None
