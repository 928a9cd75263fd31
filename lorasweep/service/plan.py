"""What a sweep will take, found out without running it.

The facts of `lorasweep plan --json`. In all: `name`, `question`, `hours`, `flops`, `arms`. In each
arm, with None where the data's extent is not known here:

    arm, method, domain      names
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
    extents: dict[str, Any] = {}  # arms mostly share their data
    arms = []
    for arm in spec.arms:
        seq_len = sequence_length(arm.data, shape.positions)
        if (key := arm.data.model_dump_json()) not in extents:
            extents[key] = measure_extent(arm.data, arm.model, shape.positions, shape.vocabulary)
        facts = estimate(arm, shape, extents[key], seq_len, throughput)
        arms.append({**facts, "notes": _notes(arm, facts, published=shape.published)})
    return {
        "name": spec.name,
        "question": spec.question,
        "hours": _total(arms, "hours"),
        "flops": _total(arms, "flops"),
        "arms": arms,
    }


def _total(arms: list[dict[str, Any]], name: str) -> float | None:
    values = [arm[name] for arm in arms]
    return None if None in values else sum(values)


def _notes(arm: SweepSpec, facts: dict[str, Any], *, published: bool) -> list[str]:
    """Say what a reader must know of the numbers."""
    from lorasweep.service.speed import on_gpus

    notes = []
    if published:
        notes.append(f"{arm.model.path} is not here; its shape is that of a table of known models")
    if facts["tokens"] is None:
        notes.append(f"the tokens of {arm.data.path} are {facts['data']}; so no FLOPs and no hours")
    elif arm.train.steps is not None and "unknown" in facts["data"]:
        notes.append(f"the tokens of {arm.data.path} are {facts['data']}; full sequences are taken")
    if facts["tokens_shared"]:
        notes.append(
            "runs that differ in their duration alone share the trunk of the longest: 80% of it is "
            "trained once, and each decays over the last 20% of its own"
        )
    if arm.search.scheduler != "none":
        notes.append(f"{arm.search.scheduler} stops trials early, so that it takes less")
    if arm.spread is not None and on_gpus(arm) and arm.model.dtype != "fp32":
        notes.append(
            "state is as appendix H counts it; DeepSpeed keeps a bf16 copy of what is trained "
            "besides, 2 bytes a parameter"
        )
    notes.append("hours are those of training; measuring comes on top")
    return notes


def show_plan(facts: dict[str, Any]) -> None:
    """Print a plan for a person."""
    console = Console()
    for arm in facts["arms"]:
        table = Table(box=None, show_header=False, title=f"{arm['arm']}", title_justify="left")
        for name, value in _rows(arm):
            table.add_row(name, value)
        console.print(table)
        for note in arm["notes"]:
            console.print(f" {note}", highlight=False, soft_wrap=True)
        console.print()
    if len(facts["arms"]) > 1 and facts["hours"] is not None:
        console.print(
            f" {facts['name']}: {_hours(facts['hours'])} and {facts['flops']:.2g} FLOPs in all",
            highlight=False,
        )


def _rows(arm: dict[str, Any]) -> list[tuple[str, str]]:
    """Give the lines of an arm's table."""
    confirm = f", and {arm['confirmations']} on further seeds" if arm["confirmations"] else ""
    workers = f"{arm['gpus']} worker{'s' if arm['gpus'] > 1 else ''}"
    spread = "a lane's" if arm["zero_stage"] is None else f"ZeRO {arm['zero_stage']}"
    by_gpus = arm["state_memory_gb_by_gpus"]
    rows = [
        ("trials", f"{arm['trials']}{confirm}"),
        ("duration", arm["duration"]),
        ("model", f"{arm['parameters']:,} parameters"),
        ("trained", _span(arm["trainable_parameters"], "{:,}")),
    ]
    if arm["tokens"] is not None:
        shared = f", {_short(arm['tokens_shared'])} more shared" if arm["tokens_shared"] else ""
        rows += [
            ("steps", f"{_span(arm['steps_per_trial'], '{:,}')} a trial"),
            ("tokens", f"{_short_span(arm['tokens_per_trial'])} a trial ({arm['data']})"),
            ("", f"{_short(arm['tokens'])} in all{shared}"),
            ("FLOPs", f"{arm['flops']:.3g} in all"),
            ("hours", f"{_hour_span(arm['hours_per_trial'])} a trial on {workers}"),
            ("", f"{_hours(arm['hours'])} in all"),
        ]
    return [
        *rows,
        ("speed", f"{arm['tokens_per_s_assumed']:,.0f} tokens/s a worker: {arm['speed']}"),
        ("state", f"{_gigabytes(arm['state_memory_gb_per_gpu'])} a GPU, {spread}, {workers}"),
        ("", "all sharded: " + ", ".join(f"{_gigabytes(gb)} on {n}" for n, gb in by_gpus.items())),
        (
            "disk",
            f"{_gigabytes(arm['disk_gb'])}: {_gigabytes(arm['disk_gb_per_trial'])} a trial; "
            f"{_gigabytes(arm['disk_gb_under_way'])} while one is under way",
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
