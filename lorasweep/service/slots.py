"""How many trials share a base on this machine, measured on a few real steps."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lorasweep.spec.sweep import SweepSpec, dump_sweep
from lorasweep.store.paths import SweepPaths


def measure_slots(spec: SweepSpec) -> list[dict[str, Any]]:
    """Measure for each study whose trials stand in lanes how many slots pay, from its first trials.

    Returns:
        Facts of each study by name: `study`, `trials`, `confirmations`, `lanes`, `slots`,
        `in_flight`, `reason`, `tokens_per_s` by the number of slots, `trainable` parameters of the
        largest adapter tried, and `notes`.

    Raises:
        UsageError: something the user can mend: model, data or tasks.
    """
    return [_measure(study) for study in spec.studies if study.spread is None and study.slots != 1]


def _measure(study: SweepSpec) -> dict[str, Any]:
    from lorasweep.data.shard import Shard
    from lorasweep.lanes.cluster import capacity, this_machine
    from lorasweep.lanes.runner import Runner
    from lorasweep.lanes.worker import set_up_process
    from lorasweep.train.probe import SlotProbe
    from lorasweep.tune.prepare import prepare, published_points
    from lorasweep.tune.search import first_trials, planned_trials

    prepared = prepare(study)
    shape, device = this_machine(study.resources)
    planned = planned_trials(study)
    set_up_process(shape.cpus)
    facts: dict[str, Any] = {
        "study": study.study_name,
        "trials": planned,
        "confirmations": study.search.repetitions(planned),
        "notes": list(prepared.notes),
    }
    places = capacity(study, shape, planned, float(os.cpu_count() or 1))
    trials = first_trials(study, published_points(study), places.most)
    with tempfile.TemporaryDirectory() as folder:
        paths = SweepPaths(Path(folder))
        paths.sweep.write_text(dump_sweep(study), encoding="utf-8")
        runner = Runner(prepared.spec, paths.root, prepared.data, Shard(), device)
        for trial in trials:
            runner.admit(runner.prepare(trial))
        facts["trainable"] = max(place.trainable for place in runner.engine.slots.values())
        probe = SlotProbe(tuple(runner.engine.slots), places.most)
        while probe.choice is None:
            runner.engine.step({*runner.engine.slots} - {*probe.group})
            probe.take(runner.engine.tokens, runner.engine.seconds)
    choice = probe.choice
    slots = choice.slots if study.slots == "auto" else places.most
    return facts | {
        "lanes": places.lanes,
        "slots": slots,
        "in_flight": places.in_flight,
        "reason": choice.reason if study.slots == "auto" else "as given",
        "tokens_per_s": {str(n): round(speed) for n, speed in choice.tokens_per_s.items()},
    }


def show_slots(measured: list[dict[str, Any]]) -> None:
    """Print what was measured for a person."""
    console = Console()
    for facts in measured:
        title = f"{facts['study']}, measured on this machine"
        table = Table(box=None, show_header=False, title=title, title_justify="left")
        confirm = f", then {facts['confirmations']} to confirm" if facts["confirmations"] else ""
        table.add_row("trials", f"{facts['trials']}{confirm}")
        table.add_row("lanes", f"{facts['lanes']}, up to {facts['in_flight']} trials under way")
        table.add_row("slots", f"{facts['slots']} in each lane: {facts['reason']}")
        for n, speed in facts["tokens_per_s"].items():
            table.add_row("", f"{speed:,} tokens a second with {n} slot{'s' if n != '1' else ''}")
        table.add_row("trainable", f"{facts['trainable']:,} parameters at most")
        console.print(table)
        for note in facts["notes"]:
            console.print(f" {note}", highlight=False, soft_wrap=True)
    if not measured:
        console.print("nothing to measure: no study's trials share a base", highlight=False)
