"""What a sweep will take, found out without running it.

The facts of `lorasweep plan --json`. In all: `name`, `question`, `hours`, `flops`,
`studies`. In each study, with None where the data's extent is not known here:

    study, method, domain      names
    trials, confirmations    how many run, and how many repeat configurations on further seeds
    duration, data           of a trial, in words; where the number of tokens comes from
    parameters               of the model; trainable_parameters {min, max}: over the space
    steps_per_trial, tokens_per_trial, hours_per_trial
                             {min, max}: of a trial that shares nothing
    tokens, tokens_shared    trained on in all, and those that trunks save
    flops                    in all, attention scores left out (`model/size.py`)
    gpus                     workers of a trial, be they GPUs or CPUs
    hours                    in all: one trial at a time, or `resources.max_concurrent` of them
    tokens_per_s_assumed     on each worker; speed: why, in words
    zero_stage               of DeepSpeed, None in lanes
    state_memory_gb_per_gpu  largest trial: weights, gradients, optimizer states; no activations
    state_memory_gb_by_gpus  the same all sharded over 1, 8, 16, 32, 64 GPUs, as in appendix H
    disk_gb, disk_gb_per_trial, disk_gb_under_way
                             of what trials leave; of what a trial under way saves to go on from
"""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from lorasweep.errors import SpecError
from lorasweep.spec.sweep import SweepSpec

_SCALES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def plan_sweep(spec: SweepSpec, throughput: float | None = None) -> dict[str, Any]:
    """Reckon what a sweep takes: trials, parameters, FLOPs, memory and hours; start nothing.

    Args:
        throughput: tokens a second on each worker; None assumes what the paper has measured.

    Raises:
        UsageError: the model is neither here nor among the published ones, or data that lie here
            cannot be read.
    """
    from lorasweep.data.prepare import sequence_length
    from lorasweep.model.size import read_architecture
    from lorasweep.service.estimate import estimate
    from lorasweep.service.extent import measure_extent

    if throughput is not None and not throughput > 0:
        raise SpecError([f"--throughput: must be above 0, got {throughput:g}"])
    shape = read_architecture(spec.model)
    extents: dict[str, Any] = {}  # studies mostly share their data
    studies = []
    for study in spec.studies:
        seq_len = sequence_length(study.data, shape.positions)
        if (key := study.data.model_dump_json()) not in extents:
            extents[key] = measure_extent(
                study.data, study.model, shape.positions, shape.vocabulary
            )
        facts = estimate(study, shape, extents[key], seq_len, throughput)
        studies.append({**facts, "notes": _notes(study, facts, published=shape.published)})
    return {
        "name": spec.name,
        "question": spec.question,
        "hours": _total(studies, "hours"),
        "flops": _total(studies, "flops"),
        "studies": studies,
    }


def _total(studies: list[dict[str, Any]], name: str) -> float | None:
    values = [study[name] for study in studies]
    return None if None in values else sum(values)


def _notes(study: SweepSpec, facts: dict[str, Any], *, published: bool) -> list[str]:
    """Say what a reader must know of the numbers."""
    from lorasweep.service.speed import on_gpus

    notes = []
    if published:
        notes.append(
            f"{study.model.path} is not here; its shape is that of a table of known models"
        )
    if facts["tokens"] is None:
        notes.append(
            f"the tokens of {study.data.path} are {facts['data']}; so no FLOPs and no hours"
        )
    elif study.train.steps is not None and "unknown" in facts["data"]:
        notes.append(
            f"the tokens of {study.data.path} are {facts['data']}; full sequences are taken"
        )
    if facts["tokens_shared"]:
        notes.append(
            "runs that differ in their duration alone share the trunk of the longest: 80% of it is "
            "trained once, and each decays over the last 20% of its own"
        )
    if study.search.scheduler != "none":
        notes.append(f"{study.search.scheduler} stops trials early, so that it takes less")
    if study.spread is not None and on_gpus(study) and study.model.dtype != "fp32":
        notes.append(
            "state is as appendix H counts it; DeepSpeed keeps a bf16 copy of what is trained "
            "besides, 2 bytes a parameter"
        )
    notes.append("hours are those of training; measuring comes on top")
    return notes


def show_plan(facts: dict[str, Any]) -> None:
    """Print a plan for a person."""
    console = Console()
    for study in facts["studies"]:
        table = Table(box=None, show_header=False, title=f"{study['study']}", title_justify="left")
        for name, value in _rows(study):
            table.add_row(name, value)
        console.print(table)
        for note in study["notes"]:
            console.print(f" {note}", highlight=False, soft_wrap=True)
        console.print()
    if len(facts["studies"]) > 1 and facts["hours"] is not None:
        console.print(
            f" {facts['name']}: {_hours(facts['hours'])} and {facts['flops']:.2g} FLOPs in all",
            highlight=False,
        )


def _rows(study: dict[str, Any]) -> list[tuple[str, str]]:
    """Give the lines of a study's table."""
    confirm = f", and {study['confirmations']} on further seeds" if study["confirmations"] else ""
    workers = f"{study['gpus']} worker{'s' if study['gpus'] > 1 else ''}"
    spread = "a lane's" if study["zero_stage"] is None else f"ZeRO {study['zero_stage']}"
    by_gpus = study["state_memory_gb_by_gpus"]
    rows = [
        ("trials", f"{study['trials']}{confirm}"),
        ("duration", study["duration"]),
        ("model", f"{study['parameters']:,} parameters"),
        ("trained", _span(study["trainable_parameters"], "{:,}")),
    ]
    if study["tokens"] is not None:
        shared = f", {_short(study['tokens_shared'])} more shared" if study["tokens_shared"] else ""
        rows += [
            ("steps", f"{_span(study['steps_per_trial'], '{:,}')} a trial"),
            ("tokens", f"{_short_span(study['tokens_per_trial'])} a trial ({study['data']})"),
            ("", f"{_short(study['tokens'])} in all{shared}"),
            ("FLOPs", f"{study['flops']:.3g} in all"),
            ("hours", f"{_hour_span(study['hours_per_trial'])} a trial on {workers}"),
            ("", f"{_hours(study['hours'])} in all"),
        ]
    return [
        *rows,
        ("speed", f"{study['tokens_per_s_assumed']:,.0f} tokens/s a worker: {study['speed']}"),
        ("state", f"{_gigabytes(study['state_memory_gb_per_gpu'])} a GPU, {spread}, {workers}"),
        ("", "all sharded: " + ", ".join(f"{_gigabytes(gb)} on {n}" for n, gb in by_gpus.items())),
        (
            "disk",
            f"{_gigabytes(study['disk_gb'])}: {_gigabytes(study['disk_gb_per_trial'])} a trial; "
            f"{_gigabytes(study['disk_gb_under_way'])} while one is under way",
        ),
    ]


def _span(span: dict[str, float], form: str) -> str:
    low, high = form.format(span["min"]), form.format(span["max"])
    return low if low == high else f"{low} to {high}"


def _short(count: float) -> str:
    """Write a count with three digits and its thousands as a letter."""
    return next((f"{count / n:.3g}{letter}" for n, letter in _SCALES if count >= n), f"{count:.3g}")


def _short_span(span: dict[str, float]) -> str:
    low, high = _short(span["min"]), _short(span["max"])
    return low if low == high else f"{low} to {high}"


def _gigabytes(gigabytes: float) -> str:
    return f"{gigabytes * 1000:.3g} MB" if gigabytes < 0.1 else f"{gigabytes:,.4g} GB"


def _hours(hours: float) -> str:
    if hours < 1:
        return f"{hours * 60:.2g} minutes"
    return f"{hours:,.3g} hours" if hours < 100 else f"{hours:,.0f} hours"


def _hour_span(span: dict[str, float]) -> str:
    low, high = _hours(span["min"]), _hours(span["max"])
    return low if low == high else f"{low} to {high}"
