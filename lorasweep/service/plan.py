"""Plan a sweep: what it will take, without running it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lorasweep.errors import SpecError
from lorasweep.service.study_plan import StudyPlan, SweepPlan
from lorasweep.spec.sweep import SweepSpec

if TYPE_CHECKING:
    from lorasweep.model.arrival import Arrival


def plan_sweep(spec: SweepSpec, throughput: float | None = None) -> SweepPlan:
    """Estimate trials, parameters, FLOPs, memory, disk and hours; start nothing.

    Args:
        throughput: tokens a second on each worker; None assumes what the paper measured.

    Raises:
        UsageError: the model is neither here nor among the published ones, it lacks the layers of
            the targets or their adapters could not be kept, or local data cannot be read.
    """
    from lorasweep.data.prepare import sequence_length
    from lorasweep.model.arrival import check_targets
    from lorasweep.model.base import read_facts
    from lorasweep.model.size import read_architecture
    from lorasweep.service.data_size import DataSize, measure_data
    from lorasweep.service.estimate import estimate
    from lorasweep.store.scratch import use_writable_caches

    if throughput is not None and not throughput > 0:
        raise SpecError([f"--throughput: must be above 0, got {throughput:g}"])
    use_writable_caches()
    shape = read_architecture(spec.model)
    arrivals: dict[str, Mapping[str, Arrival]] = {}
    if not shape.published:  # else there is no configuration to make an empty model of
        family = read_facts(spec.model).family
        arrivals = {one.study_name: check_targets(one, family) for one in spec.studies}
    sizes: dict[str, DataSize] = {}  # studies mostly share their data, which may take long to read
    studies = []
    for study in spec.studies:
        seq_len = sequence_length(study.data, shape.positions)
        if (key := study.data.model_dump_json()) not in sizes:
            sizes[key] = measure_data(study.data, study.model, shape.positions, shape.vocabulary)
        plan = estimate(study, shape, sizes[key], seq_len, throughput)
        found = arrivals.get(study.study_name, {})
        notes = (
            *_notes(study, plan, is_published=shape.published),
            *sizes[key].notes,
            *_precision(study, found),
        )
        studies.append(plan.model_copy(update={"notes": notes}))
    return SweepPlan(
        name=spec.name,
        question=spec.question,
        hours=_total([study.hours for study in studies]),
        flops=_total([study.flops for study in studies]),
        studies=tuple(studies),
    )


def _total(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _notes(study: SweepSpec, plan: StudyPlan, *, is_published: bool) -> tuple[str, ...]:
    """Write what a reader must know about a study's numbers."""
    from lorasweep.model.coverage import coverage_notes
    from lorasweep.service.throughput import on_gpus

    notes = [] if plan.targets is None else coverage_notes(plan.targets, study.targets)
    if is_published:
        notes.append(
            f"{study.model.path} is not on this machine; its shape comes from a table of "
            "published models"
        )
    if plan.tokens is None:
        notes.append(
            f"the number of tokens in {study.data.path} is {plan.data}; so there are no FLOPs and "
            "no hours"
        )
    elif study.train.steps is not None and "unknown" in plan.data:
        notes.append(
            f"the number of tokens in {study.data.path} is {plan.data}; full sequences are assumed"
        )
    if plan.tokens_shared:
        notes.append(
            "runs that differ only in their duration share the trunk of the longest: 80% of it is "
            "trained once, and each run decays over the last 20% of its own duration"
        )
    if study.search.scheduler != "none":
        notes.append(
            f"{study.search.scheduler} stops trials early, so the search takes less than this"
        )
    if study.sharding is not None and on_gpus(study) and study.model.dtype != "fp32":
        notes.append(
            "state is counted as in appendix H of the paper; DeepSpeed also keeps a bf16 copy of "
            "the trained weights, 2 bytes a parameter"
        )
    notes.append("times count training only; evaluation adds to them")
    return tuple(notes)


def _precision(study: SweepSpec, found: Mapping[str, Arrival]) -> tuple[str, ...]:
    """Note what `tune` refuses on GPUs, which a plan does not know of."""
    named = [repr(targets) for targets, one in found.items() if one.by_weight]
    if not named or study.model.dtype != "auto":
        return ()
    return (
        f"on GPUs dtype auto is bf16, in which adapters of {' and '.join(named)} cannot be kept of "
        "this model; set model.dtype=fp32 there, or choose other targets",
    )
