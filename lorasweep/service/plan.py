"""What a sweep will do, found out without running it: its trials, its slots, and their speed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lorasweep.spec.sweep import SweepSpec, dump_sweep
from lorasweep.store.paths import SweepPaths


def plan_sweep(spec: SweepSpec) -> dict[str, Any]:
    """Measure on this machine how many slots pay, from a few steps of the sweep's first trials.

    Returns:
        Facts by name: `trials`, `confirmations`, `lanes`, `slots`, `in_flight`, `reason`,
        `tokens_per_s` by the number of slots, `trainable` parameters of the largest adapter tried,
        and `notes`.

    Raises:
        UsageError: something the user can mend: model, data or tasks.
    """
    from lorasweep.data.shard import Shard
    from lorasweep.train.probe import SlotProbe
    from lorasweep.tune.cluster import berths, this_machine
    from lorasweep.tune.prepare import prepare, published_points
    from lorasweep.tune.runner import Runner
    from lorasweep.tune.search import first_trials, planned_trials
    from lorasweep.tune.worker import set_up_process

    prepared = prepare(spec)
    shape, device = this_machine(spec.resources)
    planned = planned_trials(spec)
    set_up_process(shape.cpus)
    facts: dict[str, Any] = {
        "trials": planned,
        "confirmations": spec.search.confirm * (spec.search.seeds - 1),
        "notes": list(prepared.notes),
    }
    places = berths(spec, shape, planned, float(os.cpu_count() or 1))
    trials = first_trials(spec, published_points(spec), places.most)
    with tempfile.TemporaryDirectory() as folder:
        paths = SweepPaths(Path(folder))
        paths.sweep.write_text(dump_sweep(spec), encoding="utf-8")
        runner = Runner(prepared.spec, paths.root, prepared.data, Shard(), device)
        for trial in trials:
            runner.admit(runner.prepare(trial))
        facts["trainable"] = max(s.adapter.trainable for s in runner.engine.slots.values())
        probe = SlotProbe(tuple(runner.engine.slots), places.most)
        while probe.choice is None:
            runner.engine.step({*runner.engine.slots} - {*probe.group})
            probe.take(runner.engine.tokens, runner.engine.seconds)
    choice = probe.choice
    slots = choice.slots if spec.slots == "auto" else places.most
    return facts | {
        "lanes": places.lanes,
        "slots": slots,
        "in_flight": places.in_flight,
        "reason": choice.reason if spec.slots == "auto" else "as given",
        "tokens_per_s": {str(n): round(speed) for n, speed in choice.tokens_per_s.items()},
    }


def show_plan(facts: dict[str, Any]) -> None:
    """Print a plan for a person."""
    table = Table(box=None, show_header=False)
    confirm = f", then {facts['confirmations']} to confirm" if facts["confirmations"] else ""
    table.add_row("trials", f"{facts['trials']}{confirm}")
    table.add_row("lanes", f"{facts['lanes']}, up to {facts['in_flight']} trials under way")
    table.add_row("slots", f"{facts['slots']} in each lane: {facts['reason']}")
    for n, speed in facts["tokens_per_s"].items():
        table.add_row("", f"{speed:,} tokens a second with {n} slot{'s' if n != '1' else ''}")
    table.add_row("trainable", f"{facts['trainable']:,} parameters at most")
    console = Console()
    console.print(table)
    for note in facts["notes"]:
        console.print(f"{note}", highlight=False)
