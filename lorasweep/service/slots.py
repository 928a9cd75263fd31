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
    """Measure for each arm whose trials stand in lanes how many slots pay, from its first trials.

    Returns:
        Facts of each arm by name: `arm`, `trials`, `confirmations`, `lanes`, `slots`, `in_flight`,
        `reason`, `tokens_per_s` by the number of slots, `trainable` parameters of the largest
        adapter tried, and `notes`.

    Raises:
        UsageError: something the user can mend: model, data or tasks.
    """
    return [_measure(arm) for arm in spec.arms if arm.spread is None and arm.slots != 1]


def _measure(arm: SweepSpec) -> dict[str, Any]:
    from lorasweep.data.shard import Shard
    from lorasweep.train.probe import SlotProbe
    from lorasweep.tune.cluster import berths, this_machine
    from lorasweep.tune.prepare import prepare, published_points
    from lorasweep.tune.runner import Runner
    from lorasweep.tune.search import first_trials, planned_trials
    from lorasweep.tune.worker import set_up_process

    prepared = prepare(arm)
    shape, device = this_machine(arm.resources)
    planned = planned_trials(arm)
    set_up_process(shape.cpus)
    facts: dict[str, Any] = {
        "arm": arm.label,
        "trials": planned,
        "confirmations": arm.search.repetitions(planned),
        "notes": list(prepared.notes),
    }
    places = berths(arm, shape, planned, float(os.cpu_count() or 1))
    trials = first_trials(arm, published_points(arm), places.most)
    with tempfile.TemporaryDirectory() as folder:
        paths = SweepPaths(Path(folder))
        paths.sweep.write_text(dump_sweep(arm), encoding="utf-8")
        runner = Runner(prepared.spec, paths.root, prepared.data, Shard(), device)
        for trial in trials:
            runner.admit(runner.prepare(trial))
        facts["trainable"] = max(place.trainable for place in runner.engine.slots.values())
        probe = SlotProbe(tuple(runner.engine.slots), places.most)
        while probe.choice is None:
            runner.engine.step({*runner.engine.slots} - {*probe.group})
            probe.take(runner.engine.tokens, runner.engine.seconds)
    choice = probe.choice
    slots = choice.slots if arm.slots == "auto" else places.most
    return facts | {
        "lanes": places.lanes,
        "slots": slots,
        "in_flight": places.in_flight,
        "reason": choice.reason if arm.slots == "auto" else "as given",
        "tokens_per_s": {str(n): round(speed) for n, speed in choice.tokens_per_s.items()},
    }


def show_slots(measured: list[dict[str, Any]]) -> None:
    """Print what was measured for a person."""
    console = Console()
    for facts in measured:
        title = f"{facts['arm']}, measured on this machine"
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
        console.print("nothing to measure: no arm's trials share a base", highlight=False)
